"""Two processes over Gloo on the CPU."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from cifar_resnet.cli import main
from cifar_resnet.data import Dataset, load
from cifar_resnet.distributed import World, all_gather, data_parallel, join, local_device, shard
from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import evaluate
from cifar_resnet.hardware import Hardware
from cifar_resnet.networks import build
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import read_record
from cifar_resnet.run import fit
from tests import ROOT

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = [
    *("-m", "cifar_resnet", "train", "smoke", "--data", "synthetic", "--set", "network=resnet20"),
    *("--device", "cpu", "--precision", "fp32", "--threads", "1", "--no-compile"),
]


def test_shares_are_disjoint_and_complete() -> None:
    rows = torch.arange(7)
    shares = [shard(rows, World(rank, 3)) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == rows.tolist()
    assert torch.equal(all_gather(rows.float(), 7, World()), rows.float())


def test_each_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [local_device(device) for device in (None, "cuda", "cpu")] == ["cuda:3", "cuda:3", "cpu"]
    with pytest.raises(InputError, match="torchrun gives each process a GPU"):
        local_device("cuda:0")


def gradients(world: World) -> list[torch.Tensor]:
    """Of one global batch of 16, with the running statistics of batch normalisation."""
    torch.manual_seed(0)
    model = data_parallel(build("resnet20"), world).eval()
    data = load("synthetic")
    x = shard(data.train_images[:16].float() / 255, world)
    nn.functional.cross_entropy(model(x), shard(data.train_labels[:16], world)).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_gradients_equal_those_of_one_process(tmp_path: Path) -> None:
    script = f"""
import torch
from tests.test_distributed import gradients
from cifar_resnet.distributed import join
torch.set_num_threads(1)
with join("cpu") as world:
    torch.save(gradients(world), f"{tmp_path}/{{world.rank}}.pt")
"""
    path = tmp_path / "script.py"
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([*TORCHRUN, str(path)], check=True, env=environment, capture_output=True)
    expected = gradients(World())
    assert len(expected) > 50
    for rank in (0, 1):
        for ours, alone in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
            torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)


def test_a_job_of_two_leaves_one_record_and_counts_every_image(tmp_path: Path) -> None:
    command = [*TORCHRUN, *TRAIN, "--epochs", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert "2 processes" in done.stderr
    record = read_record(tmp_path / "record.json")
    assert record.hardware.processes == 2
    data, model = load("synthetic"), build("resnet20")
    model.load_state_dict(torch.load(tmp_path / "checkpoint.pt")["model"])
    alone = evaluate(model, data.eval_images, data.eval_labels)
    assert record.metrics.confusion == alone.confusion
    assert record.metrics.loss == pytest.approx(alone.loss, rel=1e-4)
    one = main([*TRAIN[2:], "--epochs", "1", "--out", str(tmp_path / "one")])
    assert one == 0
    epochs = [read_record(path).history[0] for path in tmp_path.rglob("record.json")]
    for share in ("train_loss", "train_accuracy"):  # batch normalisation differs a little
        first, second = (getattr(epoch, share) for epoch in epochs)
        assert first == pytest.approx(second, rel=0.3), "half of it if it were not summed"


def children(pid: int) -> list[int]:
    """Processes that another one started, as Linux tells."""
    if not Path("/proc").exists():
        pytest.skip("needs Linux")
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = stat.read_text().rpartition(")")[2].split()[1]
            found += [int(stat.parent.name)] if int(parent) == pid else []
    return sorted(found)


def test_a_job_whose_process_dies_ends_and_resumes(tmp_path: Path) -> None:
    long = [*TORCHRUN, *TRAIN, "--set", "epochs=200", "--out", str(tmp_path)]
    job = subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    checkpoint = tmp_path / "checkpoint.pt"
    end = time.monotonic() + 120
    while not checkpoint.exists():
        assert time.monotonic() < end
        assert job.poll() is None
        time.sleep(0.2)
    os.kill(children(job.pid)[-1], signal.SIGKILL)
    output, _ = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "SIGKILL" in output
    assert "--resume to go on" in output
    assert "Connection closed by peer" not in output
    assert checkpoint.exists()
    assert not (tmp_path / "record.json").exists()

    again = subprocess.Popen([*long, "--resume"], stderr=subprocess.PIPE, text=True)
    assert again.stderr
    epochs = (line for line in again.stderr if line.startswith("epoch"))
    first = next(epochs)
    again.terminate()  # torchrun ends its processes first
    again.wait(120)
    again.stderr.close()
    assert int(first.split()[1].split("/")[0]) > 1


def test_what_the_first_process_refuses_all_refuse(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_text("no checkpoint")
    command = [*TORCHRUN, *TRAIN, "--epochs", "1", "--out", str(tmp_path), "--resume"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "checkpoint.pt cannot be read: it is damaged or foreign; delete it" in done.stderr
    assert "Connection closed by peer" not in done.stderr


def test_what_the_first_process_cannot_write_all_are_told(tmp_path: Path) -> None:
    (tmp_path / "record.json.part").mkdir()
    command = [*TORCHRUN, *TRAIN, "--epochs", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("record.json.part: Is a directory") == 2, "one line of each process"
    assert "Connection closed by peer" not in done.stderr


def test_a_batch_that_cannot_be_shared_is_named(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no multiple of 3 processes"):
        fit(get_recipe("smoke"), synthetic, cpu, out=tmp_path, world=World(0, 3))


def test_a_process_that_waits_for_others_can_be_ended(tmp_path: Path) -> None:
    place = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    script = "import sys; from cifar_resnet import cli, distributed as d; "
    script += "met = d.dist.init_process_group; "
    script += "d.dist.init_process_group = lambda *a: (print('waits', flush=True), met(*a)); "
    alone = subprocess.Popen(
        [sys.executable, "-c", f"{script}cli.main(sys.argv[1:])", *TRAIN[2:], "--out", tmp_path],
        env=os.environ | place | meeting,
        stdout=subprocess.PIPE,
    )
    assert alone.stdout
    try:
        assert alone.stdout.readline() == b"waits\n"
        time.sleep(1)
        alone.terminate()
        assert alone.wait(30) == -signal.SIGTERM
    finally:
        alone.kill()
        alone.communicate()


def test_half_an_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(InputError, match="RANK is 'x', no number; start it with"), join("cpu"):
        pass
    monkeypatch.delenv("RANK")
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR"):
        with pytest.raises(InputError, match=f"but {name} is not set; start it"), join("cpu"):
            pass
        monkeypatch.setenv(name, "2")
    with pytest.raises(InputError, match="RANK is 2, but there are 2 processes"), join("cpu"):
        pass
