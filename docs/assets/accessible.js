// Names for what the theme leaves nameless, so that a screen reader can tell it apart.
{
  const mend = () => {
    document.querySelector(".md-search")?.setAttribute("aria-label", "搜索");
    document.querySelectorAll("nav.md-code__nav").forEach((buttons, index) => {
      buttons.setAttribute("aria-label", `第 ${index + 1} 段代码`);
    });
  };
  mend();
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
}
