// Names for what the theme leaves nameless, and keys for what scrolls: for those who hear the page
// or use no mouse.
{
  // With a tab stop arrow keys scroll it, in Safari too.
  const SCROLLS = { tabindex: "0", role: "group", "aria-label": "可以左右滚动" };
  const mend = () => {
    document.querySelector(".md-search")?.setAttribute("aria-label", "搜索");
    document.querySelectorAll("nav.md-code__nav").forEach((buttons, index) => {
      buttons.setAttribute("aria-label", `第 ${index + 1} 段代码`);
    });
    document.querySelectorAll(".md-typeset__scrollwrap, div.arithmatex").forEach((part) => {
      const scrolls = part.scrollWidth > part.clientWidth;
      for (const [name, value] of Object.entries(SCROLLS)) {
        scrolls ? part.setAttribute(name, value) : part.removeAttribute(name);
      }
    });
  };
  mend();
  document.addEventListener("toggle", mend, true); // what was folded has a width only now
  addEventListener("resize", mend);
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
}
