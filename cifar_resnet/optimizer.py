"""Muon: SGD with momentum whose steps for convolutions are made orthogonal."""

import math
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


# --8<-- [start:orthogonal]
def orthogonal(matrix: Tensor, iterations: int = 3) -> Tensor:
    """Bring all singular values of a matrix near 1 and keep its singular vectors, roughly.

    Newton-Schulz iteration with the polynomial of Jordan et al. 2024
    (https://kellerjordan.github.io/posts/muon/): matrix products alone, in the precision that
    autocast chooses. Each iteration multiplies by a polynomial in the small square matrix of
    inner products of the rows, so that only the first and the last product are large. Values
    that are not tiny beside the norm end between about 0.7 and 1.2.

    Args:
        matrix: float ``[rows, columns]``.
        iterations: the more, the smaller the singular values that reach 1.

    Returns:
        ``[rows, columns]``.

    Example:
        >>> matrix = torch.diag(torch.tensor([1.0, 0.5, 0.25]))
        >>> values = torch.linalg.svdvals(orthogonal(matrix, iterations=5))
        >>> bool((values > 0.6).all() and (values < 1.3).all())
        True
    """
    a, b, c = _QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    norm = wide.norm() + 1e-7
    gram = wide @ wide.T / norm**2
    product = torch.eye(len(wide), dtype=gram.dtype, device=wide.device) / norm
    for _ in range(iterations):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    result: Tensor = product @ wide
    return result if wide is matrix else result.T
    # --8<-- [end:orthogonal]


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

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the gradients of convolutions are replaced by their updates."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        group = self.param_groups[0]
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            average = state["momentum_buffer"].mul_(group["filter_momentum"]).add_(p.grad)
            ahead = p.grad.add(average, alpha=group["filter_momentum"])
            direction = (ahead if group["filter_nesterov"] else average).permute(0, 2, 3, 1)
            update = orthogonal(direction.flatten(1))  # a view, as weights are channels_last
            p.mul_(math.sqrt(len(p)) / p.norm())
            p.grad.copy_(update.view(direction.shape).permute(0, 3, 1, 2))
        super().step()
        return loss
