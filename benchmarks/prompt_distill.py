"""Speed of a CDL-Prompt batch against the literal step: ViT-S to ViT-Ti, batch 4, one CPU thread, random weights.

    python -m benchmarks.prompt_distill           # minutes on one CPU core
    python -m benchmarks.prompt_distill --save    # keeps the result for the README

Literal is what the original does: weight gradients of the frozen backbones, explicit attention, teacher and student
each computing the query, and the token-cosine matrices that nothing uses. The mathematics of both is the same; they are
timed in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.reporting import SaveOptions, report, start
from common.training.options import parse_config
from prompt_distill.building import Pair, build_pair
from prompt_distill.configuration import check
from prompt_distill.learner import PromptLearner
from prompt_distill.losses import current_cross_entropy
from prompt_distill.network import Extras, Output
from prompt_distill.options import PromptDistillOptions
from prompt_distill.schedule import make_optimizer
from prompt_distill.vit import ViTSize, build_vit, query_of
from repro.speed import Row

TEACHER, STUDENT = ViTSize(384, 12, 6), ViTSize(192, 12, 3)
CLASSES, TASKS, OLD, SEEN = 100, 10, 0, 10


@dataclass(frozen=True)
class BenchmarkOptions(SaveOptions):
    """benchmark"""

    rounds: int = 7
    """timed rounds; the median counts"""
    batch: int = 4
    """images per step"""
    threads: int = 1
    """CPU threads"""


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax of the scaled products, all of them in memory."""
    return ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v


def cosine_matrices(out: Output) -> list[Tensor]:
    """What the original computes of every block for a loss that it drops."""
    return [F.normalize(tokens, dim=-1) @ F.normalize(tokens, dim=-1).transpose(1, 2) for tokens in out.blocks]


class LiteralStep:
    """The original's teacher and student steps."""

    def __init__(self, pair: Pair, alpha: float, temperature: float) -> None:
        self.pair = pair
        for network in (pair.teacher, pair.student):
            network.feat.requires_grad_(True)
        self.of_teacher = make_optimizer("Adam", pair.teacher.trainable(), 1e-3, 0.9, 0.0)
        parameters = [*pair.student.trainable(), *pair.distillation.trainable()]
        self.of_student = make_optimizer("Adam", parameters, 1e-3, 0.9, 0.0)

    def teacher(self, images: Tensor, target: Tensor) -> Output:
        """One step; the backbone's weights get gradients that nobody uses."""
        query = query_of(self.pair.student.feat, images)
        out = self.pair.teacher(images, query, True, Extras(keep_blocks=True))
        cosine_matrices(out)
        self.of_teacher.zero_grad()
        (current_cross_entropy(out.logits, target, OLD, SEEN) + out.prompt_loss).backward()
        self.of_teacher.step()
        return out

    def student(self, images: Tensor, target: Tensor, taught: Output) -> None:
        """One step after a teacher's pass."""
        distillation = self.pair.distillation
        query = query_of(self.pair.student.feat, images)
        prefixes = {layer: type(p)(*(part.detach() for part in p)) for layer, p in taught.prefixes.items()}
        extras = replace(distillation.extras(len(images), prefixes), keep_blocks=True)
        out = self.pair.student(images, query, True, extras)
        cosine_matrices(out)
        constant = replace(taught, logits=taught.logits.detach())
        terms = distillation.terms(out, constant, target, slice(OLD, SEEN))
        ce = distillation.cross_entropy_weight * current_cross_entropy(out.logits, target, OLD, SEEN)
        self.of_student.zero_grad()
        (ce + out.prompt_loss + terms.soft).backward()
        self.of_student.step()


class _NoRun:
    """Stands for the run directory: nothing is logged or saved."""

    step = 0

    def register(self, name: str, part: object) -> None:
        """Nothing."""

    def log(self, **terms: object) -> None:
        """Nothing."""


class _NoData:
    tasks = [list(range(start, start + 10)) for start in range(0, CLASSES, 10)]


def measure(rounds: int, batch: int, side: int) -> dict[str, float]:
    """Median seconds of each step, literal and ours in turns."""
    torch.manual_seed(0)
    config = PromptDistillOptions(learner_name="CODAPrompt", prompt_param=[100, 8, 0.0])
    sizes = {"teacher": TEACHER, "student": STUDENT}

    def pair() -> Pair:
        vits = build_vit(STUDENT), build_vit(TEACHER)
        return build_pair(config, check(config), *vits, sizes, CLASSES, TASKS)

    literal = LiteralStep(pair(), config.kd_alpha, config.Soft_T)
    own = pair()
    learner = PromptLearner(config, own.student, own.teacher, own.distillation, _NoData(), _NoRun())
    learner.task = 1
    learner.make_optimizers()
    images, target = torch.rand(batch, 3, side, side), torch.arange(batch) % SEEN
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds + 1):
        fused, F.scaled_dot_product_attention = F.scaled_dot_product_attention, explicit_attention
        try:
            taught = _timed(seconds, "literal teacher", lambda: literal.teacher(images, target))
            _timed(seconds, "literal student", lambda taught=taught: literal.student(images, target, taught))
        finally:
            F.scaled_dot_product_attention = fused
        query = _timed(seconds, "our query", lambda: learner.query(images))
        taught = _timed(seconds, "our teacher", lambda query=query: learner.teacher_step(images, target, query))
        _timed(
            seconds,
            "our student",
            lambda query=query, taught=taught: learner.student_step(images, target, query, taught),
        )
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first round warms up


def _timed(seconds: dict[str, list[float]], name: str, work: Callable[[], object]) -> object:
    begin = time.perf_counter()
    result = work()
    seconds.setdefault(name, []).append(time.perf_counter() - begin)
    return result


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Print the table; returns the ratios."""
    options = parse_config(BenchmarkOptions, argv, __doc__.splitlines()[0])
    torch.set_num_threads(options.threads)
    begun = start()
    times = measure(options.rounds, options.batch, TEACHER.image)
    query = times["our query"]
    pairs = {
        "teacher step with its query": (query + times["our teacher"], times["literal teacher"]),
        "student step, query already there": (times["our student"], times["literal student"]),
    }
    pairs["whole batch"] = tuple(map(sum, zip(*pairs.values(), strict=True)))
    rows = [Row(name, ours, literal, literal / ours) for name, (ours, literal) in pairs.items()]
    report(
        "prompt_distill", "prompt_distill", options, begun, rows,
        title=f"CODA-Prompt with CDL-Prompt, ViT-S to ViT-Ti, {TEACHER.image} pixels, batch {options.batch}, float32",
        method=f"Median wall seconds of {options.rounds} rounds, in turns",
    )  # fmt: skip
    return {row.what: row.ratio for row in rows}


if __name__ == "__main__":
    main()
