// Names for what the theme leaves nameless, and keys for what scrolls: for those who hear the page
// or use no mouse.
{
  const mend = () => {
    document.querySelector(".md-search")?.setAttribute("aria-label", "搜索");
    document.querySelectorAll("nav.md-code__nav").forEach((buttons, index) => {
      buttons.setAttribute("aria-label", `第 ${index + 1} 段代码`);
    });
    document.querySelectorAll(".md-typeset__scrollwrap, div.arithmatex").forEach((wide) => {
      if (wide.scrollWidth <= wide.clientWidth) return;
      wide.tabIndex = 0; // then arrow keys scroll it, in Safari too
      wide.setAttribute("role", "group");
      wide.setAttribute("aria-label", "可以左右滚动");
    });
  };
  mend();
  document.addEventListener("toggle", mend, true); // what was folded has a width only now
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
}
