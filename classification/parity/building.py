"""From a fixture's arguments and weights to the objects that training uses."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classification.class_incremental.options import ClassIncrementalOptions
from classification.task_incremental.options import TaskIncrementalOptions
from classification.vdfd.rotation import COPIES
from classification.vdfd.setting import ClassIncremental, TaskIncremental
from classification.vdfd.variant import CLASS_INCREMENTAL_CODE, TASK_INCREMENTAL_CODE, resolve_variant
from classification.vdfd.vdfd_learner import VDFD
from common.backbones.heads import Backbone
from common.backbones.registry import build_backbone
from common.continual.compression import Factors
from common.continual.memory import TaskMemory
from common.parity import Fixture
from common.training.journal import SERIES, read_series
from common.training.run import Run

_FLAGS = ("model_lr", "head_lr", "hypermodel_lr", "model_weight_decay", "head_weight_decay", "hypermodel_weight_decay")


class FixedBatches:
    """Recorded images in recorded order, in consecutive mini-batches."""

    def __init__(self, images: Tensor, target: Tensor, batch_size: int) -> None:
        self.images, self.target, self.batch_size = images, target, batch_size
        self.dataset_size, self.position = len(images), 0

    def __len__(self) -> int:
        return -(-self.dataset_size // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self.position < len(self):
            places = slice(self.position * self.batch_size, (self.position + 1) * self.batch_size)
            self.position += 1
            yield self.images[places], self.target[places]
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class FixedData:
    """Recorded mini-batches of each task, counted from 1."""

    def __init__(self, train: dict[int, FixedBatches], test: dict[int, FixedBatches] | None = None) -> None:
        self.train, self.test = train, test or {}

    def train_loader(self, task: int) -> FixedBatches:
        return self.train[task]

    def test_loader(self, task: int) -> FixedBatches:
        return self.test[task]


def is_class_incremental(fixture: Fixture) -> bool:
    """Whether the recorded network has one head for all classes."""
    return any(key.endswith("last.All.weight") for key in fixture.params)


def build_setting(fixture: Fixture, copies: int) -> TaskIncremental | ClassIncremental:
    """The protocol of a recording of equally large tasks."""
    classes = fixture.args["classes_per_task"]
    if is_class_incremental(fixture):
        outputs = (
            next(value for key, value in fixture.params.items() if key.endswith("last.All.weight")).shape[0] // copies
        )
        return ClassIncremental([classes] * fixture.args["tasks"], outputs, copies)
    return TaskIncremental([classes] * fixture.args["tasks"], copies)


def build_small_network(fixture: Fixture, heads: dict[str, int], prefix: str = "model.") -> Backbone:
    """The recorded network with its weights, in training mode."""
    model = build_backbone("resnet", "resnet18", widths=fixture.args["widths"], blocks=fixture.args["blocks"])
    model.set_heads(heads)
    model.load_state_dict(fixture.under(prefix))
    return model


def flags_of(fixture: Fixture) -> dict[str, str]:
    """Flags for `vdfd.ssl.multihead_*`: one head per task, but with the hypermodel of the class-incremental folder."""
    return {"gcn": "residual"} if fixture.id.startswith("vdfd.ssl.multihead") else {}


@contextlib.contextmanager
def built_learner(
    fixture: Fixture, data: FixedData, *, ssl: bool | None = None, prefix: str = "model.", **flags: Any
) -> Iterator[VDFD]:
    """A learner with the recorded weights, in a run of its own in a temporary folder.

    Args:
        fixture: with `widths`, `blocks`, `classes_per_task`, `tasks` among its arguments.
        data: mini-batches.
        ssl: rotation labels; None: as `args["ssl"]` says.
        prefix: of the network's keys; "" where the recording holds the network alone.
        flags: further flags of the program; `gcn` where the recording mixes the settings.
    """
    ssl = fixture.args.get("ssl", False) if ssl is None else ssl
    setting = build_setting(fixture, COPIES if ssl else 1)
    given = {name: fixture.args[name] for name in _FLAGS if name in fixture.args}
    given |= {"epsilons": fixture.args["eps"]} if "eps" in fixture.args else {}
    if is_class_incremental(fixture):
        given |= {"temp": fixture.args.get("temp", 1.0)}
        options, code = ClassIncrementalOptions, CLASS_INCREMENTAL_CODE
    else:
        options, code = TaskIncrementalOptions, TASK_INCREMENTAL_CODE
    with tempfile.TemporaryDirectory() as folder:
        config = options(**given, **flags, output_dir=folder)
        run = Run(config, method="VDFD", paper="vdfd", device=torch.device("cpu"), seed=0, write_every=1, quiet=True)
        with run:
            model = build_small_network(fixture, setting.heads(), prefix)
            learner = VDFD(
                config,
                model,
                setting,
                data,
                run,
                fixture.args.get("reg_coef", 1.0),
                variant=resolve_variant(config, code),
            )
            if prefix:
                learner.hypermodel.load_state_dict(fixture.under("hypermodel."))
            yield learner


def stored_tasks(fixture: Fixture, names: list[str]) -> list[TaskMemory]:
    """What the recording says was kept of earlier tasks.

    Class-incremental recordings hold `reg<I>.left.<param>` per task, task-incremental ones `reg.left.<param>` with
    the tasks along the first dimension.
    """
    if "reg.GWstar" in fixture.inputs:
        parts = {name: [fixture.inputs[f"reg.{part}.{name}"] for part in ("left", "sing", "right")] for name in names}
        gw_star = fixture.inputs["reg.GWstar"]
        return [
            TaskMemory({name: Factors(*(part[task] for part in parts[name])) for name in names}, gw_star[task])
            for task in range(len(gw_star))
        ]
    tasks = []
    while f"reg{len(tasks)}.GWstar" in fixture.inputs:
        prefix = f"reg{len(tasks)}"
        factors = {
            name: Factors(*(fixture.inputs[f"{prefix}.{part}.{name}"] for part in ("left", "sing", "right")))
            for name in names
        }
        tasks.append(TaskMemory(factors, fixture.inputs[f"{prefix}.GWstar"][0]))
    return tasks


def columns_over_heads(logits: Mapping[str, Tensor], target: Tensor, tasks: Sequence[str]) -> Tensor:
    """(B,) labels inside each sample's own task, counted on over all heads, as joint training delivers them."""
    outputs = torch.tensor([part.shape[1] for part in logits.values()])
    before = dict(zip(logits, (outputs.cumsum(0) - outputs).tolist(), strict=True))
    return target + torch.tensor([before[task] for task in tasks])


def series_of(learner: VDFD, name: str) -> Tensor:
    """The values that a learner's run has logged under a name, in order."""
    learner.run.flush()
    points = read_series(Path(learner.run.folder) / SERIES)
    return torch.tensor([point["value"] for point in points if point["name"] == name], dtype=torch.float64)
