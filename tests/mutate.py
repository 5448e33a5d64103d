"""Does the guard hold? Each mutation makes code, records or pages disagree; all must be caught.

    make mutate            # prints caught/total; fails below 100 %

A mutation is applied to a copy of the checkout. It counts as caught when `results check` or
one of the named test files, all of them part of `make test`, fails there.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cifar_resnet.checkpoint import weights_record
from cifar_resnet.predict import WEIGHTS
from cifar_resnet.record import checksum
from tests import ROOT

RESULTS = "results check"


@dataclass(frozen=True)
class Mutation:
    """One deliberate mistake.

    Attributes:
        what: in words.
        path: the file, relative to the project; a pattern names its first match.
        old: text in it; its first occurrence changes.
        new: what it becomes.
        guards: `RESULTS`, or files of tests.
        sign: the checksum of a record is set anew, as a cheat would.
    """

    what: str
    path: str
    old: str
    new: str
    guards: tuple[str, ...] = (RESULTS,)
    sign: bool = False


def _code(what: str, module: str, old: str, new: str, *guards: str) -> Mutation:
    return Mutation(what, f"cifar_resnet/{module}.py", old, new, guards or (RESULTS,))


PAGES = ("tests/test_docs.py",)
OPTIMIZER = "tests/test_optimizer.py"
EVIDENCE = ("tests/test_evidence.py",)
HOOKS = ("tests/test_hooks.py",)
RESULTS_PAGE = ("tests/test_results_page.py",)
PROSE = ("tests/test_prose.py",)
ARITHMETIC = ("tests/test_arithmetic.py",)
ANALYSIS = "tests/test_analysis.py"
RUN = "results/runs/notes-cpu-*.json"
SHIPPED = f"results/runs/{weights_record(WEIGHTS)}.json"
STORED = '"outputs": []', '"outputs": [{"name": "stdout", "output_type": "stream", "text": ["1"]}]'

MUTATIONS = (
    _code(
        "sums of one process alone",
        "distributed",
        "        dist.all_reduce(tensor)\n",
        "        pass\n",
        "tests/test_distributed.py",
    ),
    _code(
        "times of interrupted runs count",
        "experiments",
        "used.processes == 1 and record.sessions == 1",
        "used.processes == 1",
        "tests/test_queue.py",
    ),
    _code(
        "going on with other images",
        "run",
        '"contents": contents(data)',
        '"contents": ""',
        "tests/test_resume.py",
    ),
    # hyper-parameters
    _code("momentum", "recipe", "momentum: float = 0.9", "momentum: float = 0.8"),
    _code("weight decay", "recipe", "weight_decay: float = 5e-4", "weight_decay: float = 1e-4"),
    _code(
        "label smoothing", "recipe", "label_smoothing: float = 0.1", "label_smoothing: float = 0.0"
    ),
    _code(
        "flip probability",
        "augment",
        "flip_probability: float = 0.5",
        "flip_probability: float = 0.4",
    ),
    _code("erasing range", "augment", "= (0.02, 0.4)\n    erasing", "= (0.02, 0.33)\n    erasing"),
    # the model
    _code("stride of conv1", "model", "kernel_size=3, stride=1", "kernel_size=3, stride=2"),
    _code("bias on conv1", "model", "padding=1, bias=False", "padding=1, bias=True"),
    _code("pooling kept", "model", "model.maxpool = nn.Identity()", "pass"),
    _code("shortcut dropped", "depth", "out = out + self.shortcut(x)", "pass"),
    # augmentation
    _code("padding mode", "augment", "(padding,) * 4)", '(padding,) * 4, "replicate")'),
    _code("flip upside down", "augment", "images.flip(-1)", "images.flip(-2)"),
    _code(
        "erasing with zeros",
        "augment",
        "torch.where(mask[:, None], noise,",
        "torch.where(mask[:, None], 0 * noise,",
    ),
    _code("crop offsets", "augment", "0, 2 * padding + 1, (2, n)", "0, 2 * padding, (2, n)"),
    _code(
        "flips that do not alternate",
        "augment",
        "half if epoch % 2 == 0 else ~half",
        "half",
        "tests/test_augment.py",
    ),
    _code(
        "standard deviation",
        "augment",
        "STD = (0.2470, 0.2435, 0.2616)",
        "STD = (0.2023, 0.1994, 0.2010)",
    ),
    _code("mean", "augment", "MEAN = (0.4914, 0.4822,", "MEAN = (0.4914, 0.4914,"),
    # the loop
    _code(
        "no augmentation",
        "train",
        "augment(x, recipe.augmentation, noise)",
        "augment(x, type(recipe.augmentation)(0, 0, False, 0), noise)",
    ),
    _code(
        "no smoothing in the loss",
        "train",
        "CrossEntropyLoss(label_smoothing=recipe.label_smoothing)",
        "CrossEntropyLoss()",
    ),
    _code(
        "Nesterov momentum",
        "train",
        "nesterov=recipe.nesterov,\n        fused",
        "nesterov=True,\n        fused",
    ),
    _code(
        "no decay of the first layer",
        "train",
        "        model.parameters(),\n",
        "        list(model.parameters())[1:],\n",
    ),
    _code(
        "schedule stepped per epoch",
        "train",
        "epoch + step / steps)",
        "float(epoch))",
        "tests/test_train.py",
    ),
    _code(
        "a value read from the GPU at every step",
        "train",
        "loss * len(y), (logits",
        "loss.detach() * len(y), loss.item() * 0 + (logits",
        "tests/test_gpu.py",
    ),
    _code(
        "an index on the wrong device",
        "augment",
        "torch.arange(n, device=images.device)",
        "torch.arange(n)",
        "tests/test_gpu.py",
    ),
    _code("Muon's norm", "optimizer", "math.sqrt(len(p)) / p.norm()", "1 / p.norm()", OPTIMIZER),
    _code(
        "Muon's iterations", "optimizer", "iterations: int = 3", "iterations: int = 5", OPTIMIZER
    ),
    _code("Muon's polynomial", "optimizer", "-4.7750", "-4.2500", OPTIMIZER),
    _code("small images first", "recipe", "if epoch >= low_epochs", "if epoch < low_epochs"),
    _code(
        "stages of unequal length",
        "recipe",
        "int(stages * epoch /",
        "int(stages * (epoch + 1) /",
        "tests/test_recipe.py",
    ),
    _code("linear schedule", "recipe", "(1 + math.cos(math.pi * progress)) / 2", "(1 - progress)"),
    _code(
        "the best epoch reported",
        "run",
        "metrics=measure(logits, data.eval_labels),",
        "metrics=replace(measure(logits, data.eval_labels), "
        "accuracy=max(e.eval_accuracy for e in progress.history)),",
        "tests/test_run.py",
    ),
    _code(
        "batch statistics in evaluation", "evaluation", "    model.eval()\n", "    model.train()\n"
    ),
    # the data
    _code(
        "class names swapped",
        "data",
        '"cat",\n    "deer"',
        '"deer",\n    "cat"',
        "tests/test_data.py",
    ),
    _code(
        "held-out images also trained on",
        "data",
        "(train[0][:-held_out], train[1][:-held_out])",
        "train",
        "tests/test_data.py",
    ),
    _code(
        "the first throw of the dice taken for the second",
        "results",
        " and old.finished < record.finished",
        "",
        "tests/test_results.py",
    ),
    _code(
        "a second throw of the dice taken for the first",
        "results",
        "losses(old) != losses(record)",
        "losses(old) == losses(record)",
        "tests/test_results.py",
    ),
    _code(
        "an experiment's runs outdated by their recipe",
        "results",
        " or record.recipe in asked_for()",
        "",
        "tests/test_results.py",
    ),
    _code(
        "trained images taken for held-out ones",
        "record",
        'if split == "val" and',
        'if split == "none" and',
        "tests/test_cli.py",
    ),
    _code(
        "data set not checked",
        "results",
        'record.data.name != "cifar10" or',
        'record.data.name != "cifar10" and',
        "tests/test_results.py",
    ),
    _code(
        "removed block kept",
        "analysis",
        "return shortcut(block, inputs[0]).relu()",
        "return output",
    ),
    _code("steps of an analysis", "analysis", "_STEPS = 5", "_STEPS = 6"),
    _code("a change without its ReLU", "analysis", "output - x.relu()", "output - x", ANALYSIS),
    _code("a loss scaled to its worst", "analysis", "min(losses)", "max(losses)"),
    _code(
        "all threads beside a busy process",
        "contention",
        "spare_busy_cores(plain)",
        "pass",
        "tests/test_contention.py",
    ),
    _code("a plain loop made slower", "bench", "num_workers=2", "num_workers=1"),
    _code(
        "a share doubled",
        "bench",
        "a * record.flops / b",
        "2 * a * record.flops / b",
        "tests/test_bench.py",
    ),
    _code(
        "how to compile measured anew for every seed",
        "commands",
        "settled = _compiled_like(records[seed], hardware)",
        "settled = hardware",
        "tests/test_cli.py",
    ),
    _code(
        "filters of one shape all take one step",
        "optimizer",
        "gradient.copy_(update.view",
        "gradient.copy_(updates[0].view",
        OPTIMIZER,
    ),
    _code(
        "an optimizer that remembers what was compiled ahead",
        "compiling",
        "    optimizer.load_state_dict(state)\n",
        "",
        "tests/test_compiling.py",
    ),
    _code(
        "labels of other processes' images",
        "train",
        "prepare(images[chosen]), labels[chosen]",
        "prepare(images[chosen]), labels[several][: len(chosen)]",
        "tests/test_train.py",
    ),
    # records and weights
    Mutation("an epoch's number edited", RUN, '"epoch": 2,', '"epoch": 3,'),
    Mutation(
        "an accuracy raised and signed",
        RUN,
        '"metrics": {\n  "accuracy": 0.',
        '"metrics": {\n  "accuracy": 0.9',
        sign=True,
    ),
    Mutation(
        "a training accuracy raised and signed",
        RUN,
        '"train_accuracy": 0.',
        '"train_accuracy": 0.9',
        sign=True,
    ),
    Mutation(
        "a learning rate edited and signed",
        RUN,
        '"learning_rate": 0.2,\n  "schedule"',
        '"learning_rate": 0.1,\n  "schedule"',
        sign=True,
    ),
    Mutation(
        "a training time edited and signed",
        RUN,
        '"train_seconds": ',
        '"train_seconds": 1',
        sign=True,
    ),
    Mutation("no commit, signed", RUN, '"commit": "', '"commit": "no', sign=True),
    Mutation("another seed claimed and signed", RUN, '"seed": 0', '"seed": 7', sign=True),
    Mutation("other weights", SHIPPED, '"weights_sha256": "', '"weights_sha256": "0', sign=True),
    Mutation(
        "an analysis edited",
        "results/analyses/gradients.json",
        '"sigmoid20": [\n   6',
        '"sigmoid20": [\n   7',
    ),
    Mutation(
        "a calibration error improved and signed",
        RUN,
        '"calibration_error": 0.',
        '"calibration_error": 0.0',
        sign=True,
    ),
    Mutation(
        "a benchmark edited",
        "results/bench/resnet18-*.json",
        '"batch_size": 128',
        '"batch_size": 256',
    ),
    # pages
    Mutation(
        "an accuracy typed into a page",
        "docs/results.md",
        "# 实验结果\n",
        "# 实验结果\n\n准确率达到 95.5%。\n",
        PAGES,
    ),
    Mutation(
        "a snippet pasted and edited",
        "docs/model.md",
        '--8<-- "cifar_resnet/model.py:signature"',
        "def get_cifar_resnet(num_classes=100):",
        PAGES,
    ),
    Mutation("a printed output changed", "docs/model.md", "#> 11173962", "#> 11173963", PAGES),
    _code("a snippet section renamed", "recipe", "[start:learning_rate]", "[start:rate]", *PAGES),
    Mutation(
        "a code block nobody runs",
        "docs/model.md",
        "# 模型改造\n",
        "# 模型改造\n\n~~~python\nprint(1)\n~~~\n",
        PAGES,
    ),
    Mutation(
        "a notebook's stored output",
        "docs/notebooks/residual-blocks.ipynb",
        STORED[0],
        STORED[1],
        PAGES,
    ),
    Mutation(
        "a snippet from elsewhere",
        "docs/model.md",
        '--8<-- "cifar_resnet/model.py:signature"',
        '--8<-- "docs/old.py:signature"',
        PAGES,
    ),
    Mutation(
        "an accuracy in a block of text",
        "docs/results.md",
        "# 实验结果\n",
        "# 实验结果\n\n```text\n准确率达到 95.5%。\n```\n",
        PAGES,
    ),
    _code(
        "an accuracy claimed for a recipe without runs",
        "recipe",
        "Meant for a GPU, where it has not",
        "Reached 96 % on the test images, where it has not",
        "tests/test_recipe.py",
    ),
    Mutation("classes swapped on the site", "hooks/wording.py", '"猫", "鹿"', '"鹿", "猫"', HOOKS),
    Mutation(
        "mistakes told backwards",
        "hooks/results_page.py",
        "<li>{CLASSES[i]}被认成{CLASSES[j]}",
        "<li>{CLASSES[j]}被认成{CLASSES[i]}",
        RESULTS_PAGE,
    ),
    Mutation(
        "the matrix transposed",
        "hooks/charts.py",
        "x, y = left + j * size, top + i * size",
        "x, y = left + i * size, top + j * size",
        RESULTS_PAGE,
    ),
    Mutation(
        "a goal judged by another figure",
        "hooks/speed.py",
        '相对常见写法的速度", speedups,',
        '相对常见写法的速度", augmentation_share,',
        HOOKS,
    ),
    Mutation(
        "the loops' names exchanged",
        "hooks/speed.py",
        '("常见写法", record.reference), ("本项目", record.ours)',
        '("本项目", record.reference), ("常见写法", record.ours)',
        HOOKS,
    ),
    Mutation(
        "an arm called what it is not",
        "hooks/comparisons.py",
        '"small-conv": "3×3/1 有池化"',
        '"small-conv": "7×7/2 无池化"',
        EVIDENCE,
    ),
    Mutation(
        "the best of the seeds",
        "hooks/pace.py",
        "percent(mean(flipped))",
        "percent(max(flipped))",
        RESULTS_PAGE,
    ),
    Mutation(
        "another recipe's accuracy",
        "docs/results.md",
        'accuracy("notes")',
        'accuracy("fast")',
        PAGES,
    ),
    Mutation(
        "a claim judged by another arm",
        "hooks/claims.py",
        '("no-erasing",),',
        '("no-crop-and-flip",),',
        EVIDENCE,
    ),
    Mutation(
        "a claim without evidence",
        "docs/background.md",
        '{{ evidence("degradation") }}',
        "这一点人人都知道。",
        EVIDENCE,
    ),
    Mutation(
        "a verdict by hand",
        "hooks/evidence.py",
        "    if all(outcomes):\n",
        "    if True:\n",
        EVIDENCE,
    ),
    Mutation("spread ignored", "hooks/comparisons.py", "> a[1] + b[1]", "> 0", EVIDENCE),
    Mutation(
        "curves upside down",
        "hooks/charts.py",
        "y.place(b, bottom, _TOP)",
        "y.place(b, _TOP, bottom)",
        HOOKS,
    ),
    Mutation(
        "bars flattered",
        "hooks/charts.py",
        "* value / highest",
        "* (value / highest) ** 0.2",
        HOOKS,
    ),
    Mutation(
        "labels of bars out of the picture",
        "hooks/charts.py",
        "max(_room(label) for label, _, _ in rows) + 12",
        "58",
        HOOKS,
    ),
    Mutation(
        "a table of nothing but what is pending",
        "hooks/comparisons.py",
        "    if not rows:\n",
        "    if False:\n",
        HOOKS,
    ),
    Mutation(
        "a looser verdict",
        "hooks/analyses.py",
        "Finding(words, trained < 0.5)",
        "Finding(words, trained < 5)",
        EVIDENCE,
    ),
    Mutation(
        "columns of a table swapped",
        "hooks/analyses.py",
        'for kind in ("fresh", "trained"))',
        'for kind in ("trained", "fresh"))',
        EVIDENCE,
    ),
    Mutation(
        "careful for overconfident",
        "hooks/results_page.py",
        "leaning > 0",
        "leaning < 0",
        RESULTS_PAGE,
    ),
    Mutation(
        "layers of the other network",
        "hooks/layers.py",
        '("原版", "修改版")',
        '("修改版", "原版")',
        HOOKS,
    ),
    Mutation(
        "a quoted figure changed", "docs/background.md", "| 28.54% | 25", "| 27.54% | 25", PAGES
    ),
    Mutation("a picture by hand", "docs/model.md", "# 模型改造", "# 模型改造\n\n![](a.png)", PAGES),
    Mutation(
        "code in a quotation",
        "docs/model.md",
        "# 模型改造",
        "# 模型改造\n\n> ```python\n> 1 / 0\n> ```",
        PAGES,
    ),
    Mutation(
        "a command that does not exist",
        "docs/reproduce.md",
        "train fast-cpu --out",
        "train fast-gpu --out",
        PAGES,
    ),
    Mutation(
        "a figure in a diagram",
        "docs/residual-block.md",
        'C1["卷积 3×3"]',
        'C1["准确率 95.5%"]',
        PAGES,
    ),
    Mutation(
        "a shape in a diagram",
        "docs/model.md",
        "2 块，128×16×16",
        "2 块，128×8×8",
        ARITHMETIC,
    ),
    Mutation("a receptive field", "docs/model.md", "53、109", "53、107", ARITHMETIC),
    Mutation("a product", "docs/model.md", "=507{,}870", "=507{,}970", ARITHMETIC),
    Mutation("a paper's figure", "hooks/comparisons.py", '"8.75%"', '"8.57%"', PAGES),
    Mutation(
        "published untested",
        ".github/workflows/ci.yml",
        "needs: [test, mutate]",
        "needs: mutate",
        ("tests/test_workflows.py",),
    ),
    Mutation(
        "more seeds than there are, in words",
        "docs/speed.md",
        "这里只有五次",
        "这里只有六次",
        PROSE,
    ),
    Mutation(
        "words that the records do not bear out",
        "results/analyses/identity-resnet18.json",
        "1.9359973669052124",
        "0.9359973669052124",
        PROSE,
        sign=True,
    ),
)


def find(mutation: Mutation, root: Path) -> Path:
    """The file to change."""
    return sorted(root.glob(mutation.path))[0]


def apply(mutation: Mutation, root: Path) -> None:
    """Make the mistake in a copy."""
    path = find(mutation, root)
    text = path.read_text(encoding="utf-8")
    if mutation.old not in text:
        raise ValueError(f"{mutation.what}: {path} no longer holds {mutation.old!r}")
    text = text.replace(mutation.old, mutation.new, 1)
    if mutation.sign:
        content = json.loads(text)
        text = json.dumps(content | {"checksum": checksum(content)}, indent=1)
    path.write_text(text, encoding="utf-8")


def caught(root: Path, guards: tuple[str, ...]) -> bool:
    """Whether a guard fails in a copy."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    commands = [
        [sys.executable, "-m", "cifar_resnet", "results", "check"]
        if guard == RESULTS
        else [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", guard]
        for guard in guards
    ]
    return any(_fails(command, root, environment) for command in commands)


