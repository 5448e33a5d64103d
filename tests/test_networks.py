import pytest
import torch
from torch import nn

from cifar_resnet.depth import Block, get_depth_resnet
from cifar_resnet.networks import NETWORKS, build


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_maps_images_to_ten_logits(name: str) -> None:
    assert build(name).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 4),
        ("resnet18-original", 1),
        ("resnet18-small-conv", 2),
        ("resnet18-no-pooling", 2),
    ],
)
def test_last_feature_map_of_each_stem(name: str, size: int) -> None:
    model, sizes = build(name).eval(), []
    model.layer4.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    model(torch.zeros(1, 3, 32, 32))
    assert sizes == [size]


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_depth_counts_weighted_layers(depth: int) -> None:
    layers = [m for m in build(f"plain{depth}").modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_plain_and_residual_have_the_same_parameters_and_differ_by_the_shortcut() -> None:
    torch.manual_seed(0)
    residual = Block(16, 16).eval()
    plain = Block(16, 16, residual=False).eval()
    plain.load_state_dict(residual.state_dict())
    x = torch.rand(2, 16, 8, 8)
    branch = residual.norm2(residual.conv2(torch.relu(residual.norm1(residual.conv1(x)))))
    torch.testing.assert_close(plain(x), torch.relu(branch))
    torch.testing.assert_close(residual(x), torch.relu(branch + x))


def test_option_a_shortcut_subsamples_and_pads_with_zeros() -> None:
    block = Block(2, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)
    out = block(x)
    torch.testing.assert_close(out[:, :2], x[:, :, ::2, ::2])
    assert not out[:, 2:].any()


def test_without_batch_norm_convolutions_have_biases() -> None:
    model = get_depth_resnet(8, batch_norm=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all(m.bias is not None for m in model.modules() if isinstance(m, nn.Conv2d))
