import torch
from torch import nn

from cifar_resnet.model import get_cifar_resnet


def test_feature_maps_are_32_32_16_8_4_pixels_wide() -> None:
    model = get_cifar_resnet().eval()
    sizes = {}
    names = {getattr(model, n): n for n in ("maxpool", "layer1", "layer2", "layer3", "layer4")}

    def keep(module: nn.Module, _: object, output: torch.Tensor) -> None:
        sizes[names[module]] = tuple(output.shape[1:])

    for module in names:
        module.register_forward_hook(keep)
    model(torch.zeros(1, 3, 32, 32))
    assert sizes == {
        "maxpool": (64, 32, 32),
        "layer1": (64, 32, 32),
        "layer2": (128, 16, 16),
        "layer3": (256, 8, 8),
        "layer4": (512, 4, 4),
    }


def test_the_three_changes_and_nothing_else() -> None:
    from torchvision.models import resnet18

    ours, original = get_cifar_resnet(), resnet18(weights=None)
    assert repr(ours.conv1) == repr(nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False))
    assert repr(ours.maxpool) == "Identity()"
    assert repr(ours.fc) == repr(nn.Linear(512, 10))
    for name in ("bn1", "layer1", "layer2", "layer3", "layer4", "avgpool"):
        assert repr(getattr(ours, name)) == repr(getattr(original, name))


def test_num_classes() -> None:
    assert get_cifar_resnet(num_classes=100)(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
