"""The page in a browser without a network: charts that are switched, films that play, names that do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marl.show.report import page
from marl.show.report.players import Film, picture
from tests.support.report_parts import make_run, options

CHROMIUM = Path("/usr/bin/chromium")
EVIL = "<img src=x onerror=hacked=1>"
pytest.importorskip("plotly", reason="charts need plotly: pip install -e .[report]")
api = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright: pip install -e .[dev]")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}: make browser")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report of three groups, one of them with an evil name, and a film of six frames in six shades."""
    folder = tmp_path_factory.mktemp("report")
    for seed in (0, 1):
        for team, end in (("qmix-none", 0.4), ("vdn-none", 0.8), (f"{EVIL}-none", 0.2)):
            make_run(folder / "runs", team, seed, ((0, 0.0), (500, end), (1000, end + seed / 10)))
    report, groups = page.contents(options(folder / "runs", fps=20))
    frames = [picture(np.full((40, 60, 3), 40 * k, np.uint8)) for k in range(6)]
    film = Film(groups[0], "seed 0", f"won {EVIL}", frames, 60, 40, 5)
    (folder / "report.html").write_text(page.html(page.with_films(report, [film], [])), encoding="utf8")
    return folder / "report.html"


class Opened:
    """A page that is open: ``wrong`` is what it complained of and what it asked a network for."""

    def __init__(self, tab: Any, file: Path) -> None:
        self.tab, self.wrong = tab, []
        tab.on("console", lambda said: self.wrong.append(said.text))
        tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        tab.on("request", lambda asked: self._note(asked.url, file.as_uri()))
        tab.goto(file.as_uri())
        tab.locator(".chart").first.scroll_into_view_if_needed()  # what is far below the window is not drawn
        tab.wait_for_selector(".chart .legendtoggle")

    def _note(self, url: str, own: str) -> None:
        if url != own and not url.startswith(("data:", "blob:")):
            self.wrong.append(url)

    def traces(self, expression: str) -> list[Any]:
        """Return ``expression`` for each trace ``t`` of the first chart."""
        found: list[Any] = self.tab.evaluate(f"document.querySelector('.chart').data.map(t => {expression})")
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def opened(browser: Any, file: Path) -> Iterator[Opened]:
    """Open the page once, for opening it takes seconds; every test leaves it as it was."""
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 900})
    yield Opened(context.new_page(), file)
    context.close()


def test_the_page_opens_without_a_network_and_without_complaints(opened: Opened) -> None:
    assert opened.tab.evaluate("charts.some(c => !c.drawn)"), "what is far below is not drawn yet"
    for place in opened.tab.locator(".chart").all():
        place.scroll_into_view_if_needed()
        place.locator("svg").first.wait_for(state="attached", timeout=20000)
    drawn = opened.tab.evaluate("[...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('svg').length)")
    assert len(drawn) == 4 and all(drawn) and opened.wrong == []
    wider = opened.tab.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert not wider, "the page itself is not scrolled sideways"


def test_names_do_nothing(opened: Opened) -> None:
    assert opened.tab.evaluate("typeof hacked") == "undefined" and EVIL in opened.tab.inner_text("#what")
    shown = opened.tab.evaluate("[...document.querySelectorAll('.legendtext')].map(t => t.textContent)")
    assert any(EVIL in name for name in shown) and opened.tab.locator("img").count() == 1, "the film's own"


def test_a_click_on_a_name_hides_its_group_and_another_shows_it(opened: Opened) -> None:
    groups = opened.traces("t.legendgroup")
    assert set(opened.traces("t.visible ?? true")) == {True}
    for expected in ("legendonly", True):
        opened.tab.locator(".chart .legendtoggle").first.click()
        opened.tab.wait_for_timeout(600)  # plotly waits for a double click
        seen = {group: set() for group in groups}
        for group, visible in zip(groups, opened.traces("t.visible ?? true"), strict=True):
            seen[group].add(visible)
        assert seen[groups[0]] == {expected}, "band, mean and seeds"
        assert all(found == {True} for group, found in seen.items() if group != groups[0])
    assert opened.wrong == []


