import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cifar_resnet import analysis, cli, commands, data, resume
from cifar_resnet import run as module
from cifar_resnet.analysis import AnalysisRecord, analyze
from cifar_resnet.checkpoint import save_weights
from cifar_resnet.data import CLASSES, Dataset, load
from cifar_resnet.networks import build
from cifar_resnet.recipe import Recipe, get_recipe
from cifar_resnet.record import read, read_record, write_record
from cifar_resnet.synthetic import SHAPES
from tests.site_build import invented


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cifar_resnet", *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nots"], "recipe 'nots' is unknown; choose one of: notes"),
        (["train", "smoke", "--data", "nowhere"], "no CIFAR-10 in nowhere"),
        (["train", "smoke", "--data", "synthetic", "--device", "tpu"], "device 'tpu' is unknown"),
        (["train", "smoke", "--set", "epochs"], "write FIELD=VALUE"),
        (["train", "smoke", "--set", "epochs=two"], "epochs must be int, not 'two'"),
        (["experiments", "run", "note"], "experiment 'note' is unknown"),
        (["experiments", "run", "--budget", "soon"], "write a time such as"),
        (["experiments", "run", "--jobs", "0"], "--jobs must be at least 1"),
        (["results", "add", "nowhere"], "does not exist"),
        (["results", "add", "nowhere", "--results", "none"], "there is no folder none"),
        (["analyze", "gradient", "--data", "nowhere"], "analysis 'gradient' is unknown"),
        (
            ["experiments", "run", "fast-cpu", "--budget", "20s", "--again", "--device", "cpu"],
            "budget: 20",
        ),
        (["experiments", "run", "notes", "--device", "cpu"], "'notes' is for cuda, not cpu"),
        (["train", "smoke", "--set", "name=other"], "no field 'name'"),
        (["train", "smoke", "--set", "epochs=0"], "epochs must be at least 1"),
        (["train", "smoke", "--set", "epoch=1"], "no field 'epoch'; did you mean epochs? fields: "),
        (["train", "smoke", "--set", "augmentation=none"], "one by one: crop_padding, "),
        (["train", "smoke", "--epochs", "9" * 23], "epochs must be at most 100000, not 999"),
        (["recipes", "nots"], "recipe 'nots' is unknown"),
        (["train", "smoke", "--set", "crop_padding=3000000"], "crop_padding must be from 0 to 32"),
        (["train", "smoke", "--seed", "x"], "'x': write a number, or several such as 0,1,2"),
        (["train", "smoke", "--seed", "0,1,"], "'0,1,': write a number"),
        (["train", "smoke", "--seed", "1,1"], "'1,1': write a number"),
        (["train", "smoke", "--seed", "-1", "--data", "nowhere"], "seed must be between 0 and"),
        (
            ["train", "smoke", "--set", "network=vgg", "--data", "nowhere"],
            "network 'vgg' is unknown",
        ),
        (["train"], "required: recipe"),
        (["evaluate", "nowhere.safetensors"], "weights nowhere.safetensors do not exist\n"),
        (["predict", "nowhere.png"], "image nowhere.png does not exist"),
        (["fly"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_without_a_gpu_its_experiments_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["experiments", "run", "notes", "surgery"]) == 2
    assert "notes, surgery: for a GPU, and torch sees none" in capsys.readouterr().err


def test_help_is_fast_and_does_not_import_torch() -> None:
    times = []  # of the processor: others may keep the machine busy
    for _ in range(3):
        before = os.times()
        assert run("--help").returncode == 0
        after = os.times()
        times.append(sum(after[2:4]) - sum(before[2:4]))
    assert min(times) < 0.3
    code = "from time import process_time as t; a = t(); import cifar_resnet; print(t() - a)"
    words = [sys.executable, "-c", code]
    assert min(float(subprocess.check_output(words, text=True)) for _ in range(3)) < 0.05
    code = "import sys, cifar_resnet.cli; assert not {'torch', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_train_evaluate_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way: a run on synthetic data, its weights measured and used."""
    out = tmp_path / "run"
    short = ["--epochs", "1", "--set", "batch_size=512", "--set", "warmup_epochs=0"]
    train = ["train", "smoke", "--data", "synthetic", *short, "--out", str(out), "--threads", "1"]
    assert cli.main(train) == 0
    captured = capsys.readouterr()
    assert re.search(r"test accuracy \d+\.\d\d%", captured.out)
    assert "epoch   1/1" in captured.err
    assert captured.err.startswith("smoke: 1 epoch of 1024 synthetic images; ")

    weights = str(out / "weights.safetensors")
    assert cli.main(["evaluate", weights, "--data", "synthetic", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    record = json.loads((out / "record.json").read_text())
    assert metrics["data"] == "synthetic"
    assert metrics["accuracy"] == pytest.approx(record["metrics"]["accuracy"], abs=0.05)
    assert cli.main(["evaluate", weights, "--data", "synthetic"]) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "disc" in printed, "the stand-in's classes are not CIFAR-10's"
    assert "airplane" not in printed
    assert cli.main(["evaluate", weights, "--data", "synthetic", "--network", "resnet20"]) == 2
    assert "names or shapes differ, first 0.weight; choose the net" in capsys.readouterr().err

    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 50), "blue").save(picture)
    assert cli.main(["predict", "--weights", weights, "--json", str(picture)]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["image"] == str(picture)
    assert set(answer["probabilities"]) == set(SHAPES), "what these weights were trained on"
    assert answer["probabilities"][answer["class"]] == max(answer["probabilities"].values())
    assert cli.main(["predict", "--weights", weights, str(picture)]) == 0
    assert capsys.readouterr().out.startswith(f"{picture}: ")
    assert cli.main(["predict", "--network", "resnet20", str(picture)]) == 2
    assert "were trained in (--network)" in capsys.readouterr().err

    assert cli.main(["evaluate", weights, "--data", "synthetic", "--val"]) == 2
    assert "were trained on all training images; leave out --val" in capsys.readouterr().err

    assert cli.main(train) == 2
    assert "finished run" in capsys.readouterr().err
    assert cli.main([*train, "--resume"]) == 0
    assert f"finished before, accuracy {record['metrics']['accuracy']:.2%}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("recipe", ["smoke", "smoke-cifar10-erasing"])
def test_weights_of_images_of_ones_own_answer_with_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    picture, weights = tmp_path / "picture.png", tmp_path / "weights.safetensors"
    Image.new("RGB", (32, 32), "blue").save(picture)
    record = f"{recipe}-mine-test-seed0-20261127T000000Z-000000"
    save_weights(weights, build("resnet20"), record)
    predict = ["predict", "--network", "resnet20", "--weights", str(weights), "--json"]
    assert cli.main([*predict, str(picture)]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert set(answer["probabilities"]) == set("0123456789"), "not airplane, nor disc"


def test_several_seeds_are_trained_one_after_the_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    synthetic: Dataset,
) -> None:
    monkeypatch.setattr(data, "load", lambda *_, **__: synthetic)

    def train(seeds: str, out: str, *words: str) -> int:
        short = ["--epochs", "1", "--set", "batch_size=32", "--set", "warmup_epochs=0"]
        where = ["--seed", seeds, "--out", str(tmp_path / out), "--no-compile", "--device", "cpu"]
        return cli.main(["train", "smoke", *short, "--set", "network=resnet20", *where, *words])

    assert train("2,1", "both") == 0
    printed = capsys.readouterr().out
    assert train("1", "alone") == 0
    second, alone = (
        read_record(tmp_path / folder / "record.json") for folder in ("both/seed1", "alone")
    )
    first = read_record(tmp_path / "both" / "seed2" / "record.json")
    assert replace(second.history[0], seconds=0) == replace(alone.history[0], seconds=0)
    assert second.metrics == alone.metrics
    low, high = sorted(run.metrics.accuracy for run in (first, second))
    assert f"2 seeds: mean {(low + high) / 2:.2%}, sample standard deviation " in printed
    assert f"{(high - low) / 2**0.5:.2%}" in printed.splitlines()[-1]

    assert train("0,2", "both") == 2
    assert "seed2 holds a finished run" in capsys.readouterr().err
    assert not (tmp_path / "both" / "seed0").exists(), "said before the first one is trained"
    assert train("2,0", "both", "--resume") == 0
    assert "2 seeds: mean" in capsys.readouterr().out
    assert read_record(tmp_path / "both" / "seed2" / "record.json") == first
    assert train("0,1", "both", "--resume", "--set", "momentum=0.5") == 2
    assert "is of another configuration (momentum 0.9, not 0.5)" in capsys.readouterr().err


def test_how_to_compile_is_decided_for_all_seeds_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def note(*arguments: Any, seed: int, **_: object) -> SimpleNamespace:
        given.append(arguments[2].compile)
        record = invented(arguments[0], seed, 0.5)
        used = replace(record.hardware, compile=True)
        return SimpleNamespace(record=replace(record, hardware=used))

    monkeypatch.setattr(module, "fit", note)
    words = ["train", "smoke", "--data", "synthetic", "--seed", "0,1", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert given[1] is True
    assert given[0] is not True

    record = invented(get_recipe("smoke"), 0, 0.5)
    finished = replace(record, hardware=replace(record.hardware, compile=True))
    monkeypatch.setattr(resume, "finished_seeds", lambda *_: {0: finished})
    for wish, compiled in (([], True), (["--no-compile"], False)):
        assert cli.main([*words, "--resume", *wish]) == 0
        assert given[-1] is compiled


def test_a_record_can_be_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {"epochs": 3, "schedule": "step", "erasing_area": (0.1, 0.2)}
    old = invented(get_recipe("smoke", **changed), 7, 0.25, "val")
    old = replace(old, data=replace(old.data, name="synthetic"))
    given: dict[str, Any] = {}

    def note(recipe: Recipe, data: Dataset, *_: object, seed: int, **__: object) -> object:
        given.update(recipe=recipe, seed=seed, images=data.name, split=data.split)
        return SimpleNamespace(record=replace(old, seed=seed))

    monkeypatch.setattr(module, "fit", note)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "old.json"
    write_record(old, path)
    assert cli.main(["train", "old.json"]) == 0
    same = {"images": "synthetic", "split": "val"}
    assert given == {"recipe": old.recipe, "seed": 7, **same}
    assert "old.json: accuracy 25.00%" in capsys.readouterr().out
    assert cli.main(["train", str(path), "--seed", "8", "--set", "schedule=cosine"]) == 0
    assert given == {"recipe": replace(old.recipe, schedule="cosine"), "seed": 8, **same}
    own = replace(old, recipe=replace(old.recipe, name="mine"))
    write_record(own, path)
    assert cli.main(["train", "old.json"]) == 0
    assert given == {"recipe": own.recipe, "seed": 7, **same}
    for name, words in (("mine", "give them to fit"), ("cifar10", "leave out --data synthetic")):
        write_record(replace(old, data=replace(old.data, name=name)), path)
        assert cli.main(["train", "old.json", "--data", "synthetic"]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["train", "older.json"]) == 2
    assert "record older.json does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_says_how_to_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    def interrupt(*_: object, out: Path, **__: object) -> None:
        out.mkdir()
        (out / "checkpoint.pt").touch()
        try:
            signal.raise_signal(number)
        finally:
            if number == signal.SIGTERM:
                signal.raise_signal(number)  # some send it twice

    monkeypatch.setattr(module, "fit", interrupt)
    arguments = ["train", "smoke", "--data", "synthetic", "--out", str(tmp_path / "run")]
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert cli.main(arguments) == code
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "add --resume to go on" in capsys.readouterr().err


def test_signals_that_others_handle_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[object] = []
    look = partial(signal.getsignal, signal.SIGTERM)
    monkeypatch.setattr(cli.commands, "recipes", lambda _: handlers.append(look()))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert cli.main(["recipes"]) == 0
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        thread = threading.Thread(target=cli.main, args=(["recipes"],))
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handlers == [signal.SIG_IGN, signal.SIG_DFL]


def test_a_bad_picture_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "_TOGETHER", 2)
    folder, single, bad = tmp_path / "folder", tmp_path / "single.png", tmp_path / "bad.png"
    (tmp_path / "empty").mkdir()
    folder.mkdir()
    for path in (single, folder / "b.png", folder / "a.jpg"):
        Image.new("RGB", (32, 32), "blue").save(path)
    (folder / "aa.gif").touch()
    words = ["predict", str(bad), str(folder), str(tmp_path / "empty"), str(single)]
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    good = [str(path) for path in (folder / "a.jpg", folder / "b.png", single)]
    assert [line.partition(": ")[0] for line in captured.out.splitlines()] == good
    assert [line[:20] for line in captured.err.splitlines()] == [
        *["cifar-resnet: image "] * 2,
        "cifar-resnet: folder",
    ]
    assert cli.main([*words, "--json"]) == 2
    answers = json.loads(capsys.readouterr().out)
    assert [answer["image"] for answer in answers] == good
    assert all(set(answer["probabilities"]) == set(CLASSES) for answer in answers)
    assert cli.main(["predict", "--json", str(bad)]) == 2
    assert json.loads(capsys.readouterr().out) == []
    assert cli.main(["predict", str(single)]) == 0


def test_of_weights_that_give_nan_nothing_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = build("resnet20").state_dict()
    state["0.weight"][:] = torch.nan
    save_file(state, tmp_path / "weights.safetensors")
    words = ["--network", "resnet20", "--data", "synthetic", "--json"]
    assert cli.main(["evaluate", str(tmp_path / "weights.safetensors"), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cifar-resnet: the model's weights give no finite answer")


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    command = (
        f"{sys.executable} -u -m cifar_resnet experiments status | head -n 1; exit $PIPESTATUS"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert done.returncode == 1, "what it was asked for may be undone"


@pytest.mark.parametrize("words", [["recipes"], ["--help"]])
def test_output_that_cannot_be_written_is_one_line(words: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs Linux")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "cifar_resnet", *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert done.returncode == 2
    assert done.stderr == "cifar-resnet: system: No space left on device\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".05", 0.05),
        ("5.", 5.0),
        ("1e-3", 1e-3),
        ("True", True),
        ("[1, 2]", [1, 2]),
        ("sgd", "sgd"),
    ],
)
def test_values_may_be_written_as_in_python(text: str, value: object) -> None:
    assert commands._changes([f"field={text}"]) == {"field": value}


def test_an_error_of_the_system_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(cli.commands, "recipes", fail)
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err == (
        "cifar-resnet: system: libcudart.so: cannot open shared object file\n"
    )


def test_too_little_memory_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def allocate(_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(cli.commands, "recipes", allocate)
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err.startswith("cifar-resnet: out of memory")


def test_recipes_lists_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    from cifar_resnet.recipe import RECIPES

    assert cli.main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{name}$", printed, re.M) for name in RECIPES)


def test_the_fields_of_a_recipe_can_be_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "fast-cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "erasing_area=[0.02,0.4]" in lines
    given = commands._changes(lines)
    assert replace(get_recipe("notes", **given), name="fast-cpu") == get_recipe("fast-cpu")


def test_where_nothing_is_missing_no_budget_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cifar_resnet.experiments.EXPERIMENTS", ())
    words = ["--device", "cpu", "--budget", "1s", "--results", str(tmp_path)]
    assert cli.main(["experiments", "run", *words]) == 0
    assert capsys.readouterr().out == "nothing is missing; --again repeats what is published\n"


def test_where_there_is_nothing_to_add_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make publish` may find no run."""
    assert cli.main(["results", "add", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to add: no run was named\n"


def test_a_folder_that_cannot_be_made_is_named_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = ["train", "smoke", "--data", "synthetic", "--out", str(tmp_path / "file")]
    for seeds in ("0", "0,1"):
        assert cli.main([*words, "--seed", seeds]) == 2
        message = f"cifar-resnet: {tmp_path / 'file'} is a file, not a folder; choose another --out"
        assert capsys.readouterr().err == f"{message}\n"


def test_the_analysis_of_another_run_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = analyze("gradients", load("synthetic"))
    monkeypatch.setattr(analysis, "analyze", lambda *_: replace(made, weights_record="another"))
    write_record(made, tmp_path / "gradients.json")
    words = ["analyze", "gradients", "--data", "synthetic", "--out", str(tmp_path)]
    assert cli.main(words) == 2
    assert "is the analysis of another run" in capsys.readouterr().err
    other = replace(made, data=replace(made.data, eval_split="val"))
    monkeypatch.setattr(analysis, "analyze", lambda *_: other)
    assert cli.main(words) == 2
    assert "or other data (synthetic test)" in capsys.readouterr().err
    assert read(AnalysisRecord, tmp_path / "gradients.json").data == made.data
    (tmp_path / "gradients.json").write_text("notes of mine")
    assert cli.main(words) == 2
    assert "is not JSON" in capsys.readouterr().err
    assert (tmp_path / "gradients.json").read_text() == "notes of mine"


def test_fresh_networks_need_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", "gradients", "--data", "synthetic", "--run-folder", "nowhere"]
    assert cli.main(words) == 2
    assert "leave out --run-folder" in capsys.readouterr().err


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "图.png"
    Image.new("RGB", (32, 32)).save(path)
    done = subprocess.run(
        [sys.executable, "-m", "cifar_resnet", "predict", str(path)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "\\u56fe.png: " in done.stdout
