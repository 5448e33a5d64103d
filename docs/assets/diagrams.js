// The theme draws mermaid blocks with the global `mermaid` and would fetch it from a CDN if
// there were none. This one loads the site's own copy, when a diagram comes near the screen.
{
  const folder = new URL("vendor/mermaid/", document.currentScript.src);
  let options;
  const stub = {
    initialize: (given) => { options = given; },
    render: async (id, source) => {
      await near([...document.querySelectorAll("pre.mermaid")].find((e) => e.textContent === source));
      loading ??= folder.protocol === "file:" ? script() : module();
      const mermaid = await loading;
      mermaid.initialize(options);
      return mermaid.render(id, source);
    },
  };
  let loading;
  const near = (element) => new Promise((resolve) => {
    const observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        observer.disconnect();
        resolve();
      },
      { rootMargin: "100% 0px" },
    );
    observer.observe(element);
  });
  const module = async () => (await import(new URL("mermaid.esm.min.mjs", folder))).default;
  // A page opened from disk may not load modules.
  const script = () => new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = new URL("mermaid.min.js", folder);
    element.onload = () => {
      resolve(window.mermaid);
      window.mermaid = stub;
    };
    element.onerror = reject;
    document.head.append(element);
  });
  window.mermaid = stub;
}
