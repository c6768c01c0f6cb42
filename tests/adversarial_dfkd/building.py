"""Tiny networks and runs for the tests of this folder."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from adversarial_dfkd.evaluation import TestImages
from adversarial_dfkd.experiment import Noise
from adversarial_dfkd.learner import AdversarialDistillation
from adversarial_dfkd.networks import STUDENTS, build_memory_generator, build_novel_generator
from adversarial_dfkd.options import LRAOptions
from adversarial_dfkd.replay import GenerativeReplay, MemoryBank
from common.training.precision import Precision
from common.training.run import Run
from common.training.seeding import seed_everything

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "batch_size": 16, "latent_dim": 8, "img_size": 8, "max_epoch": 2, "iterations": 2, "kd_iter": 2, "seed": 3,
    "lr_S_in": 0.1,
}  # fmt: skip


@contextlib.contextmanager
def tiny_loop(folder: Path, agent: str, write_every: int = 1, **more: Any) -> Iterator[AdversarialDistillation]:
    """A seeded loop on WRN-10-1 and 8x8 images with random test images."""
    config = LRAOptions(**SMALL | {"agent": agent, "output_dir": str(folder)} | more)
    seed_everything(config.seed)
    teacher = STUDENTS["wrn-10-1"](10).eval().requires_grad_(False)
    images, labels = torch.randn(20, 3, 8, 8), torch.randint(0, 10, (20,))
    noise = Noise(config.latent_dim, CPU)
    shape = config.latent_dim, config.img_size, 3
    seed_everything(config.seed)
    generator = build_novel_generator(*shape)
    parts = build_memory_generator(*shape)  # for all agents: runs that are compared start from equal students
    replay: MemoryBank | GenerativeReplay = MemoryBank(config.memory_capacity)
    if not config.has_bank:
        replay = GenerativeReplay(
            *parts, teacher, count=config.replayed_images, lr=config.lr_G, weights=config.weights, noise=noise,
            clean_gradient=config.clean_vae_gradient,
        )  # fmt: skip
    student = STUDENTS["wrn-10-1"](10)
    random.seed(config.seed)
    with Run(
        config, method=agent, paper="lra", device=CPU, seed=config.seed, write_every=write_every, quiet=True
    ) as run:
        test = TestImages(images, labels, 8)
        yield AdversarialDistillation(
            config, teacher, student, generator, replay, noise, test, Precision(config, CPU), run
        )


def trained_weights(folder: Path, agent: str, **more: Any) -> dict[str, torch.Tensor]:
    """Weights of the student and of the generators after a whole tiny run."""
    with tiny_loop(folder, agent, **more) as loop:
        loop.fit()
        parts = {"student": loop.student, "generator": loop.generator}
        if isinstance(loop.replay, GenerativeReplay):
            parts |= {"decoder": loop.replay.generator, "encoder": loop.replay.encoder}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
