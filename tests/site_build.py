"""Building the site, or a small one with the same settings, and serving it."""

import functools
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from torchvision.datasets import CIFAR10

from cifar_resnet.bench import BenchRecord, training_flops
from cifar_resnet.contention import Contention
from cifar_resnet.evaluation import CALIBRATION_BINS, Metrics
from cifar_resnet.hardware import Hardware
from cifar_resnet.recipe import Recipe, changes, learning_rate
from cifar_resnet.record import SCHEMA, DataInfo, Epoch, Record
from cifar_resnet.software import software
from tests import ROOT

MD5 = dict(CIFAR10.train_list + CIFAR10.test_list)
PREFIX = "/cifar-resnet/"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def invented(
    recipe: Recipe, seed: int, accuracy: float, split: str = "test", device: str = "cpu"
) -> Record:
    """A record that passes for one of CIFAR-10; for temporary folders only."""
    trained, images = {"test": (50_000, 10_000), "val": (45_000, 5_000)}[split]
    each, right = images // 10, round(images * accuracy)
    hits = [right // 10 + (i < right % 10) for i in range(10)]
    confusion = tuple(
        tuple(hits[i] if i == j else each - hits[i] if j == (i + 1) % 10 else 0 for j in range(10))
        for i in range(10)
    )
    steps = trained // recipe.batch_size
    seen = steps * recipe.batch_size
    sure = accuracy - 0.02
    record_id = f"{recipe.name}-cifar10-{split}-seed{seed}-20260101T120000Z"
    return Record(
        schema=SCHEMA,
        id=record_id,
        recipe=recipe,
        changes=changes(recipe),
        seed=seed,
        data=DataInfo("cifar10", MD5, trained, split, images),
        software=replace(software(), commit="0" * 40, clean=True),
        hardware=Hardware(device, "test", 2, "fp32", channels_last=True, compile=False),
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T12:00:00+00:00",
        sessions=1,
        train_seconds=60.0 * recipe.epochs,
        images_per_second=seen / 60,
        history=tuple(
            Epoch(
                e,
                learning_rate(recipe, e - 1 / steps),
                2 / e,
                round(0.9 * accuracy * seen) / seen,
                1.5 / e,
                accuracy,
                60.0,
            )
            for e in range(1, recipe.epochs + 1)
        ),
        metrics=Metrics(
            accuracy=accuracy,
            loss=1.5 / recipe.epochs,
            per_class_accuracy=tuple(hit / each for hit in hits),
            confusion=confusion,
            calibration_error=0.02,
            calibration=tuple(
                (images, sure, accuracy) if at == int(sure * CALIBRATION_BINS) else (0, 0.0, 0.0)
                for at in range(CALIBRATION_BINS)
            ),
        ),
        weights_sha256=hashlib.sha256(record_id.encode()).hexdigest(),
        fingerprint={},
    )


def invented_bench(network: str, device: str = "cpu") -> BenchRecord:
    """A benchmark of two rounds; ours is 4 and 2 times as fast as the plain loop.

    Beside a busy process it keeps 96 % and 86 % of a single thread's speed.
    """
    flops = training_flops(network)
    return BenchRecord(
        schema=SCHEMA,
        id=f"{network}-{device}-20260101T000000Z",
        network=network,
        batch_size=128,
        steps=6,
        software=replace(software(), commit="0" * 40, clean=True),
        hardware=Hardware(device, "test", 2, "fp32", channels_last=True, compile=False),
        started="2026-01-01T00:00:00+00:00",
        reference=(50.0, 200.0),
        ours=(200.0, 400.0),
        ceiling=(1600.0 * flops, 1600.0 * flops),
        flops=flops,
        augment=(20_000.0, 20_000.0),
        first_step_seconds=1.5,
        peak_bytes=2**30,
        contention=Contention((100.0, 100.0), (20.0, 30.0), (96.0, 86.0), (1, 1)),
    )


def tree(folder: Path) -> Path:
    """A copy of what a build reads, so that a test may change it; code is only linked."""
    for name in ("cifar_resnet", "hooks", "overrides"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copytree(ROOT / "results", folder / "results")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    return folder


def small(folder: Path, pages: dict[str, str]) -> Path:
    """A site of the given pages with the settings of the real one."""
    tree(folder)
    shutil.rmtree(folder / "docs")
    for name, text in pages.items():
        path = folder / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "mkdocs.yml").rename(folder / "base.yml")
    (folder / "mkdocs.yml").write_text(f"INHERIT: base.yml\nnav: {json.dumps(list(pages))}\n")
    return folder


def notebook(cells: Sequence[tuple[str, str]]) -> str:
    """A notebook of (kind, source) cells, as JSON."""
    return json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
            "cells": [
                {"id": f"cell{index}", "cell_type": kind, "metadata": {}, "source": source}
                | ({"outputs": [], "execution_count": None} if kind == "code" else {})
                for index, (kind, source) in enumerate(cells)
            ],
        }
    )


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``mkdocs build --strict`` into ``folder/site``."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder under `PREFIX` and nothing else, as a host of sites does.

    Text is compressed, and everything may be cached.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path.removeprefix(PREFIX)))
        if path.is_dir():
            path /= "index.html"
        if not self.path.startswith(PREFIX) or not path.exists():
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
        with suppress(ConnectionError):  # the page was left meanwhile
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of a built site while it is served."""
    handler = functools.partial(Handler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
        server.shutdown()
