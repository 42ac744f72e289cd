"""Muon: momentum, made orthogonal by a Newton-Schulz iteration (K. Jordan et al., 2024).

For the matrices inside the blocks only. Matrices of one shape are updated together.
"""

import torch
from torch import Tensor, nn


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """g [n, rows, columns], rows <= columns -> about U V^T of each g = U S V^T."""
    x = g.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def step_group(weights: Tensor, gradients: Tensor, momenta: Tensor, lr: Tensor, momentum: float, decay: Tensor):
    """Returns the new weights and momenta, all [n, rows, columns]."""
    momenta = torch.lerp(gradients, momenta, momentum)
    update = torch.lerp(gradients, momenta, momentum)  # Nesterov
    rows, columns = update.shape[-2:]
    update = orthogonalise(update) if rows <= columns else orthogonalise(update.mT).mT
    # A tall matrix gets a larger step, so that an output moves equally far for any shape.
    scale = max(1.0, rows / columns) ** 0.5
    return weights * (1 - lr * decay) - lr * scale * update, momenta


class Muon:
    decay = 0.0  # may change from step to step

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float, compiled: bool):
        groups: dict[tuple[int, int], list[nn.Parameter]] = {}
        for p in parameters:
            groups.setdefault(tuple(p.shape), []).append(p)
        self.groups = list(groups.values())
        self.momenta = [torch.stack([torch.zeros_like(p) for p in g]) for g in self.groups]
        self.lr, self.momentum = lr, momentum
        self.update = torch.compile(step_group, dynamic=False) if compiled else step_group

    @torch.no_grad()
    def step(self, lr_factor: float) -> None:
        # As tensors: numbers that change would have the update compiled anew.
        lr, decay = (torch.full((), x, device=self.momenta[0].device) for x in (self.lr * lr_factor, self.decay))
        for i, group in enumerate(self.groups):
            weights, gradients = torch.stack(list(group)), torch.stack([p.grad for p in group])
            weights, self.momenta[i] = self.update(
                weights, gradients, self.momenta[i], lr, self.momentum, decay
            )
            torch._foreach_copy_(group, list(weights.unbind()))

    def state_dict(self) -> dict:
        return {"momenta": self.momenta}

    def load_state_dict(self, state: dict) -> None:
        for mine, saved in zip(self.momenta, state["momenta"], strict=True):
            mine.copy_(saved)
