"""The two networks layer by layer, measured on the modules themselves."""

from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models import resnet18

from cifar_resnet.model import get_cifar_resnet

LAYERS = ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc")
_COLUMNS = ("输出", "参数", "乘加", "感受野")


@dataclass(frozen=True)
class Layer:
    """Output shape (channels, height, width), parameters, multiply-adds, receptive field."""

    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    field: int


def measure(model: nn.Module) -> dict[str, Layer]:
    """Run one 32x32 image through a ResNet and describe each of its layers.

    Multiply-adds are those of convolutions and of the fully connected layer. The receptive
    field is that of one output along the longest path, which shortcuts do not widen.
    """
    shapes: dict[nn.Module, torch.Size] = {}
    for module in model.modules():
        module.register_forward_hook(lambda m, _, output: shapes.__setitem__(m, output.shape))
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, 32, 32))

    measured, field, step = {}, 1, 1
    for name in LAYERS:
        layer = model.get_submodule(name)
        for path, module in layer.named_modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "downsample" not in path:
                kernel, stride = (
                    v if isinstance(v, int) else v[0] for v in (module.kernel_size, module.stride)
                )
                field, step = field + (kernel - 1) * step, step * stride
        owners = [layer, model.get_submodule("bn1")] if name == "conv1" else [layer]
        measured[name] = Layer(
            shape=tuple(shapes[layer][1:]),
            parameters=sum(p.numel() for owner in owners for p in owner.parameters()),
            multiply_adds=sum(
                module.weight.numel() * shapes[module][2:].numel()
                for module in layer.modules()
                if isinstance(module, nn.Conv2d | nn.Linear)
            ),
            field=field,
        )
    return measured


def layer_table() -> str:
    """ResNet-18 as torchvision has it and as the note does, side by side, on a 32x32 image."""
    networks = [measure(resnet18(weights=None)), measure(get_cifar_resnet())]
    rows = [
        [f"<code>{name}</code>", *(c for n in networks for c in _cells(name, n[name]))]
        for name in LAYERS
    ]
    rows.append(["合计", *(cell for network in networks for cell in _total(network))])
    networks_head = "".join(
        f'<th colspan="{len(_COLUMNS)}" scope="colgroup">{who}</th>' for who in ("原版", "修改版")
    )
    columns_head = 2 * "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    head = f'<tr><th rowspan="2" scope="col">层</th>{networks_head}</tr><tr>{columns_head}</tr>'
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
    return f'<div class="layer-table unbroken">{table}</div>'


def _cells(name: str, layer: Layer) -> tuple[str, ...]:
    return (
        "×".join(map(str, layer.shape)),
        f"{layer.parameters:,}",
        millions(layer.multiply_adds),
        "整幅" if name in ("avgpool", "fc") else f"{layer.field}",
    )


def _total(layers: dict[str, Layer]) -> tuple[str, ...]:
    return (
        "",
        f"{sum(layer.parameters for layer in layers.values()):,}",
        millions(sum(layer.multiply_adds for layer in layers.values())),
        "",
    )


def millions(count: int) -> str:
    """A count in millions.

    >>> millions(555422720), millions(5120), millions(0)
    ('555.4 M', '0.005 M', '0')
    """
    if count == 0:
        return "0"
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e6:.3f} M"
