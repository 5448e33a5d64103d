from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cifar_resnet import run as module
from cifar_resnet.augment import Augmentation
from cifar_resnet.data import Dataset
from cifar_resnet.depth import get_depth_resnet
from cifar_resnet.errors import InputError
from cifar_resnet.hardware import Hardware
from cifar_resnet.networks import NETWORKS
from cifar_resnet.resume import finished_seeds, refuse_used_folder, running_code
from cifar_resnet.run import fit
from tests.test_run import RECIPE, Interrupt


def test_an_interrupted_run_resumes_to_the_same_result(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    whole = fit(RECIPE, synthetic, cpu, out=tmp_path / "whole").record
    with pytest.raises(KeyboardInterrupt):
        fit(RECIPE, synthetic, cpu, out=tmp_path / "parts", display=Interrupt())
    with pytest.raises(InputError, match="--resume"):
        fit(RECIPE, synthetic, cpu, out=tmp_path / "parts")
    longer = replace(RECIPE, epochs=3, augmentation=Augmentation(crop_padding=2))
    with pytest.raises(
        InputError,
        match=r"another configuration \(epochs 2, not 3; crop_padding 4, not 2; seed 0, ",
    ):
        fit(longer, synthetic, cpu, seed=1, out=tmp_path / "parts", resume=True)
    val = replace(synthetic, name="mine", split="val")
    longer = replace(longer, learning_rate=0.5)
    with pytest.raises(InputError, match=r"\(epochs 2, not 3; .* 4, not 2; and 2 more\); choose"):
        fit(longer, val, cpu, out=tmp_path / "parts", resume=True)
    other = replace(cpu, precision="bf16")
    with pytest.raises(InputError, match="go on there"):
        fit(RECIPE, synthetic, other, out=tmp_path / "parts", resume=True)

    parts = fit(RECIPE, synthetic, cpu, out=tmp_path / "parts", resume=True).record
    assert parts.sessions == 2
    assert [replace(e, seconds=0) for e in parts.history] == [
        replace(e, seconds=0) for e in whole.history
    ]
    assert parts.metrics == whole.metrics
    with pytest.raises(InputError, match="finished run"):
        fit(RECIPE, synthetic, cpu, out=tmp_path / "parts", resume=True)


def test_what_cannot_be_read_to_go_on_is_to_be_deleted(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.pt").write_text("damaged")
    with pytest.raises(InputError, match="or foreign; delete it to start anew, or choose another"):
        fit(RECIPE, synthetic, cpu, out=tmp_path, resume=True)
    (tmp_path / "record.json").write_text("damaged")
    with pytest.raises(InputError, match=r"is not JSON.*; delete it to start anew, or choose"):
        finished_seeds(RECIPE, synthetic, cpu, {0: tmp_path})


def test_a_checkpoint_of_other_code_is_refused(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(RECIPE, synthetic, cpu, out=tmp_path, display=Interrupt())
    now = replace(running_code(), source_sha256="f" * 64)
    monkeypatch.setattr(module, "running_code", lambda: now)
    with pytest.raises(InputError, match="other code"):
        fit(RECIPE, synthetic, cpu, out=tmp_path, resume=True)


def test_other_images_or_another_network_are_not_gone_on_with(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(RECIPE, synthetic, cpu, out=tmp_path, display=Interrupt())
    other = replace(synthetic, train_images=255 - synthetic.train_images)
    with pytest.raises(InputError, match="trained on other images"):
        fit(RECIPE, other, cpu, out=tmp_path, resume=True)
    monkeypatch.setitem(NETWORKS, "resnet20", partial(get_depth_resnet, 20, residual=False))
    with pytest.raises(InputError, match="of another network"):
        fit(RECIPE, synthetic, cpu, out=tmp_path, resume=True)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in ("file", "file/run/seed0"):
        with pytest.raises(InputError, match=r"/file is a file, not a folder; choose another"):
            refuse_used_folder(tmp_path / out, resume=False)
    refuse_used_folder(tmp_path / "new" / "run", resume=False)


def test_weights_of_another_are_not_written_over(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    (tmp_path / "weights.safetensors").write_text("precious")
    with pytest.raises(InputError, match="holds weights without their record"):
        fit(RECIPE, synthetic, cpu, out=tmp_path)
