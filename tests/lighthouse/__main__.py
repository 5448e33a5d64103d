"""Lighthouse on four pages, on a desktop and on a phone with a slow line.

    make lighthouse

Fails if a score is below 95. A phone's performance is printed alone: it is simulated as a
quarter of this machine's speed, so that it says as much about the machine as about the page.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hooks import node
from tests import ROOT
from tests.site_build import FLAGS, served

HERE = Path(__file__).resolve().parent
PAGES = ("", "background/", "notebooks/residual-blocks/", "results/")
BOUND = 95


def report(address: str, *options: str) -> dict[str, Any]:
    """Lighthouse's own report on one page."""
    command = [
        node.executable(),
        HERE / "node_modules" / "lighthouse" / "cli" / "index.js",
        address,
        *("--output=json", "--quiet", f"--chrome-flags={' '.join(FLAGS)}", *options),
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
    with served(ROOT / "site") as address:
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
