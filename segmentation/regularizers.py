"""Penalties on changes of single weights: EWC, path integral (PI), Riemannian walk (RW).

Source: arthurdouillard/CVPR2021_PLOP (commit 4b4a060) utils/regularizer.py, which is fcdl94/MiB's. g stands for the
gradient of the other losses, theta for the weights, one entry per parameter tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.training.errors import UserError

Weights = dict[str, Tensor]


class ImportanceRegularizer:
    """What the three have in common: old weights, old importances, and their penalty.

    Args:
        network: of this step.
        old_weights: state dict of the old network; None in the first step, which has no penalty.
        saved: `trainer_state()` of the previous step; None in the first step.
        alpha: share of the newest squared gradient in the Fisher information.
        normalize: scale the old importances of every tensor to 0 ... 1.
        iterations: RW: iterations between two scores.

    Raises:
        UserError: if `saved` is not what the same regulariser leaves.
    """

    kinds: tuple[str, ...]
    """Names of what it leaves for the next step."""

    def __init__(
        self,
        network: nn.Module,
        old_weights: Mapping[str, Tensor] | None,
        saved: Mapping[str, Weights] | None,
        alpha: float = 0.9,
        normalize: bool = True,
        iterations: int = 10,
    ) -> None:
        self.network, self.alpha, self.normalize, self.every = network, alpha, normalize, iterations
        self.count = 0
        self.parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
        start = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.has_penalty = old_weights is not None
        if self.has_penalty:
            self._check(saved)
        self.anchor = start if old_weights is None else {
            name: old_weights[name].detach().to(value) for name, value in start.items() if name in old_weights
        }  # fmt: skip
        self.saved = {
            kind: {name: value.to(start[name]) for name, value in weights.items() if name in start}
            for kind, weights in (saved or {}).items()
        }
        self.running: dict[str, Weights] = self._start(start)
        self.strength = self._strength() if self.has_penalty else {}

    def _check(self, saved: Any) -> None:
        """Refuse what another method left."""
        found = sorted(saved) if isinstance(saved, Mapping) else ["VDFD's"] if saved else []
        if found != sorted(self.kinds):
            name = type(self).__name__
            raise UserError(
                f"the previous step's checkpoint holds {' and '.join(found) or 'no'} importances, {name} needs "
                f"{' and '.join(self.kinds)}; train the previous step with --method {name}"
            )

    def _start(self, start: Weights) -> dict[str, Weights]:
        """What is accumulated during this step."""
        raise NotImplementedError

    def _strength(self) -> Weights:
        """Importance of every entry in the penalty."""
        raise NotImplementedError

    def _update(self, gradients: Weights) -> None:
        """Accumulate, from this iteration's gradients."""
        raise NotImplementedError

    def trainer_state(self) -> dict[str, Weights]:
        """What the checkpoint keeps for the next step."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self) -> None:
        """After the other losses' backward pass, before the penalty's; entries that overflowed count as 0."""
        gradients = {
            name: parameter.grad.nan_to_num(0.0, 0.0, 0.0)
            for name, parameter in self.parameters.items()
            if parameter.grad is not None
        }
        self._update(gradients)
        self.count += 1

    def penalty(self, network: nn.Module) -> Tensor:
        """() sum over all entries of importance times squared change, without its weight."""
        changes = [self.parameters[name] - self.anchor[name] for name in self.strength]
        terms = [
            (strength * change.square()).sum() for strength, change in zip(self.strength.values(), changes, strict=True)
        ]
        return torch.stack(terms).sum() if terms else next(network.parameters()).new_zeros(())

    def after_step(self) -> None:
        """Nothing of its own to optimise."""

    def state_dict(self) -> dict[str, Any]:
        """For a resume in the middle of a step; what an earlier step left comes from its checkpoint again."""
        anchor = {} if self.has_penalty else self.anchor
        return {"running": self.running, "anchor": anchor, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for kind, weights in state["running"].items():
            self.running[kind] |= {
                name: value.to(self.parameters[name]) for name, value in weights.items() if name in self.parameters
            }
        if not self.has_penalty:
            self.anchor = {name: value.to(self.parameters[name]) for name, value in state["anchor"].items()}
        self.count = state["count"]

    def _scaled(self, importance: Weights) -> Weights:
        """Old importances that the old network has weights for, each tensor scaled to 0 ... 1."""
        chosen = {name: value for name, value in importance.items() if name in self.anchor}
        if not self.normalize:
            return chosen
        return {
            name: (value - value.min()) / (value.max() - value.min() + 1e-8) for name, value in chosen.items()
        }

    def _update_fisher(self, gradients: Weights) -> None:
        """F <- alpha g^2 + (1 - alpha) F."""
        fisher = self.running["fisher"]
        for name, gradient in gradients.items():
            fisher[name].mul_(1 - self.alpha).addcmul_(gradient, gradient, value=self.alpha)

    def _update_path(self, gradients: Weights) -> None:
        """delta <- delta + g (theta_before - theta); theta_before is the last iteration's."""
        for name, before in self.running["before"].items():
            weight = self.parameters[name].detach()
            if self.count and name in gradients:
                self.running["delta"][name].addcmul_(gradients[name], before - weight)
            before.copy_(weight)


