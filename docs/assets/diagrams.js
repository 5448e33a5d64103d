// The theme draws mermaid blocks with the global `mermaid` and would fetch it from a CDN if
// there were none. This one loads the site's own copy, when the first diagram needs it.
{
  const folder = new URL("vendor/mermaid/", document.currentScript.src);
  let options;
  const stub = {
    initialize: (given) => { options = given; },
    render: async (...diagram) => {
      loading ??= folder.protocol === "file:" ? script() : module();
      const mermaid = await loading;
      mermaid.initialize(options);
      return mermaid.render(...diagram);
    },
  };
  let loading;
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
