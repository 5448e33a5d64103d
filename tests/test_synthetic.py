import torch

from cifar_resnet.data import load
from cifar_resnet.synthetic import draw


def test_the_same_seed_draws_the_same_images() -> None:
    (a, labels), (b, _), (c, _) = draw(50, seed=3), draw(50, seed=3), draw(50, seed=4)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert labels.bincount().tolist() == [5] * 10


def test_splits_do_not_overlap() -> None:
    data = load("synthetic")
    train = {image.numpy().tobytes() for image in data.train_images}
    assert not any(image.numpy().tobytes() in train for image in data.eval_images)


def test_learnable_but_not_by_mean_colour_alone() -> None:
    """A linear classifier on mean colours beats chance and stays far from right."""
    data = load("synthetic")
    x = data.train_images.float().mean((2, 3)) / 255
    y = data.eval_images.float().mean((2, 3)) / 255
    x, y = (torch.cat((z, z**2, torch.ones(len(z), 1)), 1) for z in (x, y))
    weights = torch.linalg.lstsq(x, torch.eye(10)[data.train_labels]).solution
    accuracy = float(((y @ weights).argmax(1) == data.eval_labels).float().mean())
    assert 0.1 < accuracy < 0.5
