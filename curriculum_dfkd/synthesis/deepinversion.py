"""DeepInversion, with competition (ADI) or without: images are optimised directly.

Source: zju-vipa/CMI@9e79fa9 datafree/synthesis/deepinversion.py `DeepInvSyntheiszer`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses.distillation import clamped_jensen_shannon
from common.losses.inversion import BatchNormTaps, total_variation
from curriculum_dfkd.images import draw_jitter, jitter
from curriculum_dfkd.synthesis.base import Networks, Report, Synthesiser, frozen, weighted_sum
from curriculum_dfkd.synthesis.pool import ImagePool

BETAS = (0.5, 0.99)
TEMPERATURE = 3.0
"""Of the competition term."""


class DeepInversion(Synthesiser):
    """Every call optimises a fresh batch of images and adds it to the pool.

    Args:
        networks: teacher, student and how they see images.
        pool: where finished images go.
        lr: of Adam.
        steps: image updates per call.
        batch: images per call.
        weights: "bn", "oh", "adv", "tv", "l2".
        keep: "last" iterate, as released (its record of the best one aliases the tensor being optimised), or the
            "best" one by loss.
        all_terms: compute terms of weight 0 too (for logs).
    """

    def __init__(
        self, networks: Networks, pool: ImagePool, *, lr: float, steps: int, batch: int, weights: dict[str, float],
        keep: str = "last", all_terms: bool = False,
    ) -> None:
        self.networks, self.pool = networks, pool
        self.lr, self.steps, self.batch = lr, steps, batch
        self.weights, self.keep, self.all_terms = dict(weights), keep, all_terms
        self.taps = BatchNormTaps(networks.teacher)
        self.restart(torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    # --- the algorithm ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Draw starting images and labels."""
        networks = self.networks
        shape = (self.batch, networks.channels, networks.img_size, networks.img_size)
        start = torch.randn(shape, device=networks.device)  # rng: images
        labels = torch.randint(0, networks.num_classes, (self.batch,), device=networks.device)  # rng: labels
        self.restart(start, labels.sort().values)

    def step(self) -> Report:
        """One update of the images under one random jitter."""
        networks, x = self.networks, self.x
        networks.student.eval()
        with frozen(networks.student):
            seen = jitter(x, *draw_jitter(*x.shape[2:]))  # rng: Python's generator
            with networks.precision.autocast(), self.taps.distances() as distances:
                logits = networks.teacher(seen)
            logits = logits.float()
            terms = {"bn": sum(distances, start=logits.new_zeros(())), "oh": F.cross_entropy(logits, self.labels)}
            terms["adv"] = self._competition(seen, logits) if self.weights["adv"] != 0 else logits.new_zeros(())
            terms["tv"] = total_variation(x)
            if self.all_terms or self.weights["l2"] != 0:
                terms["l2"] = torch.linalg.vector_norm(x)
            loss = weighted_sum(self.weights, terms)
            self.optimizer.zero_grad()
            networks.precision.backward(loss, [self.optimizer])
        if self.keep == "best":
            is_better = loss.detach() < self.best_loss
            self.best_loss = torch.where(is_better, loss.detach(), self.best_loss)
            self.best = torch.where(is_better, x.detach(), self.best)
        networks.precision.step(self.optimizer)
        networks.precision.update()
        with torch.no_grad():
            x.copy_(networks.normalise.clip(x))
        report = {name: value.detach() for name, value in terms.items()} | {"loss": loss.detach()}
        return Report(report, logits.detach(), x.detach())

    def finish(self) -> None:
        """Hand the images to the pool."""
        self.newest = self.networks.normalise.reverse(self.x.detach() if self.keep == "last" else self.best)
        self.pool.add(self.newest)

    def training_images(self) -> Tensor:
        """The next batch of the pool."""
        return self.pool.next_batch()

    # --- inside -------------------------------------------------------------------------------------------------

    def _competition(self, images: Tensor, logits: Tensor) -> Tensor:
        with self.networks.precision.autocast():
            student = self.networks.student(images)
        return -clamped_jensen_shannon(student.float(), logits, TEMPERATURE)

    def restart(self, start: Tensor, labels: Tensor) -> None:
        """Open a call at given images and labels."""
        self.x, self.labels = start.clone().requires_grad_(), labels
        self.optimizer = torch.optim.Adam([self.x], lr=self.lr, betas=BETAS)
        self.best, self.best_loss = start.clone(), torch.full((), float("inf"), device=start.device)

    def state_dict(self) -> dict[str, Any]:
        """The images under way and the pool."""
        return {
            "x": self.x.detach(), "labels": self.labels, "optimizer": self.optimizer.state_dict(), "best": self.best,
            "best_loss": self.best_loss, "pool": self.pool.state_dict(), "newest": self.newest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        device = self.networks.device
        self.restart(state["x"].to(device), state["labels"].to(device))
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_loss = state["best"].to(device), state["best_loss"].to(device)
        self.pool.load_state_dict(state["pool"])
        self.newest = state["newest"]
