// The theme draws mermaid blocks with the global `mermaid` and would fetch it from a CDN if
// there were none. This one loads the site's own copy, when the first diagram needs it.
{
  const source = new URL("vendor/mermaid/mermaid.esm.min.mjs", document.currentScript.src);
  let options;
  window.mermaid = {
    initialize: (given) => { options = given; },
    render: async (...diagram) => {
      const { default: mermaid } = await import(source);
      mermaid.initialize(options);
      return mermaid.render(...diagram);
    },
  };
}
