"""Speed of RFD's steps and of its generator step, as ratios against the literal way.

    python -m benchmarks.rfd                      # the published sizes: CIFAR-100, ResNet-32, batch 128; minutes
    python -m benchmarks.rfd --fast               # our side as --fast has it
    python -m benchmarks.rfd --fast --precision bf16    # and in lower precision: no longer the identical mathematics
    python -m benchmarks.rfd --blocks 2 --batch 32 --gen_width 16 --rounds 3
    python -m benchmarks.rfd --device cuda
    python -m benchmarks.rfd --save               # keeps the result for the README; so with --fast, beside it

Both ways run in the same process, in turns; the least seconds of each count, on a CPU the processor's seconds. Equality
of the two is a test (tests/benchmarks), not a matter of this program. The last row weighs the steps as a task of the
CIFAR-100 config with ten tasks has them: 5,000 generator steps, 160 epochs of 39 representation steps, 40 epochs of 39
finetuning steps.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.literal_rfd import LiteralStep, literal_generator_step
from benchmarks.reporting import SaveOptions, report, start
from benchmarks.timing import fastest_in_turns
from common.backbones.generators_dfcil import DFCILGenerator
from common.training.options import RunOptions, parse_config
from common.training.precision import Precision, set_backend_flags
from common.training.run import Run
from repro.speed import Row
from rfd.inversion import InversionRecipe
from rfd.learning.methods import RFD
from rfd.networks import IncrementalNetwork, build_backbone, build_generator
from rfd.recipe import Recipe

GENERATOR, LEARNING, DUMPING, FINETUNING = (
    "generator step",
    "representation step",
    "representation step, literal with dumping",
    "finetuning step",
)
STEPS_OF_A_TASK = {GENERATOR: 5000, LEARNING: 160 * 39, FINETUNING: 40 * 39}
EPOCHS, FINETUNING_EPOCHS = 200, 40


@dataclass(frozen=True)
class BenchmarkOptions(SaveOptions):
    """benchmark"""

    rounds: int = 5
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
    threads: int = 1
    """CPU threads"""
    device: str = "cpu"
    """cpu or cuda"""
    fast: bool = False
    """our side as --fast has it: merged doubling, folded norms, fused optimisers, channels-last layout, TF32"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """number format of our side's forward passes; the literal step is in fp32 whatever it is"""


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

    inversion = InversionRecipe(iterations=0, fast=options.fast)
    learner = RFD(
        Recipe(EPOCHS, finetuning_epochs=FINETUNING_EPOCHS, inversion=inversion, fast=options.fast),
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


def literal_step(learner: RFD, folder: Path | None = None) -> LiteralStep:
    """The literal step of a learner's current phase, on copies of its networks in the usual layout."""

    def plain(module: Any) -> Any:
        return copy.deepcopy(module).to(memory_format=torch.contiguous_format)

    assert learner.inversion is not None
    weights = learner.weights.clone() if learner.finetuning else None
    networks = plain(learner.network), plain(learner.teacher), plain(learner.inversion.generator)
    return LiteralStep(*networks, learner.factors(), folder, weights)


def measure(options: BenchmarkOptions) -> dict[str, tuple[float, float]]:
    """Seconds of a step, ours and literal, for every kind of step."""
    device, clock = torch.device(options.device), time.perf_counter if options.device == "cuda" else time.process_time
    set_backend_flags(options.fast)
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = RunOptions(output_dir=folder, fast=options.fast, precision=options.precision)
        with Run(config, method="RFD", paper="rfd", device=device, seed=0, quiet=True) as run:
            learner = build_learner(options, run, Precision(config, device))
            inversion = learner.inversion
            assert inversion is not None
            images = torch.randn(options.batch, 3, 32, 32, device=device)
            ours = images.to(memory_format=torch.channels_last) if options.fast else images
            target = options.classes + torch.arange(options.batch, device=device) % options.classes

            def compare(name: str, step: Callable[[], Any], literal: Callable[[], Any]) -> None:
                pair = repeated(options, step), repeated(options, literal)
                quick, slow, _ = fastest_in_turns(*pair, rounds=options.rounds, clock=clock)
                found[name] = quick / options.steps, slow / options.steps

            def noise() -> torch.Tensor:  # as the original draws it
                return torch.randn(options.batch, inversion.generator.latent).to(device)

            other = literal_step(learner)
            adam = torch.optim.Adam(other.generator.parameters(), lr=0.001, foreach=False)
            compare(
                GENERATOR,
                lambda: inversion.train_step(inversion.draw_noise(options.batch)),
                lambda: literal_generator_step(other.generator, other.teacher, adam, noise()),
            )
            for name, epoch, dump in (
                (LEARNING, 0, None), (DUMPING, 0, Path(folder)), (FINETUNING, EPOCHS - FINETUNING_EPOCHS, None),
            ):  # fmt: skip
                learner.epoch = epoch
                learner.begin_epoch()
                literal = literal_step(learner, dump)
                compare(
                    name,
                    lambda: learner.train_step(ours, target),
                    lambda literal=literal: literal(images, target, noise()),
                )
    return found


def repeated(options: BenchmarkOptions, step: Callable[[], Any]) -> Callable[[], None]:
    """Some steps, and the wait for their end."""

    def several() -> None:
        for _ in range(options.steps):
            step()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return several


def rows_of(found: dict[str, tuple[float, float]]) -> list[Row]:
    """The measurements, and their sum over a task."""
    quick, slow = (sum(count * found[name][side] for name, count in STEPS_OF_A_TASK.items()) for side in (0, 1))
    counts = ", ".join(f"{count:,} {name}s" for name, count in STEPS_OF_A_TASK.items())
    pairs = {**found, f"all steps of a task: {counts}": (quick, slow)}
    return [Row(name, ours, literal, literal / ours) for name, (ours, literal) in pairs.items()]


def number_format(options: BenchmarkOptions) -> str:
    """What the two sides compute in."""
    if options.precision != "fp32":
        return f"ours in {options.precision} (torch.amp), the literal step in float32: not identical mathematics"
    return "TF32 where the device has it" if options.fast else "float32"


def main(argv: list[str] | None = None) -> None:
    """Measure everything, print one table, keep it if asked."""
    options = parse_config(BenchmarkOptions, argv, __doc__.splitlines()[0])
    torch.set_num_threads(options.threads)
    begun = start()
    with contextlib.redirect_stderr(io.StringIO()):
        found = measure(options)
    clock = "wall" if options.device == "cuda" else "processor"
    report(
        "rfd", "rfd", options, begun, rows_of(found), device=options.device,
        title=f"RFD, ResNet-{6 * options.blocks + 2}, batch {options.batch}, {options.classes} old and "
        f"{options.classes} new classes, {number_format(options)}",
        method=f"Least {clock} seconds of {options.rounds} rounds, in turns",
    )  # fmt: skip


if __name__ == "__main__":
    main()
