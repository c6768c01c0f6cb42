"""Speed of CuDFKD's two steps, as ratios against the literal loop of the release.

    python -m benchmarks.cudfkd               # WRN-40-2 to WRN-16-1, batch 32, about 2 minutes on one CPU core
    python -m benchmarks.cudfkd --fast        # our side with --fast (channels-last), against the same literal loop
    python -m benchmarks.cudfkd --save        # keeps the result for the README

Both ways run in the same process, in turns, with the same threads and the same noise; medians. That both do the same is
a test (tests/benchmarks/test_literal_cudfkd.py).
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from benchmarks.literal_cudfkd import LiteralCuDFKD
from benchmarks.reporting import SaveOptions, report, start
from benchmarks.timing import time_in_turns
from common.training.options import parse_config
from common.training.precision import Precision
from common.training.run import Run
from curriculum_dfkd.data import DATASETS
from curriculum_dfkd.evaluation import Evaluator
from curriculum_dfkd.factory import build_generator, build_objective, build_optimizer, build_synthesiser
from curriculum_dfkd.images import Normaliser
from curriculum_dfkd.learner import DataFreeDistillation
from curriculum_dfkd.networks import build_network
from curriculum_dfkd.options import DataFreeOptions, check
from curriculum_dfkd.synthesis.base import Networks
from curriculum_dfkd.training import cosine_rate
from repro.speed import Row

CPU = torch.device("cpu")


@dataclass(frozen=True)
class BenchmarkOptions(SaveOptions):
    """benchmark"""

    rounds: int = 5
    """timed rounds of each pair"""
    threads: int = 1
    """CPU threads"""
    batch_size: int = 32
    """images per step"""
    teacher: str = "wrn40_2"
    """network"""
    student: str = "wrn16_1"
    """network"""
    ngf: int = 64
    """width of the generator"""
    fast: bool = False
    """our side in channels-last layout"""


@contextlib.contextmanager
def both(options: BenchmarkOptions, adversarial: float) -> Iterator[tuple[DataFreeDistillation, LiteralCuDFKD]]:
    """Our loop and the literal one, with equal weights."""
    torch.manual_seed(0)
    spec = DATASETS["cifar10"].transform
    normalise = Normaliser(spec.mean, spec.std)
    config = check(DataFreeOptions(
        method="cudfkd", dataset="cifar10", batch_size=options.batch_size, ngf=options.ngf, adv=adversarial,
        adv_type="kl", lmda_ent=-20, oh=1, bn=1, T=20, lambda_0=2, kd_steps_interval="10",
    ))  # fmt: skip
    teacher, student = build_network(options.teacher, 10).eval(), build_network(options.student, 10)
    generator = build_generator(config, 3, 32)
    literal = LiteralCuDFKD(
        *(copy.deepcopy(part) for part in (teacher, student, generator)), normalise, adversarial=adversarial,
        temperature=config.T, threshold=config.lambda_0,
    )  # fmt: skip
    literal.generator.main = torch.nn.Sequential(*literal.generator.main)  # enlarging and convolution one by one
    if options.fast:
        for part in (teacher, student, generator):
            part.to(memory_format=torch.channels_last)
    teacher.requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        config = replace(config, output_dir=folder)
        with Run(config, method="CuDFKD", paper="cudfkd", device=CPU, seed=0, write_every=100, quiet=True) as run:
            networks = Networks(teacher, student, normalise, 10, 3, 32, Precision(config, CPU), CPU)
            yield (
                DataFreeDistillation(
                    student,
                    build_optimizer(config, student),
                    cosine_rate(config.lr, 1),
                    1,
                    Evaluator.__new__(Evaluator),
                    networks.precision,
                    run,
                    teacher=teacher,
                    synthesiser=build_synthesiser(config, networks, generator, None),
                    objective=build_objective(config),
                    rounds=1,
                    student_steps=10,
                ),
                literal,
            )


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the table; returns the ratios."""
    options = parse_config(BenchmarkOptions, argv, "CuDFKD against its literal loop")
    torch.set_num_threads(options.threads)
    begun, rows = start(), []
    pairs = {"student step": 0.0, "generator step, adv = 0": 0.0, "generator step, adv > 0": 1.0}
    for name, adversarial in pairs.items():
        with both(options, adversarial) as (loop, literal):
            z = torch.randn(options.batch_size, loop.synthesiser.generator.nz)
            if name == "student step":
                pair = loop.student_step, lambda literal=literal, z=z: literal.student_step(z)
            else:
                pair = loop.synthesiser.step, lambda literal=literal, z=z: literal.generator_step(z)
            rows.append(Row(name, *time_in_turns(*pair, rounds=options.rounds)))
    report(
        "cudfkd", "cudfkd", options, begun, rows,
        title=f"CuDFKD, {options.teacher} to {options.student}, batch {options.batch_size}, float32",
        method=f"Median wall seconds of {options.rounds} rounds, in turns",
    )  # fmt: skip
    return {row.what: row.ratio for row in rows}


if __name__ == "__main__":
    main()
