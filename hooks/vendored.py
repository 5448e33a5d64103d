"""MkDocs hook: the site's own copy of KaTeX (styles, fonts) and mermaid, from npm."""

import node
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# Folder of the site: the npm folder it comes from, and which files of it.
VENDORED = {
    "assets/vendor/katex": ("katex/dist", ("katex.min.css", "fonts/*.woff2")),
    "assets/vendor/mermaid": (
        "mermaid/dist",
        ("mermaid.esm.min.mjs", "chunks/mermaid.esm.min/*.mjs"),
    ),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the vendored files to the site."""
    node.install()
    for target, (package, patterns) in VENDORED.items():
        folder = node.MODULES / package
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                name = f"{target}/{path.relative_to(folder).as_posix()}"
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
