"""Speed of whole iterations of Ours-1 and Ours-2 (detached), as ratios against the release's literal steps.

    python -m benchmarks.lra                    # ResNet-34 to ResNet-18, batch 32, about 5 minutes on one CPU core
    python -m benchmarks.lra --student wrn-16-1 --teacher wrn-40-2 --batch_size 16
    python -m benchmarks.lra --save             # keeps the result for the README

Both ways run in the same process, in turns, with the same threads and the same noise; least processor seconds. An
iteration is one generator step, ten student steps with the novel images they need and, for Ours-2, four VAE steps; its
seconds are added up from those of the steps. That both do the same is a test (tests/benchmarks/test_literal_lra.py).
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adversarial_dfkd.evaluation import TestImages
from adversarial_dfkd.learner import AdversarialDistillation
from adversarial_dfkd.networks import build_memory_generator, build_novel_generator, build_student, build_teacher
from adversarial_dfkd.options import AGENTS, LRAOptions
from adversarial_dfkd.replay import VAE_STEPS, GenerativeReplay, MemoryBank
from benchmarks.literal_lra import LiteralIteration
from benchmarks.reporting import SaveOptions, report, start
from benchmarks.timing import fastest_in_turns
from common.training.options import parse_config
from common.training.precision import Precision
from common.training.run import Run
from repro.speed import Row

CPU = torch.device("cpu")
OURS = ("PREDFKDMemMetaAgent", "PREDFKDMetaAgent")


@dataclass(frozen=True)
class BenchmarkOptions(SaveOptions):
    """benchmark"""

    rounds: int = 3
    """timed rounds of each pair"""
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
def both(
    options: BenchmarkOptions, agent: str, noise: Callable[[int], Tensor]
) -> Iterator[tuple[AdversarialDistillation, LiteralIteration]]:
    """Our loop after its first iteration, with one batch in the bank, and the literal one, with equal weights.

    Args:
        options: sizes.
        agent: one of `OURS`.
        noise: latent vectors of our loop.
    """
    torch.manual_seed(0)
    shape = options.latent_dim, options.img_size, 3
    teacher, student = build_teacher(options.teacher, 10, 3).eval(), build_student(options.student, "cifar10", 10, 3)
    generator, vae = build_novel_generator(*shape), build_memory_generator(*shape)
    with tempfile.TemporaryDirectory() as folder:
        config = LRAOptions(
            agent=agent, batch_size=options.batch_size, latent_dim=options.latent_dim, output_dir=folder,
            img_size=options.img_size, log_meta_loss="never",
        )  # fmt: skip
        parts = (teacher, student, generator, *((None, None) if config.has_bank else vae))
        literal = LiteralIteration(
            *copy.deepcopy(parts), count=config.replayed_images, lr_student=config.lr_S, lr_generator=config.lr_G,
            rate=config.lr_S_in,
        )  # fmt: skip
        literal.student.train()
        teacher.requires_grad_(False)
        replay: MemoryBank | GenerativeReplay = MemoryBank(config.memory_capacity)
        if config.has_bank:
            replay.push(torch.randn(config.replayed_images, 3, options.img_size, options.img_size))
        else:
            replay = GenerativeReplay(
                *vae, teacher, count=config.replayed_images, lr=config.lr_G, weights=config.weights, noise=noise
            )
        test = TestImages(torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.int64), 1)
        precision = Precision(config, CPU)
        with Run(config, method=AGENTS[agent], paper="lra", device=CPU, seed=0, write_every=100, quiet=True) as run:
            loop = AdversarialDistillation(config, teacher, student, generator, replay, noise, test, precision, run)
            loop.iteration = 1
            yield loop, literal


def pairs_of_steps(
    loop: AdversarialDistillation, literal: LiteralIteration, z: Tensor
) -> dict[str, tuple[int, Callable[[], Any], Callable[[], Any]]]:
    """Name -> how often an iteration has the step, ours, the literal one; all on rows of `z` as latent vectors."""
    size, count = loop.config.batch_size, loop.config.replayed_images
    has_bank = isinstance(loop.replay, MemoryBank)
    replayed = loop.replay.batches[0] if has_bank else z[:count]

    def student_step() -> None:
        with torch.no_grad():
            images = loop.generate()
        loop.student_step(images)

    steps = {
        "generator step": (1, loop.generator_step, lambda: literal.generator_step(z[:size])),
        "student step": (loop.config.kd_iter, student_step, lambda: literal.student_step(z[:size], replayed)),
    }
    if not has_bank:
        images = torch.randn(size, 3, loop.config.img_size, loop.config.img_size)
        targets = loop.teacher(images)
        steps["VAE step"] = (
            VAE_STEPS, lambda: loop.memory_step(images, targets),
            lambda: literal.memory_step(images, z[:count], z[: size // 2 + count]),
        )  # fmt: skip
    return steps


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the table; returns the ratio of a whole iteration per method."""
    options = parse_config(BenchmarkOptions, argv, "iterations of Ours-1 and Ours-2 against the literal ones")
    torch.set_num_threads(options.threads)
    z = torch.randn(options.batch_size, options.latent_dim)
    begun, rows, ratios = start(), [], {}
    for agent in OURS:
        name, ours_total, literal_total = AGENTS[agent], 0.0, 0.0
        with both(options, agent, lambda count: z[:count].clone()) as (loop, literal):
            for step, (times, ours, slow) in pairs_of_steps(loop, literal, z).items():
                quick, long, ratio = fastest_in_turns(ours, slow, rounds=options.rounds, clock=time.process_time)
                rows.append(Row(f"{name}, {step}, {times} per iteration", quick, long, ratio))
                ours_total, literal_total = ours_total + times * quick, literal_total + times * long
        ratios[name] = literal_total / ours_total
        rows.append(Row(f"{name}, whole iteration", ours_total, literal_total, ratios[name]))
    report(
        "lra", "lra", options, begun, rows,
        title=f"{options.teacher} to {options.student}, batch {options.batch_size}, detached, float32",
        method=f"Least processor seconds of {options.rounds} rounds, in turns",
    )  # fmt: skip
    return ratios


if __name__ == "__main__":
    main()
