"""MkDocs hook: what the classifier in the reader's browser needs of the package.

The weights, the normalisation and the names of the classes are the package's own; the network
itself is in ``docs/assets/classifier``, and a test compares its answers with the package's.
"""

import json
from html import escape

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from records import RECORDS, Results
from vendored import offline
from wording import CLASSES, PENDING, percent

from cifar_resnet.augment import MEAN, STD
from cifar_resnet.checkpoint import weights_record
from cifar_resnet.files import sha256
from cifar_resnet.predict import WEIGHTS

FOLDER = "assets/classifier"
# What every browser of today opens.
TYPES = ",".join(f"image/{name}" for name in ("png", "jpeg", "webp", "gif", "avif", "bmp"))
# Of the classes in their order.
DRAWINGS = ("✈️", "🚗", "🐦", "🐱", "🦌", "🐶", "🐸", "🐎", "🚢", "🚚")
RAMP = '<br>低<span class="classifier-ramp" role="img" aria-label="到"></span>高'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add weights and constants to the site; pages opened from disk cannot read them."""
    if offline(config):
        return files
    about = {
        # By its content, or a cache could answer with those of an earlier version.
        "weights": f"{WEIGHTS.name}?{sha256(WEIGHTS)}",
        "bytes": WEIGHTS.stat().st_size,
        "mean": MEAN,
        "std": STD,
    }
    files.append(File.generated(config, f"{FOLDER}/{WEIGHTS.name}", abs_src_path=str(WEIGHTS)))
    files.append(File.generated(config, f"{FOLDER}/classifier.json", content=json.dumps(about)))
    return files


def classifier(results: Results) -> str:
    """The classifier, and how accurate its weights are."""
    name = weights_record(WEIGHTS)
    run = next((run for run in results.runs if run.id == name), None)
    accuracy = PENDING if run is None else percent(run.metrics.accuracy)
    source = origin = ""
    if run is not None:
        source = f"（[记录]({RECORDS}/{run.id}.json)），各个种子的均值见[实验结果](results.md)"
        origin = f"由配方 `{run.recipe.name}` 训练而成，种子 {run.seed}，"
    canvases = "".join(
        f'<figure><canvas width="32" height="32" role="img" aria-label="{label}"></canvas>'
        f"<figcaption>{label}{ramp}</figcaption></figure>"
        for label, ramp in (("网络看到的 32×32", ""), ("哪里支持这个答案", RAMP))
    )
    drawings = "".join(
        f'<button type="button" title="{name}" aria-label="{name}">{drawing}</button>'
        for name, drawing in zip(CLASSES, DRAWINGS, strict=True)
    )
    return (
        f"权重约 {WEIGHTS.stat().st_size / 1e6:.0f} MB，第一次选图时下载；{origin}"
        f"在测试集上的准确率是 {accuracy}{source}。\n\n"
        f'<div class="classifier" data-classes="{escape(json.dumps(CLASSES))}">'
        "<noscript><p>这一页要用 JavaScript 运行模型；请在浏览器设置里启用它，再重新打开。"
        "</p></noscript>"
        '<p><label class="md-button">选一张图片'
        f'<input type="file" accept="{TYPES}" autocomplete="off" data-part="file"></label>'
        " 或拖进这一页，或直接粘贴。</p>"
        '<p data-part="drawings" role="group" aria-label="表情符号">'
        f"也可以点一个表情：{drawings}</p>"
        '<p data-part="status" role="status"></p>'
        f'<div data-part="answer" hidden><div data-part="seen">{canvases}</div>'
        '<ol data-part="result"></ol></div></div>'
    )
