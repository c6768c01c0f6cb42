"""Speed of VDFD's step in both settings, its importance pass and its data path, as ratios against the literal way.

    python -m benchmarks.vdfd                 # about 5 minutes on two CPU cores
    python -m benchmarks.vdfd --rounds 2 --old_tasks 1 9
    python -m benchmarks.vdfd --save          # keeps the result for the README

ResNet-18 (11.2 M parameters), 32x32 images, batch 16, CPU, float32; the importance also with ours in bf16. Both ways
run in the same process, in turns, with the same threads; medians. Equality of the two is a test (tests/benchmarks),
not a matter of this program.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.literal_vdfd import literal_class_regulariser, literal_importance, literal_regulariser
from benchmarks.reporting import SaveOptions, report, start
from benchmarks.timing import time_in_turns
from classification.class_incremental.options import ClassIncrementalOptions
from classification.task_incremental.options import TaskIncrementalOptions
from classification.vdfd.importance import class_gradients
from classification.vdfd.losses import local_cross_entropy
from classification.vdfd.optimization import parameter_groups
from classification.vdfd.setting import ClassIncremental, TaskIncremental
from classification.vdfd.variant import CLASS_INCREMENTAL_CODE, TASK_INCREMENTAL_CODE
from classification.vdfd.vdfd_learner import VDFD
from common.backbones.registry import build_backbone
from common.continual.compression import draw_start, low_rank_factors
from common.data.datasets import open_dataset
from common.data.loader import make_loader
from common.data.transforms import TRANSFORMS
from common.training.options import parse_config
from common.training.run import Run
from repro.speed import Row

BATCH, CLASSES, TASKS = 16, 10, 10
REG_COEF = 10.0
EPSILONS = 1e-2
"""The program's default. At the scripts' 1e-3 the literal log(1 / det) of an untrained hypermodel can overflow in its
gradient (float32), and a benchmark must not step on NaN; the time does not depend on it."""


@dataclass(frozen=True)
class BenchmarkOptions(SaveOptions):
    """benchmark"""

    rounds: int = 3
    """timed rounds of each pair"""
    old_tasks: list[int] = field(default_factory=lambda: [1, 5, 9])
    """numbers of stored tasks"""
    settings: list[Literal["task", "class"]] = field(default_factory=lambda: ["task", "class"])
    """task-incremental, class-incremental"""
    threads: int = 2
    """CPU threads"""
    importance_images: int = 64
    """images of the importance measurement"""


class OneBatch:
    """The same mini-batch over and over; what a learner asks of a loader."""

    def __init__(self, images: Tensor, target: Tensor) -> None:
        self.batch, self.position, self.dataset_size = (images, target), 0, len(target)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        yield self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return

    def train_loader(self, task: int) -> OneBatch:
        return self

    test_loader = train_loader


def build_learner(run: Run, config: Any, setting: str, old_tasks: int) -> VDFD:
    """A learner in the middle of task `old_tasks + 1`, with random factors for the tasks before it."""
    torch.manual_seed(0)
    sizes = [CLASSES] * TASKS
    is_task = setting == "task"
    protocol = TaskIncremental(sizes) if is_task else ClassIncremental(sizes, CLASSES * TASKS)
    model = build_backbone("resnet", "resnet18")
    model.set_heads(protocol.heads())
    first_label = 0 if is_task else old_tasks * CLASSES
    target = first_label + torch.randint(0, CLASSES, (BATCH,))
    data = OneBatch(torch.randn(BATCH, 3, 32, 32), target)
    code = TASK_INCREMENTAL_CODE if is_task else CLASS_INCREMENTAL_CODE
    learner = VDFD(config, model, protocol, data, run, REG_COEF, variant=code)
    for _ in range(old_tasks):
        factors = {}
        for name, parameter in zip(learner.memory.names, learner.memory.parameters, strict=True):
            matrix = 1e-3 * torch.randn(parameter.shape[0], CLASSES)
            factors[name] = low_rank_factors(matrix, 1, draw_start(matrix, 1))
        learner.memory.add(factors)
    learner.start_task(old_tasks + 1)
    learner.model.train()
    return learner


def literal_of(learner: VDFD) -> Tensor:
    """The literal regulariser of a learner as it stands."""
    stored = (learner.model, learner.hypermodel, learner.memory.tasks, learner.memory.names, learner.config.epsilons)
    if isinstance(learner.setting, TaskIncremental):
        return literal_regulariser(*stored)
    return literal_class_regulariser(*stored, CLASSES)


def literal_step(learner: VDFD) -> Callable[[], float]:
    """The same step by the literal formulas, with optimisers of its own kind (one update per tensor)."""
    model, view = learner.model, learner.setting.view(learner.task)
    groups = parameter_groups(
        model, view.head, head_lr=1e-9, model_lr=1e-9, head_weight_decay=0.0, model_weight_decay=5e-4
    )
    kept = ("params", "lr", "weight_decay")
    network = torch.optim.Adam([{key: group[key] for key in kept} for group in groups], foreach=False)
    hyper = torch.optim.Adam(learner.hypermodel.parameters(), lr=1e-9, foreach=False)
    images, target = learner.loader.batch

    def step() -> float:
        logits = model(images)
        loss = local_cross_entropy(logits[view.head], target, view.loss_columns)
        if learner.memory.tasks:
            loss = loss + REG_COEF * literal_of(learner)
        network.zero_grad(), hyper.zero_grad()
        loss.backward()
        if learner.memory.tasks:
            hyper.step()
        network.step()
        return loss.item()

    return step


def measure_steps(options: BenchmarkOptions, rows: list[Row]) -> None:
    """Whole step and regulariser alone, at each number of stored tasks."""
    rates = {"model_lr": 1e-9, "head_lr": 1e-9, "hypermodel_lr": 1e-9}
    with tempfile.TemporaryDirectory() as folder:
        for setting in options.settings:
            kind = {"task": TaskIncrementalOptions, "class": partial(ClassIncrementalOptions, temp=1.0)}[setting]
            for old_tasks in [0, *options.old_tasks]:
                config = kind(output_dir=f"{folder}/{setting}{old_tasks}", epsilons=EPSILONS, **rates)
                with Run(config, method="VDFD", paper="vdfd", device=torch.device("cpu"), seed=0, quiet=True) as run:
                    measure_learner(build_learner(run, config, setting, old_tasks), setting, options, rows)


def measure_learner(learner: VDFD, setting: str, options: BenchmarkOptions, rows: list[Row]) -> None:
    """One learner's step and regulariser against the literal ones."""
    old_tasks, batch = len(learner.memory.tasks), learner.loader.batch
    step = time_in_turns(lambda: learner.train_step(*batch), literal_step(learner), rounds=options.rounds)
    rows.append(Row(f"{setting}-incremental step, {old_tasks} old tasks", *step))
    if old_tasks:
        pair = (lambda: learner.penalty().backward(), lambda: literal_of(learner).backward())
        ratio = time_in_turns(*pair, rounds=options.rounds)
        rows.append(Row(f"{setting}-incremental regulariser, {old_tasks} old tasks", *ratio))