def test_hovering_says_the_mean_and_its_interval(opened: Opened) -> None:
    area = opened.tab.locator(".chart .nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    area.hover(position={"x": box["width"] - 2, "y": box["height"] / 2})
    texts = opened.tab.locator(".chart .hoverlayer text")
    texts.first.wait_for(timeout=5000)
    said = " ".join(texts.all_text_contents())
    assert "study vdn (2 seeds) : 0.850 [0.800, 0.900]" in said, said


def test_every_seed_can_be_shown(opened: Opened) -> None:
    assert set(opened.traces("t.meta === 'seed' ? t.opacity : 0")) == {0}
    opened.tab.check("#seeds")
    opened.tab.wait_for_timeout(200)
    assert opened.traces("t.meta === 'seed' ? t.opacity : 0").count(0.8) == 6
    opened.tab.uncheck("#seeds")
    opened.tab.wait_for_timeout(200)
    assert set(opened.traces("t.meta === 'seed' ? t.opacity : 0")) == {0}
    assert opened.wrong == []


def test_a_film_is_stepped_by_buttons_slider_and_keys(opened: Opened) -> None:
    player = opened.tab.locator(".player")
    shown = player.locator("output")
    player.locator("input").fill("0")
    first = player.locator("img").get_attribute("src")
    assert shown.inner_text() == "step 0 of 5"
    player.locator("[data-do=forward]").click()
    assert shown.inner_text() == "step 1 of 5" and player.locator("img").get_attribute("src") != first
    player.locator("[data-do=back]").click()
    player.locator("[data-do=back]").click()
    assert shown.inner_text() == "step 0 of 5" and player.locator("img").get_attribute("src") == first
    player.locator("input").fill("4")
    assert shown.inner_text() == "step 4 of 5"
    player.focus()
    opened.tab.keyboard.press("ArrowRight")
    opened.tab.keyboard.press("ArrowRight")
    assert shown.inner_text() == "step 5 of 5" and player.locator("input").input_value() == "5"


def test_a_film_plays_to_its_end_at_any_speed_and_pauses(opened: Opened) -> None:
    player = opened.tab.locator(".player")
    shown, button = player.locator("output"), player.locator("[data-do=play]")
    player.locator("select").select_option("0.25")
    button.click()
    assert button.inner_text() == "pause"
    button.click()
    paused = shown.inner_text()
    opened.tab.wait_for_timeout(500)  # two steps at this speed
    assert button.inner_text() == "play" and shown.inner_text() == paused
    button.click()
    player.locator("select").select_option("4")  # while it plays
    api.expect(shown).to_have_text("step 5 of 5")
    assert button.inner_text() == "play"
    button.click()  # again, from the beginning
    api.expect(button).to_have_text("play")
    assert shown.inner_text() == "step 5 of 5" and opened.wrong == []


def test_charts_follow_the_readers_colours_and_keep_what_is_hidden(opened: Opened) -> None:
    ink = "document.querySelector('.chart').layout.font.color"
    light = opened.tab.evaluate(ink)
    opened.tab.locator(".chart .legendtoggle").first.click()
    opened.tab.wait_for_timeout(600)
    opened.tab.emulate_media(color_scheme="dark")
    opened.tab.wait_for_timeout(300)
    assert opened.tab.evaluate(ink) != light
    hidden = "document.querySelector('.chart')._fullData.map(t => t.visible)"
    assert "legendonly" in opened.tab.evaluate(hidden)
    opened.tab.emulate_media(color_scheme="light")
    opened.tab.locator(".chart .legendtoggle").first.click()
    opened.tab.wait_for_timeout(600)
    assert opened.tab.evaluate(ink) == light and "legendonly" not in opened.tab.evaluate(hidden)