class EWC(ImportanceRegularizer):
    """Importance: moving average of the squared gradients (it starts at 1)."""

    kinds = ("fisher",)

    def _start(self, start: Weights) -> dict[str, Weights]:
        return {"fisher": {name: torch.ones_like(value) for name, value in start.items()}}

    def _strength(self) -> Weights:
        return self._scaled(self.saved["fisher"])

    def _update(self, gradients: Weights) -> None:
        self._update_fisher(gradients)

    def trainer_state(self) -> dict[str, Weights]:
        """The moving average."""
        return {"fisher": self.running["fisher"]}


class PI(ImportanceRegularizer):
    """Importance: how much the losses fell along each entry's path, over its squared change; summed over steps."""

    kinds = ("score",)

    def _start(self, start: Weights) -> dict[str, Weights]:
        zeros = {name: torch.zeros_like(value) for name, value in start.items()}
        return {"delta": zeros, "before": {name: value.clone() for name, value in start.items()}}

    def _strength(self) -> Weights:
        return self._scaled(self.saved["score"])

    def _update(self, gradients: Weights) -> None:
        self._update_path(gradients)

    def trainer_state(self) -> dict[str, Weights]:
        """Scores; the change of a new parameter, which the old network lacks, is measured from 0."""
        old, scores = self.saved.get("score", {}), {}
        for name, delta in self.running["delta"].items():
            anchor = self.anchor.get(name, torch.zeros_like(delta))
            change = self.parameters[name].detach() - anchor
            scores[name] = (delta / (change.square() + 1e-20)).clamp(min=0) + old.get(name, 0.0)
        return {"score": scores}


class RW(ImportanceRegularizer):
    """Importance: moving average of the squared gradients plus path scores, taken every few iterations."""

    kinds = ("fisher", "score")

    def _start(self, start: Weights) -> dict[str, Weights]:
        def zeros() -> Weights:
            return {name: torch.zeros_like(value) for name, value in start.items()}

        return {
            "fisher": {name: torch.ones_like(value) for name, value in start.items()},
            "delta": zeros(),
            "score": zeros(),
            "before": {name: value.clone() for name, value in start.items()},
        }

    def _strength(self) -> Weights:
        fisher, score = self._scaled(self.saved["fisher"]), self._scaled(self.saved["score"])
        return {name: fisher[name] + score[name] for name in fisher}

    def _update(self, gradients: Weights) -> None:
        self._update_fisher(gradients)
        changes = {name: self.parameters[name].detach() - value for name, value in self.running["before"].items()}
        self._update_path(gradients)
        if self.count % self.every == 0:
            for name, delta in self.running["delta"].items():
                distance = 0.5 * self.running["fisher"][name] * changes[name].square() + 1e-8
                self.running["score"][name] += delta / distance
                delta.zero_()

    def trainer_state(self) -> dict[str, Weights]:
        """Both parts; scores are averaged with the earlier steps'."""
        old = self.saved.get("score", {})
        scores = {name: (value.clamp(min=0) + old.get(name, 0.0)) / 2 for name, value in self.running["score"].items()}
        return {"fisher": self.running["fisher"], "score": scores}


REGULARIZERS: dict[str, type[ImportanceRegularizer]] = {"ewc": EWC, "pi": PI, "rw": RW}
"""By the names of --regularizer; VDFD's is in segmentation/vdfd.py."""
