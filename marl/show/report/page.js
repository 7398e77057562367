"use strict";

// charts: the figures are in the page as JSON; colours of text and grid follow the reader's scheme
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const charts = [];

function coloured(figure) {
  const night = dark.matches && !printing;
  const ink = night ? "#e8e8e8" : "#1b1b1b";
  const grid = night ? "#3c3f41" : "#e4e4e4";
  // black lines would vanish at night
  const text = JSON.stringify(figure);
  const made = JSON.parse(night ? text.replaceAll("#000000", "#ffffff").replaceAll("rgba(0,0,0,0.", "rgba(255,255,255,0.") : text);
  const layout = made.layout;
  layout.font = { ...(layout.font || {}), color: ink };
  layout.hoverlabel = { ...(layout.hoverlabel || {}), bgcolor: night ? "#242628" : "#ffffff", bordercolor: grid, font: { color: ink } };
  for (const name of Object.keys(layout)) {
    if (/^[xy]axis/.test(name)) Object.assign(layout[name], { gridcolor: grid, zerolinecolor: grid, linecolor: grid });
  }
  return made;
}

let printing = false;

// only what is near the window is drawn, for each chart takes a moment and a page may have many
function draw(chart) {
  chart.drawn = true;
  const made = coloured(chart.figure);
  return Plotly.react(chart.place, made.data, made.layout, { responsive: true, displaylogo: false });
}

for (const place of document.querySelectorAll(".chart")) {
  const held = place.querySelector("script");
  const chart = { place, figure: JSON.parse(held.textContent) };
  held.remove();
  charts.push(chart);
}

function redraw() {
  charts.filter((chart) => chart.drawn || printing).forEach(draw);
  showSeeds();
}

dark.addEventListener("change", redraw);
window.addEventListener("beforeprint", () => { printing = true; redraw(); });
window.addEventListener("afterprint", () => { printing = false; redraw(); });

const box = document.getElementById("seeds");

function showSeeds() {
  if (!box) return;
  for (const { place } of charts.filter((chart) => chart.drawn)) {
    const which = place.data.flatMap((trace, k) => (trace.meta === "seed" ? [k] : []));
    if (which.length) Plotly.restyle(place, { opacity: box.checked ? 0.8 : 0 }, which);
  }
}

if (box) box.addEventListener("change", showSeeds);

const near = new IntersectionObserver((seen) => {
  for (const { target } of seen.filter((one) => one.isIntersecting)) {
    near.unobserve(target);
    const chart = charts.find((one) => one.place === target);
    if (!chart.drawn) draw(chart);
  }
  if (box && box.checked) showSeeds();
}, { rootMargin: "50%" });
for (const { place } of charts) near.observe(place);

// films: one picture is shown at a time
for (const player of document.querySelectorAll(".player")) {
  const held = player.querySelector("script");
  const { frames, fps, every, steps } = JSON.parse(held.textContent);
  held.remove();
  const image = player.querySelector("img");
  const slider = player.querySelector("input");
  const counter = player.querySelector("output");
  const speed = player.querySelector("select");
  const button = player.querySelector("[data-do=play]");
  const end = frames.length - 1;
  let now = 0;
  let timer = null;

  function show(step) {
    now = Math.max(0, Math.min(end, step));
    image.src = frames[now];
    slider.value = now;
    counter.textContent = `step ${Math.min(now * every, steps)} of ${steps}`;
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = "play";
  }

  function play() {
    if (now === end) show(0);
    timer = setInterval(() => {
      show(now + 1);
      if (now === end) pause();
    }, 1000 * every / (fps * Number(speed.value)));
    button.textContent = "pause";
  }

  function step(by) {
    pause();
    show(now + by);
  }

  button.addEventListener("click", () => (timer === null ? play() : pause()));
  player.querySelector("[data-do=back]").addEventListener("click", () => step(-1));
  player.querySelector("[data-do=forward]").addEventListener("click", () => step(1));
  slider.addEventListener("input", () => step(Number(slider.value) - now));
  speed.addEventListener("change", () => {
    if (timer !== null) { pause(); play(); }
  });
  player.addEventListener("keydown", (event) => {
    if (event.target !== player) return;
    const keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), " ": () => button.click() };
    if (event.key in keys) { event.preventDefault(); keys[event.key](); }
  });
  show(0);
}
