// Pictures with many panels are small beside the text: a click shows a picture in its own size.
document.addEventListener("click", ({ target }) => {
  if (target.matches(".md-content img") && !target.closest("a")) location.assign(target.src)
})