def _fails(command: list[str], root: Path, environment: dict[str, str]) -> bool:
    """Whether a guard complains; one that breaks down itself has caught nothing."""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=root, env=environment, text=True, **pipes) as process:
        said = []
        for line in process.stderr or ():
            if line.startswith("cifar-resnet: record "):  # the rest would take a minute
                process.kill()
                return True
            said.append(line)
    return process.returncode == 1 and not "".join(said).startswith("Traceback")


def copy(target: Path) -> None:
    """The project's own files, and its history, which records are held against."""
    subprocess.run(
        ["git", "clone", "--quiet", "--shared", "--no-checkout", ROOT, target], check=True
    )
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def attempt(mutation: Mutation | None) -> bool:
    """Copy, make the mistake, and see; without one, all guards must be content."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copy(root)
        if mutation is None:
            return caught(root, tuple({g: None for m in MUTATIONS for g in m.guards}))
        if mutation.guards == (RESULTS,) and "bench" not in mutation.path:
            shutil.rmtree(root / "results" / "bench")  # which any change of the loop would outdate
        apply(mutation, root)
        return caught(root, mutation.guards)


def main() -> int:
    """Try every mutation, two at a time."""
    if attempt(None):
        print("the guards fail without any mutation; see to that first", file=sys.stderr)
        return 1
    outcomes = []
    with ThreadPoolExecutor(2) as pool:
        for mutation, found in zip(MUTATIONS, pool.map(attempt, MUTATIONS), strict=True):
            print(f"{'caught' if found else 'MISSED'}  {mutation.what}", flush=True)
            outcomes.append(found)
    print(f"{sum(outcomes)}/{len(outcomes)} caught")
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
