"""CMI: contrastive model inversion. Every call trains a fresh generator for one batch that differs from earlier ones.

Source: zju-vipa/CMI@9e79fa9 datafree/synthesis/contrastive.py `CMISynthesizer`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.backbones.generators_cmi import ImageGenerator, redraw_generator
from common.losses.inversion import BatchNormTaps, batch_norm_distance
from curriculum_dfkd.synthesis.base import Networks, Report, Synthesiser, frozen, weighted_sum
from curriculum_dfkd.synthesis.contrast import (
    ContrastiveHead,
    FeatureBank,
    contrastive_loss,
    draw_views,
    resample,
)
from curriculum_dfkd.synthesis.generative import decision_adversarial_loss
from curriculum_dfkd.synthesis.pool import ImagePool

BETAS = (0.5, 0.999)
"""Of Adam for generator and noise; the head's Adam has torch's defaults."""


class Inspector:
    """Runs the teacher and takes per-channel spatial means of inner maps as features of an image.

    Which maps: the inputs of the four stages of a ResNet-34 for CIFAR, the inputs of all norm layers of any other
    network; of a network without norm layers (not in the original) the outputs of its stages.

    Args:
        teacher: the network.
        by_stages: take the inputs of `layer1` to `layer4`.
    """

    def __init__(self, teacher: nn.Module, by_stages: bool) -> None:
        self.teacher, self.by_stages = teacher, by_stages
        self.taps = BatchNormTaps(teacher)

    def __call__(self, images: Tensor, distances: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, K), features (B, D) and, if asked for, the summed distance of norm statistics ()."""
        found: list[Tensor] = []
        measured: list[Tensor] = []

        def measure(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
            if not self.by_stages:
                found.append(x.float().mean(dim=(2, 3)))
            if distances:
                measured.append(batch_norm_distance(x.float(), layer.running_mean, layer.running_var))
            return x.new_zeros(())

        handles = []
        if self.by_stages:
            stages = (getattr(self.teacher, f"layer{number}") for number in range(1, 5))
            handles = [stage.register_forward_pre_hook(lambda _, x: found.append(x[0].float().mean(dim=(2, 3))))
                       for stage in stages]
        try:
            with self.taps.listening(measure):
                maps = self.teacher.stages(images)
                logits = self.teacher.classify(maps[-1]).float()
        finally:
            for handle in handles:
                handle.remove()
        if not found:
            found = [x.float().mean(dim=(2, 3)) if x.dim() == 4 else x.float() for x in maps]
        return logits, torch.cat(found, dim=1), sum(measured, start=logits.new_zeros(()))

    def width(self, networks: Networks) -> int:
        """D, from one black image."""
        with torch.no_grad():
            image = torch.zeros(1, networks.channels, networks.img_size, networks.img_size, device=networks.device)
            return self(image, distances=False)[1].shape[1]


def uses_stage_inputs(teacher_name: str) -> bool:
    """Whether CMI takes a teacher's features at its stages (as released, for this one name only)."""
    return teacher_name == "resnet34"


class ContrastiveInversion(Synthesiser):
    """CMI's synthesiser.

    Args:
        networks: teacher, student and how they see images.
        generator: fresh weights are drawn for it at every call.
        pool: where the best images of a call go.
        bank: features of earlier images.
        head: projection of features; learns over all calls.
        inspector: of the teacher.
        lr: of both Adams.
        steps: updates per call.
        batch: images per call.
        weights: "cr", "bn", "oh", "adv", in this order.
        temperature: of the contrastive loss.
        negatives: rows of the bank per step.
    """

    def __init__(
        self, networks: Networks, generator: ImageGenerator, pool: ImagePool, bank: FeatureBank, head: ContrastiveHead,
        inspector: Inspector, *, lr: float, steps: int, batch: int, weights: dict[str, float], temperature: float,
        negatives: int,
    ) -> None:
        self.networks, self.generator, self.pool, self.bank, self.head = networks, generator, pool, bank, head
        self.inspector, self.lr, self.steps, self.batch = inspector, lr, steps, batch
        self.weights, self.temperature, self.negatives = dict(weights), temperature, negatives
        self.head_optimizer = torch.optim.Adam(head.parameters(), lr=lr)
        self.draw_views = draw_views
        self.restart(torch.zeros(0, generator.nz), torch.zeros(0, dtype=torch.int64))

    # --- the algorithm ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Fresh generator, noise and labels."""
        networks = self.networks
        redraw_generator(self.generator)  # rng: weights
        z = networks.noise(self.batch, self.generator.nz, networks.device)  # rng: noise
        labels = torch.randint(0, networks.num_classes, (self.batch,), device=networks.device)  # rng: labels
        self.restart(z, labels.sort().values)

    def step(self) -> Report:
        """One update of generator, noise and head."""
        networks, size = self.networks, self.networks.img_size
        self.generator.train()
        networks.student.eval()
        with frozen(networks.student):
            with networks.precision.autocast():
                made = self.generator(self.z)
            made = made.float()
            views = self.draw_views(self.batch, size, networks.device)  # rng: views
            wide = networks.normalise(resample(made, views.wide))
            local = networks.normalise(resample(made, views.local))
            with networks.precision.autocast():
                logits, wide_features, distance = self.inspector(wide, distances=True)
                _, local_features, _ = self.inspector(local, distances=False)
            indices = self.bank.draw(self.negatives)  # rng: Python's generator
            contrast = contrastive_loss(
                self.head, local_features, wide_features, self.bank.read(indices), self.temperature
            )
            terms = {"bn": distance, "oh": F.cross_entropy(logits, self.labels), "adv": logits.new_zeros(())}
            if self.weights["adv"] != 0:
                with networks.precision.autocast():
                    student = networks.student(wide).float()
                terms["adv"] = decision_adversarial_loss(student, logits, temperature=1.0)
            terms["cr"] = contrast.loss
            loss = weighted_sum(self.weights, terms)
            self._keep_best(loss.detach(), made.detach(), torch.cat([local_features, wide_features], dim=1).detach())
            optimizers = [self.optimizer, self.head_optimizer] if self.weights["cr"] != 0 else [self.optimizer]
            for optimizer in optimizers:
                optimizer.zero_grad()
            networks.precision.backward(loss, optimizers)
        for optimizer in optimizers:
            networks.precision.step(optimizer)
        networks.precision.update()
        report = {name: value.detach() for name, value in terms.items()} | {"loss": loss.detach()}
        features = {"local": local_features.detach(), "wide": wide_features.detach()}
        return Report(report, logits.detach(), made.detach(), features)

    def finish(self) -> None:
        """Best images to the pool, their features to the bank."""
        self.newest = self.best_images
        self.pool.add(self.best_images)
        self.bank.add(self.best_features)

    def training_images(self) -> Tensor:
        """The next batch of the pool."""
        return self.pool.next_batch()

    # --- inside -------------------------------------------------------------------------------------------------

    def _keep_best(self, loss: Tensor, images: Tensor, features: Tensor) -> None:
        """Images and features of the smallest loss so far, without waiting for the device.

        # original: in the one call whose reads find the bank at its exact fill the loss is NaN, no later iterate is
        # smaller, and the first one is kept (D6)
        """
        if self.best_images is None:
            self.best_images, self.best_features, self.best_loss = images, features, loss
            return
        if self.bank.additions and not self.bank.available():
            return
        is_better = loss < self.best_loss
        self.best_loss = torch.where(is_better, loss, self.best_loss)
        self.best_images = torch.where(is_better, images, self.best_images)
        self.best_features = torch.where(is_better, features, self.best_features)

    def restart(self, z: Tensor, labels: Tensor) -> None:
        """Open a call at given noise and labels, with the generator as it is."""
        self.z, self.labels = z.clone().requires_grad_(), labels
        self.optimizer = torch.optim.Adam([*self.generator.parameters(), self.z], lr=self.lr, betas=BETAS)
        self.best_images: Tensor | None = None
        self.best_features: Tensor | None = None
        self.best_loss: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Generator, noise, head and their optimisers; best so far; pool and bank."""
        return {
            "generator": self.generator.state_dict(), "z": self.z.detach(), "labels": self.labels,
            "optimizer": self.optimizer.state_dict(), "head": self.head.state_dict(),
            "head_optimizer": self.head_optimizer.state_dict(),
            "best": [self.best_images, self.best_features, self.best_loss],
            "pool": self.pool.state_dict(), "bank": self.bank.state_dict(), "newest": self.newest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        device = self.networks.device
        self.generator.load_state_dict(state["generator"])
        self.restart(state["z"].to(device), state["labels"].to(device))
        self.optimizer.load_state_dict(state["optimizer"])
        self.head.load_state_dict(state["head"])
        self.head_optimizer.load_state_dict(state["head_optimizer"])
        best = [None if part is None else part.to(device) for part in state["best"]]
        self.best_images, self.best_features, self.best_loss = best
        self.pool.load_state_dict(state["pool"])
        self.bank.load_state_dict(state["bank"])
        self.newest = state["newest"]
