"""Muon: SGD with momentum whose steps for convolutions are made orthogonal."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


# --8<-- [start:orthogonal]
def orthogonal(matrices: Tensor, iterations: int = 3) -> Tensor:
    """Bring all singular values of a matrix near 1 and keep its singular vectors, roughly.

    Newton-Schulz iteration with the polynomial of Jordan et al. 2024
    (https://kellerjordan.github.io/posts/muon/): matrix products alone, in the precision that
    autocast chooses. Each iteration multiplies by a polynomial in the small square matrix of
    inner products of the rows, so that only the first and the last product are large. Values
    that are not tiny beside the norm end between about 0.7 and 1.2.

    Args:
        matrices: float ``[rows, columns]``, or ``[N, rows, columns]``, each for itself.
        iterations: the more, the smaller the singular values that reach 1.

    Returns:
        As many, of the same shape.

    Example:
        >>> matrix = torch.diag(torch.tensor([1.0, 0.5, 0.25]))
        >>> values = torch.linalg.svdvals(orthogonal(matrix, iterations=5))
        >>> bool((values > 0.6).all() and (values < 1.3).all())
        True
    """
    a, b, c = _QUINTIC
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    several = wide.ndim > 2
    norm = wide.norm(dim=(-2, -1), keepdim=several) + 1e-7
    gram = wide @ wide.mT / norm**2
    product = torch.eye(wide.shape[-2], dtype=gram.dtype, device=wide.device) / norm
    multiply_and_add = torch.baddbmm if several else torch.addmm
    for _ in range(iterations):
        factor = multiply_and_add(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    result: Tensor = product @ wide
    return result if wide is matrices else result.mT
    # --8<-- [end:orthogonal]


def _turn(
    filters: list[Tensor],
    gradients: list[Tensor],
    averages: list[Tensor],
    momentum: float,
    nesterov: bool,
    together: bool,
) -> None:
    """Set the filters' norms, go on with the averages, put the updates in the gradients' place.

    Filters of one shape may go together: few large products instead of many small ones.
    """
    alike: dict[tuple[torch.Size, int], list[tuple[Tensor, Tensor]]] = {}
    for index, (p, gradient, average) in enumerate(zip(filters, gradients, averages, strict=True)):
        p.mul_(math.sqrt(len(p)) / p.norm())
        average.mul_(momentum).add_(gradient)
        ahead = gradient.add(average, alpha=momentum) if nesterov else average
        direction = ahead.permute(0, 2, 3, 1)  # a view, as weights are channels_last
        alike.setdefault((direction.shape, 0 if together else index), []).append(
            (gradient, direction)
        )
    for (shape, _), members in alike.items():
        flat = [direction.flatten(1) for _, direction in members]
        updates = orthogonal(torch.stack(flat)) if len(flat) > 1 else [orthogonal(flat[0])]
        for (gradient, _), update in zip(members, updates, strict=True):
            gradient.copy_(update.view(shape).permute(0, 3, 1, 2))


class Muon(torch.optim.SGD):
    """SGD, with a step of its own for convolutions.

    A convolution's weights are a matrix ``[output channels, everything else]``. Its momentum
    is made `orthogonal`, so that every direction is learned at the same pace, and its norm is
    set to the root of the number of output channels at every step, in place of weight decay
    (Jordan 2024, https://github.com/KellerJordan/cifar10-airbench): batch norm follows, so
    that only the direction of the weights matters, and the learning rate is how far it
    turns. All other parameters (batch norm, the last layer) take the usual step of SGD.

    Args:
        model: its parameters must already be on their device.
        lr: learning rate of everything.
        momentum: of everything.
        nesterov: look ahead along the momentum.
        weight_decay: L2 penalty, not for convolutions.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
        >>> loss = model(torch.ones(1, 3, 8, 8)).sum()
        >>> optimizer = Muon(model, lr=0.1)
        >>> loss.backward()
        >>> optimizer.step()
        >>> bool(model(torch.ones(1, 3, 8, 8)).sum() < loss)
        True
    """

    _turn: Callable[..., None] = staticmethod(_turn)

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 0.0,
    ) -> None:
        parameters = list(model.parameters())
        filters = [p for p in parameters if p.ndim == 4]
        rest = [p for p in parameters if p.ndim != 4]
        own_step: dict[str, Any] = {
            "params": filters,
            "filter_momentum": momentum,
            "filter_nesterov": nesterov,
            # `step` puts the update in the gradient's place; SGD then only subtracts it.
            "momentum": 0.0,
            "nesterov": False,
            "weight_decay": 0.0,
        }
        super().__init__(
            [own_step, {"params": rest}],
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            fused=True,
        )
        self._step_supports_amp_scaling = False  # a GradScaler must undo its scale before `step`

    def compile(self) -> None:
        """Fuse the many small operations of a step, which a GPU waits for otherwise."""
        self._turn = torch.compile(_turn, dynamic=False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the gradients of convolutions are replaced by their updates."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        group = self.param_groups[0]
        filters = [p for p in group["params"] if p.grad is not None]
        for p in filters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        self._turn(
            filters,
            [p.grad for p in filters],
            [self.state[p]["momentum_buffer"] for p in filters],
            group["filter_momentum"],
            group["filter_nesterov"],
            any(p.is_cuda for p in filters),  # a CPU would only copy more
        )
        super().step()
        return loss
