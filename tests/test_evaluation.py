import math
import re
from typing import Any, Self

import pytest
import torch
from torch import nn

from cifar_resnet.augment import normalize
from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import evaluate, measure, predict_logits


def test_metrics_by_hand() -> None:
    # Probabilities 0.9/0.1, 0.8/0.2 and 0.4/0.6; labels 0, 1, 1.
    logits = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]).log()
    metrics = measure(logits, torch.tensor([0, 1, 1]))
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.per_class_accuracy == (1.0, 0.5)
    assert metrics.confusion == ((1, 0), (1, 1))
    expected = -torch.tensor([0.9, 0.2, 0.6]).log().mean()
    assert metrics.loss == pytest.approx(float(expected), abs=1e-6)
    # Each lies in a bin of its own: (0.1 + 0.8 + 0.4) / 3.
    assert metrics.calibration_error == pytest.approx(1.3 / 3, abs=1e-6)
    assert sum(count for count, _, _ in metrics.calibration) == 3


def test_a_certain_and_right_model_is_calibrated() -> None:
    logits = torch.eye(10) * 100
    metrics = measure(logits, torch.arange(10))
    assert (metrics.accuracy, metrics.calibration_error) == (1.0, 0.0)


def test_batch_size_does_not_change_the_result_and_the_modes_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(10))
    images = torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8)
    model(normalize(images))
    model.train()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    tuning: list[bool] = []
    model[0].register_forward_hook(lambda *_: tuning.append(torch.backends.cudnn.benchmark))
    whole, parts = (predict_logits(model, images, batch_size=n) for n in (10, 3))
    assert model.training
    assert not any(tuning)
    assert torch.backends.cudnn.benchmark
    torch.testing.assert_close(whole, parts)
    right = float((whole.argmax(1) == 3).float().mean())
    assert evaluate(model, images, torch.full((10,), 3)).accuracy == pytest.approx(right)


def test_every_module_keeps_its_mode() -> None:
    """Frozen batch norm stays frozen, even if the network breaks down."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).train()
    model[0].eval()
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    predict_logits(model, images)
    with pytest.raises(RuntimeError):
        predict_logits(model, images[:, :, :16])
    assert [module.training for module in model] == [False, True, True]
    assert model.training


def test_modules_in_evaluation_mode_are_left_alone() -> None:
    class Fixed(nn.Flatten):
        def train(self, mode: bool = True) -> Self:
            raise AssertionError

    model = Fixed()
    model.training = False
    predict_logits(model, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("labels", "objection"),
    [
        ([0, 1], "labels must be a torch tensor, not list"),
        (torch.zeros(2), r"labels must be int64 \[N\], not float32 \[2\]"),
        (torch.zeros(3, dtype=torch.long), "labels must be 2, one for each image, not 3"),
        (torch.tensor([0, -1]), "labels must not be negative"),
        (torch.tensor([0, 10]), "label 10 is none of the 10 classes"),
    ],
)
def test_wrong_labels_are_named(labels: Any, objection: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(InputError, match=objection):
        evaluate(model, images, labels)
    with pytest.raises(InputError, match="at least one image"):
        evaluate(model, images[:0], torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 1, 32, 32, dtype=torch.uint8),  # which would be spread over three channels
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 32, 32),
    ],
)
def test_other_images_are_refused(images: torch.Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    kind = re.escape(f"not {str(images.dtype)[6:]} {list(images.shape)}")
    for call in (
        lambda: predict_logits(model, images),
        lambda: evaluate(model, images, torch.zeros(len(images), dtype=torch.long)),
    ):
        with pytest.raises(InputError, match=rf"images must be uint8 \[N, 3, H, W\] .*{kind}"):
            call()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_of_an_answer_that_is_not_finite_nothing_is_measured(value: float) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    nn.init.constant_(model[1].bias, value)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(InputError, match="weights give no finite answer"):
        evaluate(model, images, torch.tensor([0, 1]))


def test_logits_can_be_learned_from() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    logits = predict_logits(model, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    student = nn.Linear(10, 10)
    nn.functional.mse_loss(student(logits), logits).backward()
    assert student.weight.grad is not None
