import ast
import json
from dataclasses import asdict, replace
from functools import partial

import pytest

from cifar_resnet import audit
from cifar_resnet.recipe import get_recipe
from tests import ROOT
from tests.site_build import invented, invented_bench


def test_a_benchmark_of_other_measuring_code_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docstrings and comments may change, and what was not used."""
    record = invented_bench("resnet20")

    def git(module: str, old: str, new: str, *words: str) -> bytes:
        path = words[1].partition(":")[2]
        text = (ROOT / path).read_text()
        if path == f"cifar_resnet/{module}.py":
            assert old in text
            text = text.replace(old, new)
        return text.encode()

    for module, old, new, changed in (
        ("bench", "The plain loop that", "The loop that", []),
        ("bench", "  # not on Windows", "", []),
        ("bench", "num_workers=2", "num_workers=8", ["bench.reference_steps"]),
        ("bench", "2 * size**3", "size**3", ["bench.bench"]),
        ("train", "_TOGETHER = 8192", "_TOGETHER: int = 128", ["train._TOGETHER"]),
        ("augment", "STD = (0.2470,", "STD = (0.2023,", ["augment.STD"]),
        ("contention", "while os.getppid() ==", "while 0 ==", ["contention.busy_core"]),
        ("hardware", "_LOOK / 2", "_LOOK / 3", ["hardware.free_cores"]),
    ):
        monkeypatch.setattr(audit, "git", partial(git, module, old, new))
        assert audit.measured_otherwise(record) == changed
        if changed[:1] in (["contention.busy_core"], ["hardware.free_cores"]):
            assert audit.measured_otherwise(replace(record, contention=None)) == []


def test_docstrings_within_do_not_measure() -> None:
    code = b'class A:\n """A."""\n def f(self):\n  """F."""\n  def g():\n   """G."""\n'
    found = audit._definitions(code)
    assert found == audit._definitions(code.replace(b"F.", b"f").replace(b"G.", b"g"))
    assert found == audit._definitions(code.replace(b'  """F."""\n', b""))
    assert found != audit._definitions(code.replace(b"self", b"me"))


# Used by what measures, but unwatched: descriptions rather than deeds, errors, what is not used
# with the note's recipe, and which pictures it trains on.
UNWATCHED = {
    "synthetic.draw",
    *("augment.alternating_flip", "optimizer.Muon", "networks.NETWORKS", "networks.check_name"),
    *("bench.BenchRecord", "contention.Contention", "record.SCHEMA", "software.software"),
    *("display.Display", "display.Silent", "distributed.ALONE", "distributed.World"),
    *("errors.InputError", "hardware.Hardware", "recipe.Recipe"),
}


def test_all_that_measures_is_watched() -> None:
    watched = {
        f"{module}.{name}"
        for module, names in (*audit._MEASURING.items(), *audit._YIELDING.items())
        for name in names
    }
    used = set()
    for place in watched:
        module, name = place.split(".")
        tree = ast.parse((ROOT / "cifar_resnet" / f"{module}.py").read_text())
        own = {f"{module}.{key}": key for key in audit._definitions(ast.unparse(tree).encode())}
        assert place in own
        known = {key: full for full, key in own.items()} | {
            alias.name: f"{node.module.split('.')[1]}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cifar_resnet.")
            for alias in node.names
        }
        (definition,) = (
            n for n in tree.body if name in audit._definitions(ast.unparse(n).encode())
        )
        used |= {
            known[n.id] for n in ast.walk(definition) if isinstance(n, ast.Name) and n.id in known
        }
    assert used - watched == UNWATCHED


def test_what_was_published_once_is_read_from_git(monkeypatch: pytest.MonkeyPatch) -> None:
    record, path = invented(get_recipe("smoke"), 0, 0.5), "results/runs/old.json"
    answers = {"log": f"{'c' * 40}\n\n{path}\nresults/runs/odd.json\n".encode()}
    answers[f"{'c' * 40}^:{path}"] = json.dumps(asdict(record)).encode()
    monkeypatch.setattr(
        audit, "git", lambda *words: answers.get("log" if words[0] == "log" else words[1])
    )
    audit.withdrawn.cache_clear()
    try:
        assert audit.withdrawn() == (record,)
    finally:
        audit.withdrawn.cache_clear()


def test_no_training_loss_is_below_what_smoothed_labels_allow() -> None:
    record = invented(get_recipe("notes", epochs=2), 0, 0.9)
    first, *others = record.history
    for loss, found in ((0.51, []), (0.49, ["history contradicts the rest of it"])):
        edited = replace(record, history=(replace(first, train_loss=loss), *others))
        assert list(audit.contradictions(edited)) == found
