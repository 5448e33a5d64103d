"""The networks of He et al. 2015, section 4.2: 6n+2 layers, with and without shortcuts."""

import torch
from torch import Tensor, nn

from cifar_resnet.errors import InputError


# --8<-- [start:Block]
class Block(nn.Module):
    """Two 3x3 convolutions, with a shortcut around them or without.

    The shortcut is the paper's option A: the identity, subsampled and padded with zero
    channels where the shape changes, so that it has no parameters.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        stride: of the first convolution.
        residual: add the shortcut.
        batch_norm: normalise after each convolution; without it the convolutions have
            a bias.

    Example:
        >>> Block(16, 32, stride=2)(torch.zeros(1, 16, 32, 32)).shape
        torch.Size([1, 32, 16, 16])
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int = 1,
        *,
        residual: bool = True,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=not batch_norm)
        self.norm1 = nn.BatchNorm2d(channels_out) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=not batch_norm)
        self.norm2 = nn.BatchNorm2d(channels_out) if batch_norm else nn.Identity()
        self.relu = nn.ReLU()
        self.stride = stride
        self.new_channels = channels_out - channels_in
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, channels_in, H, W]`` to ``[N, channels_out, H/stride, W/stride]``."""
        out: Tensor = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        if self.residual:
            out = out + self.shortcut(x)
        return torch.relu(out)

    def shortcut(self, x: Tensor) -> Tensor:
        """The input in the shape of the output, without parameters."""
        x = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.new_channels))

    # --8<-- [end:Block]


# --8<-- [start:get_depth_resnet]
def get_depth_resnet(
    depth: int, *, residual: bool = True, batch_norm: bool = True, num_classes: int = 10
) -> nn.Sequential:
    """ResNet-20, 32, 44, 56, … for 32x32 images, or the plain network of the same depth.

    Weights are drawn as in He et al. 2015 (arXiv:1502.01852): normal, with variance
    2 / (9 * channels_in).

    Args:
        depth: 6n + 2 for a whole n of at least 1.
        residual: with shortcuts.
        batch_norm: with batch normalisation.
        num_classes: number of outputs.

    Returns:
        A module that maps float images ``[N, 3, 32, 32]`` to logits ``[N, num_classes]``.

    Raises:
        InputError: if no whole n gives this depth.

    Example:
        >>> for depth in (20, 32, 44, 56):  # 0.27, 0.46, 0.66 and 0.85 million
        ...     print(sum(p.numel() for p in get_depth_resnet(depth).parameters()))
        269722
        464154
        658586
        853018
        >>> get_depth_resnet(21)
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: depth must be 6n+2 (8, 14, 20, ...), not 21
    """
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise InputError(f"depth must be 6n+2 (8, 14, 20, ...), not {depth}")
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(16))
    layers.append(nn.ReLU())
    channels = 16
    for width in (16, 32, 64):
        for _ in range(n):
            stride = 1 if width == channels else 2
            block = Block(channels, width, stride, residual=residual, batch_norm=batch_norm)
            layers.append(block)
            channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    model = nn.Sequential(*layers)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
    # --8<-- [end:get_depth_resnet]
