"""Speed of Ours-2's student step (detached), as a ratio against the literal step of the release.

    python -m benchmarks.lra                    # ResNet-34 to ResNet-18, batch 32, about 3 minutes on one CPU core
    python -m benchmarks.lra --student wrn-16-1 --teacher wrn-40-2 --batch_size 16

Both ways run in the same process, in turns, with the same threads and the same noise; medians. That both do the same is
a test (tests/benchmarks/test_literal_lra.py).
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from adversarial_dfkd.evaluation import TestImages
from adversarial_dfkd.learner import MOMENTUM, AdversarialDistillation
from adversarial_dfkd.meta import WEIGHT_DECAY
from adversarial_dfkd.networks import build_memory_generator, build_novel_generator, build_student, build_teacher
from adversarial_dfkd.options import LRAOptions
from adversarial_dfkd.replay import GenerativeReplay
from benchmarks.literal_lra import LiteralStudentStep
from benchmarks.timing import time_in_turns
from common.training.options import parse_config
from common.training.precision import Precision
from common.training.run import Run

CPU = torch.device("cpu")


@dataclass(frozen=True)
class BenchmarkOptions:
    """benchmark"""

    rounds: int = 5
    """timed rounds"""
    threads: int = 1
    """CPU threads"""
    batch_size: int = 32
    """novel images per step"""
    teacher: str = "resnet34"
    """network"""
    student: str = "resnet18"
    """network"""
    latent_dim: int = 1000
    """length of a latent vector"""
    img_size: int = 32
    """pixels a side"""


@contextlib.contextmanager
def both(options: BenchmarkOptions, z: Tensor) -> Iterator[tuple[AdversarialDistillation, LiteralStudentStep]]:
    """Our loop and the literal step, with equal weights; every draw of our loop is `z`."""
    torch.manual_seed(0)
    shape = options.latent_dim, options.img_size, 3
    teacher, student = build_teacher(options.teacher, 10, 3).eval(), build_student(options.student, "cifar10", 10, 3)
    decoder, encoder = build_memory_generator(*shape)
    own = [copy.deepcopy(part) for part in (student, teacher, decoder)]
    with tempfile.TemporaryDirectory() as folder:
        config = LRAOptions(
            agent="PREDFKDMetaAgent", batch_size=options.batch_size, latent_dim=options.latent_dim, output_dir=folder,
            img_size=options.img_size, log_meta_loss="never",
        )  # fmt: skip
        optimizer = torch.optim.SGD(own[0].parameters(), lr=config.lr_S, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        literal = LiteralStudentStep(
            *own, optimizer, count=config.replayed_images, lr=config.lr_G, rate=config.lr_S_in
        )
        teacher.requires_grad_(False)

        def noise(count: int) -> Tensor:
            return z[:count].clone()

        replay = GenerativeReplay(
            decoder, encoder, teacher, count=config.replayed_images, lr=config.lr_G, weights=config.weights, noise=noise
        )
        test = TestImages(torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.int64), 1)
        with Run(config, method="Ours-2", paper="lra", device=CPU, seed=0, write_every=100, quiet=True) as run:
            yield (
                AdversarialDistillation(
                    config, teacher, student, build_novel_generator(*shape), replay, noise, test,
                    Precision(config, CPU), run,
                ),
                literal,
            )  # fmt: skip


def main(argv: list[str] | None = None) -> float:
    """Print the table; returns the ratio."""
    options = parse_config(BenchmarkOptions, argv, "Ours-2 against its literal step")
    torch.set_num_threads(options.threads)
    images = torch.randn(options.batch_size, 3, options.img_size, options.img_size)
    z = torch.randn(options.batch_size, options.latent_dim)
    with both(options, z) as (loop, literal):
        ours, slow, ratio = time_in_turns(
            lambda: loop.student_step(images), lambda: literal(images, z[: literal.count]), rounds=options.rounds
        )
    table = Table(title=f"Ours-2, {options.teacher} to {options.student}, batch {options.batch_size}")
    for heading in ("step", "ours, s", "literal, s", "literal / ours"):
        table.add_column(heading)
    table.add_row("student step, detached", f"{ours:.3f}", f"{slow:.3f}", f"{ratio:.2f}")
    Console().print(table)
    return ratio


if __name__ == "__main__":
    main()
