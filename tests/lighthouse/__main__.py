"""Lighthouse on four pages, on a desktop and on a phone with a slow line.

    make lighthouse

Fails if a score is below 95. A phone's performance is printed alone: it is simulated as a
quarter of this machine's speed, so that it says as much about the machine as about the page.
"""

import functools
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hooks import node

HERE = Path(__file__).resolve().parent
SITE = HERE.parent.parent / "site"
PREFIX = "/cifar-resnet"
PAGES = ("", "background/", "notebooks/residual-blocks/", "results/")
BOUND = 95
FLAGS = "--headless --no-sandbox --disable-gpu --disable-background-networking"


class Handler(SimpleHTTPRequestHandler):
    """Serves text compressed and lets everything be cached, as a host of sites does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path.removeprefix(PREFIX)))
        if path.is_dir():
            path /= "index.html"
        if not path.exists():
            self.send_error(404)
            return
        body = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Cache-Control", "max-age=600")
        if path.suffix in {".css", ".html", ".js", ".json", ".mjs", ".svg", ".xml"}:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served() -> Iterator[str]:
    """The site's address while it is served."""
    handler = functools.partial(Handler, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}/"
        server.shutdown()


def report(address: str, *options: str) -> dict[str, Any]:
    """Lighthouse's own report on one page."""
    command = [
        node.executable(),
        HERE / "node_modules" / "lighthouse" / "cli" / "index.js",
        address,
        *("--output=json", "--quiet", f"--chrome-flags={FLAGS}", *options),
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"CHROME_PATH": str(shutil.which("chromium"))},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"lighthouse: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    """Print every score; 1 if one is too low."""
    if shutil.which("chromium") is None:
        sys.exit("lighthouse needs a browser: install Debian's package chromium")
    node.install(HERE)
    low = False
    with served() as address:
        for kind, options in (("desktop", ["--preset=desktop"]), ("phone", [])):
            for page in PAGES:
                found = report(address + page, *options)
                scores = {
                    name: round(100 * found["categories"][name]["score"])
                    for name in ("performance", "accessibility", "best-practices", "seo")
                }
                speed = found["environment"]["benchmarkIndex"]
                print(f"{kind:8} {page or '/':28} {scores} (this machine: {speed:.0f})", flush=True)
                low |= any(
                    score < BOUND
                    for name, score in scores.items()
                    if (kind, name) != ("phone", "performance")
                )
    return int(low)


if __name__ == "__main__":
    raise SystemExit(main())
