import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from cifar_resnet import compiling
from cifar_resnet.compiling import compile_ahead
from cifar_resnet.hardware import Hardware
from cifar_resnet.model import get_cifar_resnet
from cifar_resnet.recipe import Recipe, get_recipe, resolution
from cifar_resnet.train import make_optimizer


@pytest.mark.parametrize(
    ("device", "compiled", "graphs", "choice"),
    [
        ("cpu", 0.5, 9.0, (False, False)),
        ("cpu", 2.0, 9.0, (True, False)),
        ("cuda", 0.5, 0.6, (False, False)),
        ("cuda", 2.0, 0.0, (True, False)),
        ("cuda", 2.0, -1.0, (True, False)),  # recorded without complaint, fails when replayed
        ("cuda", 2.0, 4.0, (True, True)),
        ("cuda", 0.0, 0.0, (False, False)),
    ],
)
def test_compiling_is_chosen_by_the_ratio_of_step_times(
    monkeypatch: pytest.MonkeyPatch,
    cpu: Hardware,
    device: str,
    compiled: float,
    graphs: float,
    choice: tuple[bool, bool],
) -> None:
    def steps(hardware: Hardware, *_: object) -> Callable[[int], None]:
        speedup = (graphs if hardware.cuda_graphs else compiled) if hardware.compile else 1.0
        calls = iter(range(100))

        def train(count: int) -> None:
            if speedup == 0 or (speedup < 0 and next(calls) > 0):
                raise RuntimeError("no compiler")
            clock[0] += count / abs(speedup)

        return train

    clock = [0.0]
    monkeypatch.setattr(compiling, "training_steps", steps)
    monkeypatch.setattr(compiling.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found, speedup = compiling.fastest(replace(cpu, device=device), get_recipe("smoke"))
    told = {str(warning.message) for warning in said}
    assert ("CUDA graphs: RuntimeError: no compiler" in told) == (graphs <= 0)
    assert ("torch.compile: RuntimeError: no compiler" in told) == (compiled <= 0)
    assert (found.compile, found.cuda_graphs) == choice
    assert speedup == pytest.approx(max(compiled, graphs if device == "cuda" else 0.0))


def test_graphs_can_be_ruled_out(monkeypatch: pytest.MonkeyPatch, cpu: Hardware) -> None:
    tried: list[bool] = []

    def steps(hardware: Hardware, *_: object) -> Callable[[int], None]:
        tried.append(hardware.cuda_graphs)
        return lambda _: None

    monkeypatch.setattr(compiling, "training_steps", steps)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    compiling.fastest(replace(cpu, device="cuda"), get_recipe("smoke"), graphs=False)
    assert tried == [False, False]


def test_torchs_limits_are_kept(cpu: Hardware) -> None:
    config, model = torch._dynamo.config, nn.Linear(3, 2)
    with config.patch(recompile_limit=5, fail_on_recompile_limit_hit=False):
        with compiling.limits_kept():
            compiling.compiled(model, torch.optim.SGD(model.parameters()), cpu)
            config.recompile_limit = 9
            assert config.fail_on_recompile_limit_hit
        assert (config.recompile_limit, config.fail_on_recompile_limit_hit) == (5, False)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own
def test_settings_for_cuda_graphs_are_understood(cpu: Hardware) -> None:
    """On a CPU they change nothing."""
    model = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    optimizer = torch.optim.SGD(model.parameters())
    graphed = compiling.compiled(model, optimizer, replace(cpu, compile=True, cuda_graphs=True))
    assert torch.allclose(graphed(x), model(x), atol=1e-6)


def test_every_size_of_image_is_compiled(cpu: Hardware) -> None:
    """Even where they are more than torch compiles by itself."""
    torch.compiler.reset()  # what other tests compiled counts as well
    recipe = Recipe(
        "growing",
        epochs=4,
        batch_size=2,
        low_resolution=8,
        low_resolution_share=0.9,
        low_resolution_stages=4,
    )
    assert len({resolution(recipe, epoch) for epoch in range(4)}) > 2
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))
    forward = torch.compile(model, backend="eager", dynamic=False)
    optimizer = make_optimizer(model, recipe)
    limits = {"recompile_limit": 2, "fail_on_recompile_limit_hit": True}
    with torch._dynamo.config.patch(limits):
        compile_ahead(forward, model, optimizer, recipe, replace(cpu, compile=True))


def test_compiling_ahead_changes_nothing(cpu: Hardware) -> None:
    model = get_cifar_resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = Recipe(
        "test",
        epochs=2,
        batch_size=2,
        optimizer="muon",
        low_resolution=24,
        low_resolution_share=0.5,
    )
    optimizer = make_optimizer(model, recipe)
    sizes = []
    model.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[-1]))
    compile_ahead(model, model, optimizer, recipe, cpu)
    assert sizes == [24, 32]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimizer.state_dict() == make_optimizer(model, recipe).state_dict()
    assert all(parameter.grad is None for parameter in model.parameters())
