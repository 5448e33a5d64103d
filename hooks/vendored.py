"""MkDocs hook: the site's own copy of KaTeX's styles and fonts, from npm.

A page opened from disk may load no workers: there iframe-worker stands in for the one that
searches.
"""

import node
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# Folder of the site, the npm folder it comes from, and which files of it.
KATEX = ("assets/vendor/katex", "katex/dist", ("katex.min.css", "fonts/*.woff2"))
SHIM = ("assets/vendor/iframe-worker", "iframe-worker/shim", ("index.js",))


def offline(config: MkDocsConfig) -> bool:
    """Whether the site is built to be opened from disk."""
    return bool(config.plugins["material/offline"].config.enabled)


def on_config(config: MkDocsConfig) -> None:
    """Name our own shim before the theme names one on a CDN."""
    if offline(config):
        config.extra["polyfills"] = [f"{SHIM[0]}/index.js"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the vendored files to the site."""
    node.install()
    for target, package, patterns in (KATEX, SHIM) if offline(config) else (KATEX,):
        folder = node.MODULES / package
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                name = f"{target}/{path.relative_to(folder).as_posix()}"
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
