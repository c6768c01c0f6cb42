"""CODA-Prompt: a weighted sum of prompt components, grown and re-initialised task by task.

Source: IRVLUTD/CDL@d980577 models/zoo.py `CodaPrompt` (after GT-RIPL/CODA-Prompt@6417d4f).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.training.errors import UserError
from prompt_distill.prompts.base import PromptMethod, PromptSetting, uniform_parameter
from prompt_distill.vit import Injection, Prefix

LAYERS = 5
"""Prompts go into layers 0 to 4."""

SMALLEST_SQUARE = 1e-8
MOST_DRAWS = 100


class ComponentPools(nn.Module):
    """Per layer: components P (M, L, dim), keys K (M, key_dim), attention vectors A (M, key_dim).

    Keys of the state dict: `e_p_<layer>`, `e_k_<layer>`, `e_a_<layer>`.

    Args:
        dim: width of the prompts.
        key_dim: width of the query.
        tasks: number of tasks; each may use pool // tasks new components.
        pool, length: M and L.
    """

    def __init__(self, dim: int, key_dim: int, tasks: int, pool: int, length: int) -> None:
        super().__init__()
        self.per_task = pool // tasks
        if self.per_task < 1:
            raise UserError(f"--prompt_param: a pool of {pool} components is too small for {tasks} tasks")
        for layer in range(LAYERS):
            for kind, shape in (("p", (length, dim)), ("k", (key_dim,)), ("a", (key_dim,))):
                self.register_parameter(f"e_{kind}_{layer}", uniform_parameter(pool, *shape))
                self.renew(layer, kind, 0)

    def pools(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """P, K and A of a layer."""
        return tuple(getattr(self, f"e_{kind}_{layer}") for kind in "pka")

    def used(self, layer: int, task: int, train: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The components of tasks 0 .. `task`; in training those of earlier tasks are constant."""
        start, end = task * self.per_task, (task + 1) * self.per_task
        if not train or start == 0:
            return tuple(pool[:end] for pool in self.pools(layer))
        return tuple(torch.cat([pool[:start].detach(), pool[start:end]]) for pool in self.pools(layer))

    def prefix(self, layer: int, query: Tensor, task: int, train: bool) -> Prefix:
        """sum_m <norm(q * A_m), norm(K_m)> P_m; the first half of its rows are keys, the rest values."""
        components, keys, attention = self.used(layer, task, train)
        attended = F.normalize(query[:, None] * attention, dim=2)
        weights = torch.einsum("bmd,md->bm", attended, F.normalize(keys, dim=1))
        prompt = torch.einsum("bm,mld->bld", weights, components)
        half = prompt.shape[1] // 2
        return Prefix(prompt[:, :half], prompt[:, half:])

    def renew(self, layer: int, kind: str, task: int) -> None:
        """Re-initialise the components of a task. # rng: one normal vector per new component, global generator"""
        pool = getattr(self, f"e_{kind}_{layer}")
        start, end = task * self.per_task, (task + 1) * self.per_task
        with torch.no_grad():
            pool.copy_(gram_schmidt(pool, start, end, lambda length: torch.randn(length)))

    def start_task(self, task: int) -> None:
        """Re-initialise all pools for a later task, in the original's order (keys, attention, prompts)."""
        for layer in range(LAYERS):
            for kind in "kap":
                self.renew(layer, kind, task)


class CodaPrompt(PromptMethod):
    """CODA-Prompt; --prompt_param: pool, length, weight of the orthogonality penalty."""

    name = "CODA-Prompt"

    def __init__(self, setting: PromptSetting) -> None:
        super().__init__(setting)
        pool, length = self.integers(2)
        if len(setting.param) < 3:
            raise UserError("--prompt_param of CODA-Prompt: pool, length, weight of the penalty; found two numbers")
        self.penalty_weight = float(setting.param[2])
        self.pools = ComponentPools(setting.dim, setting.key_dim, setting.tasks, pool, length)

    def inject(self, layer: int, query: Tensor, train: bool) -> tuple[Injection | None, Tensor | None]:
        """Layers 0 to 4; see `PromptMethod.inject`."""
        if layer >= LAYERS:
            return None, None
        penalty = None
        if train and self.penalty_weight > 0:
            components, keys, attention = self.pools.used(layer, self.task, train)
            penalty = sum(map(orthogonality_penalty, (keys, attention, components.flatten(1))))
            penalty = penalty * self.penalty_weight * self.setting.devices  # once per device
        return Injection(own=self.pools.prefix(layer, query, self.task, train)), penalty

    def next_task(self) -> None:
        """Also re-initialise the new components."""
        super().next_task()
        self.pools.start_task(self.task)


def orthogonality_penalty(rows: Tensor) -> Tensor:
    """Mean square of the entries of X X^T - I; (n, d) -> ()."""
    return (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)).square().mean()


def gram_schmidt(pool: Tensor, start: int, end: int, draw: Callable[[int], Tensor]) -> Tensor:
    """New components that are orthogonal to the kept ones and to each other.

    A new row is a normal draw less its projections on all rows before it, which are not normalised while this goes on;
    afterwards each new row gets length one. Kept rows stay, later rows become zero.

    Args:
        pool: (M, ...) rows; the first `start` are kept.
        start, end: rows start .. end - 1 are made.
        draw: number of entries -> vector of normal numbers.

    Returns:
        A tensor like `pool`.

    Raises:
        UserError: if so many orthogonal rows do not exist, or a kept row is zero or not finite.
    """
    rows = torch.zeros_like(pool).flatten(1)
    rows[:start] = pool[:start].flatten(1)
    length = rows.shape[1]
    if end > length:
        raise UserError(
            f"--prompt_param: {end} components cannot be orthogonal in {length} dimensions; take a smaller pool"
        )
    squares = rows[:end].square().sum(dim=1)
    if not bool((squares[:start] >= SMALLEST_SQUARE).all() and squares[:start].isfinite().all()):
        raise UserError("a kept prompt component has length zero or is not finite; lower the learning rate")
    for row in range(start, end):
        for _ in range(MOST_DRAWS):
            vector = draw(length).to(rows)
            rest = vector - ((rows[:row] @ vector) / squares[:row]) @ rows[:row]
            squares[row] = rest.square().sum()
            if bool(squares[row] >= SMALLEST_SQUARE):
                rows[row] = rest
                break
        else:
            raise UserError(f"no vector orthogonal to the {row} prompt components before it was found")
    rows[start:end] = rows[start:end] / rows[start:end].norm(dim=1, keepdim=True)
    return rows.view_as(pool)