def measure_importance(options: BenchmarkOptions, rows: list[Row]) -> None:
    """Class gradients of some images: many mini-batches together against one backward pass per class and mini-batch."""
    torch.manual_seed(0)
    model = build_backbone("resnet", "resnet18")
    model.set_heads({"1": CLASSES})
    model.eval()
    names = [name for name, _ in model.named_parameters() if not name.startswith("last")]
    images = torch.randn(options.importance_images, 3, 32, 32)
    weights = torch.full((len(images),), 1 / len(images))
    for precision, lower in (("float32", False), ("ours in bf16: not the same mathematics", True)):

        def ours(lower: bool = lower) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=lower):
                class_gradients(model, names, "1", slice(0, CLASSES), images, weights)

        literal = partial(literal_importance, model, names, "1", images.split(BATCH))
        timings = time_in_turns(ours, literal, rounds=max(1, options.rounds - 1))
        rows.append(Row(f"importance of {len(images)} images, {CLASSES} classes, {precision}", *timings))


def measure_data(options: BenchmarkOptions, rows: list[Row]) -> None:
    """One pass over the embedded sample with augmentation: on the device against torch's DataLoader over PIL images."""
    images = open_dataset("Sample", ".", "train")
    every = torch.arange(len(images.labels))
    loaders = [
        make_loader(
            images,
            every,
            images.labels,
            TRANSFORMS["Sample"],
            train=True,
            batch_size=BATCH,
            shuffle=True,
            device="cpu",
            seed=0,
            path=path,
        )
        for path in ("device", "dataloader")
    ]
    timings = time_in_turns(
        *(lambda loader=loader: [None for _ in loader] for loader in loaders), rounds=options.rounds
    )
    rows.append(Row(f"data, {len(every)} images, batch {BATCH}", *timings))


def main(argv: list[str] | None = None) -> None:
    """Measure everything, print one table, keep it if asked."""
    options = parse_config(BenchmarkOptions, argv, __doc__.splitlines()[0])
    torch.set_num_threads(options.threads)
    console = Console(width=110)
    begun, rows = start(), []
    for measure in (measure_data, measure_steps, measure_importance):
        console.print(f"measuring: {measure.__doc__.splitlines()[0]}")
        with contextlib.redirect_stderr(io.StringIO()):
            measure(options, rows)
    report(
        "vdfd", "vdfd", options, begun, rows, title=f"VDFD, ResNet-18, batch {BATCH}, float32",
        method=f"Median wall seconds of {options.rounds} rounds, in turns",
    )  # fmt: skip


if __name__ == "__main__":
    main()
