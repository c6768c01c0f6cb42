"""Speed of RFD's representation step and generator step, as ratios against the literal way.

    python -m benchmarks.rfd                                         # the published sizes; minutes on two CPU cores
    python -m benchmarks.rfd --blocks 2 --batch 32 --gen_width 16 --rounds 3
    python -m benchmarks.rfd --device cuda

Both ways run in the same process, in turns; medians. Equality of the two is a test (tests/benchmarks), not a matter of
this program. Noise and images are the same for both.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.literal_rfd import LiteralStep, literal_generator_step
from benchmarks.timing import time_in_turns
from common.backbones.generators_dfcil import DFCILGenerator
from common.training.options import RunOptions, parse_config
from common.training.precision import Precision, set_backend_flags
from common.training.run import Run
from rfd.inversion import InversionRecipe
from rfd.learning.methods import RFD
from rfd.networks import IncrementalNetwork, build_backbone, build_generator
from rfd.recipe import Recipe


@dataclass(frozen=True)
class BenchmarkOptions:
    """benchmark"""

    rounds: int = 3
    """timed rounds of each pair"""
    steps: int = 1
    """steps per timed round"""
    batch: int = 128
    """images per batch"""
    blocks: int = 5
    """n of the CIFAR network"""
    width: int = 16
    """channels of its first stage"""
    gen_width: int = 128
    """channels of the generator's first maps"""
    classes: int = 10
    """classes of the old and of the new task, each"""
    threads: int = 2
    """CPU threads"""
    device: str = "cpu"
    """cpu or cuda"""
    fast: bool = False
    """our side as --fast has it: merged doubling, folded norms, channels-last layout, TF32"""


class TwoTasks:
    """Two equal tasks without images; what a learner asks of its data."""

    def __init__(self, classes: int) -> None:
        self.sizes, self.boundaries = [classes, classes], (0, classes, 2 * classes)

    def train_loader(self, task: int) -> None:
        return None

    joint_loader = test_loader = train_loader


def build_learner(options: BenchmarkOptions, run: Run, precision: Precision) -> RFD:
    """A learner in the representation phase of its second task."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    layout = torch.channels_last if options.fast else torch.contiguous_format
    network = IncrementalNetwork(build_backbone("cifar100", options.blocks, options.width))
    network.add_tasks([options.classes])

    def make_generator() -> DFCILGenerator:
        generator = build_generator(32, 1000, options.gen_width)
        generator.merges_doubling = options.fast
        return generator.to(device, memory_format=layout)

    learner = RFD(
        Recipe(epochs=200, finetuning_epochs=40, inversion=InversionRecipe(iterations=0), fast=options.fast),
        network.to(device, memory_format=layout),
        TwoTasks(options.classes),
        run,
        precision,
        make_generator=make_generator,
        batch_size=options.batch,
    )
    learner.start_task(2)
    learner.begin_epoch()
    return learner


def measure(options: BenchmarkOptions, table: Table) -> None:
    """The generator step, then the step without and with dumping on the literal side."""
    device = torch.device(options.device)
    set_backend_flags(options.fast)
    with tempfile.TemporaryDirectory() as folder:
        config = RunOptions(output_dir=folder, fast=options.fast)
        with Run(config, method="RFD", paper="rfd", device=device, seed=0, quiet=True) as run:
            learner = build_learner(options, run, Precision(config, device))
            inversion, teacher = learner.inversion, learner.teacher
            assert inversion is not None and teacher is not None
            images = torch.randn(options.batch, 3, 32, 32, device=device)
            target = options.classes + torch.arange(options.batch, device=device) % options.classes
            noise = inversion.draw_noise(options.batch)

            generator = copy.deepcopy(inversion.generator)
            generator.merges_doubling = False
            adam = torch.optim.Adam(generator.parameters(), lr=0.001, foreach=False)

            def ours_generates() -> None:
                repeated(options, lambda: inversion.train_step(noise))

            def literal_generates() -> None:
                repeated(options, lambda: literal_generator_step(generator, teacher, adam, noise))

            add_row(table, "generator step", *time_in_turns(ours_generates, literal_generates, rounds=options.rounds))
            for name, dump in (("representation step", None), ("the same, literal with dumping", Path(folder))):
                literal = LiteralStep(copy.deepcopy(learner.network), teacher, generator, learner.factors(), dump)

                def ours_learns() -> None:
                    repeated(options, lambda: learner.train_step(images, target, inversion.sample(noise)))

                def literal_learns(literal: LiteralStep = literal) -> None:
                    repeated(options, lambda: literal(images, target, noise))

                add_row(table, name, *time_in_turns(ours_learns, literal_learns, rounds=options.rounds))


def repeated(options: BenchmarkOptions, step: object) -> None:
    """Some steps, and the wait for their end."""
    for _ in range(options.steps):
        step()  # type: ignore[operator]
    if options.device == "cuda":
        torch.cuda.synchronize()


def add_row(table: Table, what: str, ours: float, literal: float, ratio: float) -> None:
    """One measurement."""
    table.add_row(what, f"{ours:.4f}", f"{literal:.4f}", f"{ratio:.2f}")


def main(argv: list[str] | None = None) -> None:
    """Measure everything and print one table."""
    options = parse_config(BenchmarkOptions, argv, __doc__.splitlines()[0])
    torch.set_num_threads(options.threads)
    table = Table(
        "what", "ours, s", "literal, s", "literal / ours", title=f"RFD, batch {options.batch}, {options.device}"
    )
    with contextlib.redirect_stderr(io.StringIO()):
        measure(options, table)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
