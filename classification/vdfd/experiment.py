"""From flags to a record: builds data, network and learner, goes through the tasks, sums up.

Both settings' `main.py` call `run_experiment`; they differ in the protocol and in the summary they hand over.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from classification.vdfd.data import SplitImages
from classification.vdfd.learner import FineTuning, Setting
from classification.vdfd.variant import Variant, resolve_variant
from classification.vdfd.vdfd_learner import VDFD
from common.backbones.heads import Backbone
from common.backbones.registry import build_backbone
from common.data.transforms import TRANSFORMS, TransformSpec
from common.metrics.continual import AccuracyMatrix
from common.training.checkpoint import load_weights, read_checkpoint
from common.training.device import choose_device
from common.training.errors import RunStopped, UserError
from common.training.files import write_json
from common.training.precision import evaluating, set_backend_flags
from common.training.run import Run
from common.training.seeding import seed_everything

METHODS: dict[tuple[str, str], type[FineTuning]] = {
    ("vdfd", "VDFD"): VDFD,
    ("finetune", "FineTuning"): FineTuning,
}
"""(--agent_type, --agent_name) -> learner, in every program."""

SMOKE_CLASSES, SMOKE_TASKS, SMOKE_IMAGES, SMOKE_BATCH = 2, 2, 8, 8
LARGE_IMAGE = 128
"""Smoke runs on images of at least this many pixels a side use a quarter of the images, in batches of 2."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What distinguishes the settings.

    Attributes:
        setting: sizes of the tasks -> protocol object.
        code: variant of the released code.
        summarise: accuracy matrix and test images per task -> metrics of the record.
        headline: names of the metrics to show, first the main one.
        methods: (--agent_type, --agent_name) -> learner.
        transforms: data set -> transform.
    """

    setting: Callable[[list[int]], Setting]
    code: Variant
    summarise: Callable[[AccuracyMatrix, list[int]], dict[str, Any]]
    headline: tuple[str, ...]
    methods: Mapping[tuple[str, str], type[FineTuning]] = dataclasses.field(default_factory=METHODS.copy)
    transforms: Mapping[str, TransformSpec] = dataclasses.field(default_factory=TRANSFORMS.copy)


def run_experiment(config: Any, changed: dict[str, list[Any]], protocol: Protocol) -> dict[str, Any]:
    """Run every value of --reg_coef and every repetition; finished ones are skipped, interrupted ones go on.

    Returns:
        See `sum_up`.
    """
    method = find_method(config, protocol.methods)
    if config.smoke:
        config = smoke_form(config, method)
    device, notice = choose_device(config.gpuid)
    seed_everything(config.seed)
    set_backend_flags(config.fast)
    summaries: dict[float, list[dict[str, Any]]] = {}
    begin = time.monotonic()
    for reg_coef in config.reg_coef:
        repetitions = summaries.setdefault(reg_coef, [])
        for repetition in range(config.repeat):
            parts = [f"reg_{reg_coef:g}"] if len(config.reg_coef) > 1 else []
            parts += [f"repeat_{repetition}"] if config.repeat > 1 else []
            folder = Path(config.output_dir, *parts)
            with Run(
                config,
                method=method.name,
                paper="vdfd",
                device=device,
                seed=config.seed,
                changed=changed,
                folder=folder,
                write_every=max(1, int(config.print_freq)),
                part="/".join(parts),
                begin=begin,
            ) as run:
                if notice:
                    run.note(notice)
                if run.finished:
                    run.note(f"finished already: {folder}")
                    run.restore_generators()
                    repetitions.append(run.read_record()["metrics"])
                else:
                    repetitions.append(train_one(config, protocol, run, reg_coef))
    return sum_up(summaries, protocol.headline, Path(config.output_dir))


def train_one(config: Any, protocol: Protocol, run: Run, reg_coef: float) -> dict[str, Any]:
    """One run from its start or its newest checkpoint to its record; returns the metrics."""
    data = SplitImages(config, run.device, not config.no_class_remap, protocol.transforms)
    setting = protocol.setting(data.sizes)
    model = build_model(config, setting, run, head_bias=find_method(config, protocol.methods).head_bias)
    check_images_fit(model, data, config)
    learner = build_learner(config, protocol, model, setting, data, run, reg_coef)
    matrix = AccuracyMatrix()
    run.register("matrix", matrix)
    tasks = min(len(data.sizes), config.max_tasks or len(data.sizes))
    run.restore()
    counts = [data.test_loader(task).dataset_size for task in range(1, tasks + 1)]

    def record(finished: bool) -> dict[str, Any]:
        metrics = protocol.summarise(matrix, counts)
        run.write_record(metrics, data.describe(), labels_of(config, run.changed, data), finished=finished)
        return metrics

    try:
        for task in range(len(matrix.rows) + 1, tasks + 1):
            learner.fit_task(task)
            matrix.add([learner.evaluate(earlier, task) for earlier in range(1, task + 1)])
            note_task(run, learner, protocol.summarise(matrix, counts), matrix.rows[-1], protocol.headline)
            run.save()
    except RunStopped:
        record(finished=False)
        raise
    metrics = record(finished=True)
    run.note(f"finished in {run.seconds() / 3600:.2f} h; record: {run.folder / 'record.json'}")
    return metrics


def build_model(config: Any, setting: Setting, run: Run, head_bias: bool = False) -> Backbone:
    """The network with its heads, on the device."""
    model = build_backbone(config.model_type, config.model_name, widths=config.widths, blocks=config.blocks)
    model.set_heads(setting.heads(), bias=head_bias)
    if config.model_weights is not None:
        load_weights(model, read_checkpoint(Path(config.model_weights)), config.model_weights)
    run.note(f"network: {config.model_name}, {sum(p.numel() for p in model.parameters()):,} parameters")
    if config.fast:
        model = model.to(memory_format=torch.channels_last)
    return model.to(run.device)


def check_images_fit(model: Backbone, data: SplitImages, config: Any) -> None:
    """Show the network an empty image of the data set's size.

    Raises:
        UserError: if the network cannot take it.
    """
    shape = (len(data.spec.mean), data.spec.size, data.spec.size)
    try:
        with evaluating(model):
            model.embed(torch.zeros(1, *shape, device=next(model.parameters()).device))
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        raise UserError(
            f"--model_name {config.model_name} does not take the {shape[1]}x{shape[2]} images with {shape[0]} channels "
            f"of {config.dataset}; choose another network or data set"
        ) from error


def find_method(config: Any, methods: Mapping[tuple[str, str], type[FineTuning]] = METHODS) -> type[FineTuning]:
    """The learner that --agent_type and --agent_name ask for.

    Raises:
        UserError: for a pair that this program does not offer.
    """
    method = methods.get((config.agent_type, config.agent_name))
    if method is None:
        known = "; ".join(f"--agent_type {family} --agent_name {name}" for family, name in methods)
        found = f"--agent_type {config.agent_type} --agent_name {config.agent_name}"
        raise UserError(f"unknown method {found}; expected {known}")
    return method


def build_learner(
    config: Any, protocol: Protocol, model: Backbone, setting: Setting, data: Any, run: Run, reg_coef: float
) -> FineTuning:
    """The learner, with its hypermodel where it has one."""
    method = find_method(config, protocol.methods)
    extra = {"variant": resolve_variant(config, protocol.code)} if issubclass(method, VDFD) else {}
    learner = method(config, model, setting, data, run, reg_coef, **extra)
    if isinstance(learner, VDFD):
        count = sum(parameter.numel() for parameter in learner.hypermodel.parameters())
        run.note(f"hypermodel: {count:,} parameters; {learner.variant}")
    return learner


def smoke_form(config: Any, method: type[FineTuning]) -> Any:
    """The short form of a row: the embedded sample in place of its data set, everything else through the same code.

    A method may shorten more (`smoke_options`).
    """
    large = config.dataset in TRANSFORMS and TRANSFORMS[config.dataset].size >= LARGE_IMAGE
    short = {
        "first_split_size": SMOKE_CLASSES,
        "other_split_size": SMOKE_CLASSES,
        "max_tasks": SMOKE_TASKS,
        "images_per_class": SMOKE_IMAGES // 4 if large else SMOKE_IMAGES,
        "batch_size": 2 if large else SMOKE_BATCH,
        "schedule": [1],
    }
    return dataclasses.replace(config, **short | method.smoke_options)


def labels_of(config: Any, changed: dict[str, list[Any]], data: SplitImages) -> list[str]:
    """In what respect a run is not the full published setting."""
    labels = []
    if config.smoke:
        labels.append("smoke")
    if data.train_set.copy != "original":
        labels.append(data.train_set.copy)
    if config.dataset == "Sample":
        labels.append("desk-scale")
    fewer_epochs = "schedule" in changed and changed["schedule"][1][-1] < changed["schedule"][0][-1]
    if config.max_tasks is not None or fewer_epochs:
        labels.append("shortened")
    if config.fast or config.precision != "fp32" or config.opt_level not in (None, "O0"):
        labels.append("fast")
    return labels


def note_task(
    run: Run, learner: FineTuning, metrics: dict[str, Any], row: list[float], headline: tuple[str, ...]
) -> None:
    """Log what was measured after a task."""
    where = {"task": learner.task, "epoch": learner.epoch}
    for task, accuracy in enumerate(row, start=1):
        run.log_value(f"test/task_{task}", accuracy, **where)
    for name in headline:
        run.log_value(f"test/{name}", metrics[name], **where)
    accuracies = " ".join(f"{accuracy:.2f}" for accuracy in row)
    summary = ", ".join(f"{name.upper()} {metrics[name]:.2f}" for name in headline)
    run.note(f"after task {learner.task}: {accuracies} | {summary}")


def sum_up(summaries: dict[float, list[dict[str, Any]]], headline: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Mean and population standard deviation of the headline metrics over the repetitions, as the original prints them.

    Args:
        summaries: --reg_coef -> metrics of each repetition.
        headline: names of the metrics to sum up.
        folder: where summary.json is written if there were several runs.

    Returns:
        {"runs": [metrics of each run], name: mean, name_std: standard deviation}; with several coefficients, which are
        several experiments, one such dictionary for each instead: {"runs": [...], "reg_coef": {"10": {...}, ...}}.
    """
    spreads = {f"{reg_coef:g}": spread_of(repetitions, headline) for reg_coef, repetitions in summaries.items()}
    runs = [metrics for repetitions in summaries.values() for metrics in repetitions]
    if len(spreads) > 1:
        total = {"runs": runs, "reg_coef": spreads}
    else:
        (total,) = spreads.values()
    if len(runs) > 1:
        write_json(folder / "summary.json", total)
        for reg_coef, spread in spreads.items():
            parts = [f"{name.upper()} {spread[name]:.2f} +- {spread[f'{name}_std']:.2f}" for name in headline]
            print((f"reg_coef {reg_coef}: " if len(spreads) > 1 else "") + ", ".join(parts), flush=True)
    return total


def spread_of(repetitions: list[dict[str, Any]], headline: tuple[str, ...]) -> dict[str, Any]:
    """The runs themselves, with mean and population standard deviation of their headline metrics."""
    spread: dict[str, Any] = {"runs": repetitions}
    for name in headline:
        values = [metrics[name] for metrics in repetitions]
        spread |= {name: statistics.fmean(values), f"{name}_std": statistics.pstdev(values)}
    return spread
