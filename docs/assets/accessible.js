// Names for what the theme leaves nameless, and keys for what scrolls: for those who hear the page
// or use no mouse. Search, too, for those who paste, dictate or write by hand.
{
  // With a tab stop arrow keys scroll it, in Safari too.
  const SCROLLS = { tabindex: "0", role: "group", "aria-label": "可以左右滚动" };
  // Told of after each layout, what was folded when it is opened.
  const sizes = new ResizeObserver((entries) => {
    const parts = entries.map(({ target }) => target);
    // All widths before the first change, after which the page would be laid out anew.
    const wide = parts.map((part) => part.scrollWidth > part.clientWidth);
    parts.forEach((part, index) => {
      for (const [name, value] of Object.entries(SCROLLS)) {
        wide[index] ? part.setAttribute(name, value) : part.removeAttribute(name);
      }
    });
  });
  const known = new WeakSet();
  const mend = () => {
    document.querySelector(".md-search")?.setAttribute("aria-label", "搜索");
    document.querySelectorAll("nav.md-code__nav").forEach((buttons, index) => {
      buttons.setAttribute("aria-label", `第 ${index + 1} 段代码`);
    });
    const english = ".doc-contents > p:not(:has(.doc-section-title)), .doc-md-description";
    document.querySelectorAll(english).forEach((part) => part.setAttribute("lang", "en"));
    document.querySelectorAll(".md-typeset__scrollwrap, div.arithmatex").forEach((part) => {
      if (!known.has(part)) sizes.observe(part);
      known.add(part);
    });
  };
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      mend();
    });
  };
  soon();
  // The theme searches when a key is let go; text may arrive without one.
  document.addEventListener("input", ({ target }) => {
    if (target.matches("[data-md-component=search-query]")) target.dispatchEvent(new Event("keyup"));
  });
  new MutationObserver(soon).observe(document.body, { childList: true, subtree: true });
}
