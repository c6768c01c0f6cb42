"""Adapters: transforms, splits, accuracies, summaries."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classification.parity.building import FixedBatches, FixedData, built_learner, columns_over_heads
from classification.vdfd.losses import own_head_logits
from classification.vdfd.rotation import COPIES
from common.data.splits import ClassSplit
from common.data.transforms import TRANSFORMS, BatchTransform, image_pipeline, train_transform_at
from common.metrics.accuracy import RunningMean, accuracy_percent, count_correct
from common.metrics.continual import AccuracyMatrix
from common.parity import Fixture, reproduces

_DATASETS = {
    "cifar100": "CIFAR100",
    "cifar10": "CIFAR10",
    "tinyimagenet": "TinyImageNet",
    "fivedatasets": "FiveDatasets",
}


@reproduces(*(f"vdfd.data.{name}" for name in _DATASETS))
def small_image_transforms(fixture: Fixture) -> dict[str, Tensor]:
    spec = TRANSFORMS[_DATASETS[fixture.id.split(".")[-1]]]
    image = fixture.inputs["image"].permute(2, 0, 1).unsqueeze(0)
    args = fixture.args
    train = train_transform_at(spec, image, args["top"], args["left"], args["flip"])
    return {"out.val": BatchTransform(spec, train=False)(image)[0], "out.train": train[0]}


@reproduces("vdfd.data.subimagenet")
def large_image_transform(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    y, x, channel = np.meshgrid(np.arange(args["height"]), np.arange(args["width"]), np.arange(3), indexing="ij")
    wave = np.sin(args["f"] * y * (channel + 1) + 0.29 * x)
    image = Image.fromarray(np.floor(127.5 + 127 * wave).astype(np.uint8))
    transformed = image_pipeline(TRANSFORMS["SubImageNet"], train=False)(image)
    return {"out.val_strided": transformed[:, :: args["stride"], :: args["stride"]]}


@reproduces("vdfd.split.sequential", "vdfd.split.sequential_remap", "vdfd.split.random")
def class_split(fixture: Fixture) -> dict[str, object]:
    args, outputs = fixture.args, {}
    torch.manual_seed(args["seed"])
    make = ClassSplit.random if args["rand_split"] else ClassSplit.sequential
    split = make(args["num_classes"], args["first"], args["other"])
    for task in range(1, split.tasks + 1):
        outputs[f"out.class_list.{task}"] = torch.as_tensor(split.classes(task))
        for part in ("train", "val"):
            labels = fixture.inputs[f"labels_{part}"]
            outputs[f"out.{part}_indices.{task}"] = split.indices(labels, task)
        outputs[f"out.train_targets.{task}"] = split.targets(fixture.inputs["labels_train"], task, remap=args["remap"])
    sizes = {str(task): len(split.classes(task)) for task in range(1, split.tasks + 1)}
    return outputs | {"args.out_space": sizes}


@reproduces("vdfd.metric.seen_accuracy")
def running_accuracy(fixture: Fixture) -> dict[str, Tensor]:
    logits, target = fixture.inputs["logits"], fixture.inputs["target"]
    meter = RunningMean()
    for size in fixture.inputs["batch_split"].tolist():
        meter.add(accuracy_percent(logits[:size], target[:size]), size)
    first = int(fixture.inputs["batch_split"][0])
    return {
        "out.acc_first": accuracy_percent(logits[:first], target[:first]),
        "out.avg": torch.tensor(meter.value(), dtype=torch.float64),
        "out.count": torch.tensor(meter.count),
    }


@reproduces("vdfd.metric.multihead_accuracy", "vdfd.metric.multihead_accuracy_ssl")
def accuracy_per_head(fixture: Fixture) -> dict[str, Tensor]:
    step, tasks = COPIES if fixture.id.endswith("_ssl") else 1, fixture.args["task"]
    heads = {name[4:]: value[:, ::step] for name, value in fixture.inputs.items() if name.startswith("head")}
    columns = columns_over_heads(heads, fixture.inputs["target"], tasks)
    logits = own_head_logits(list(heads.values()), columns)
    meter = RunningMean()
    meter.add_sum(100 * count_correct(logits, columns), len(columns))
    outputs = {"out.avg": torch.tensor(meter.value(), dtype=torch.float64), "out.count": torch.tensor(meter.count)}
    if step == 1:  # the last of the groups that the original scores one after the other
        last = torch.tensor([task == [head for head in heads if head in tasks][-1] for task in tasks])
        outputs["out.last"] = accuracy_percent(logits[last], columns[last])
    return outputs


@reproduces("vdfd.metric.validation_class", "vdfd.metric.validation_class_ssl")
def validation(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    seen = args["valid_end"] // ((COPIES if args["ssl"] else 1) * args["classes_per_task"])
    data = FixedData({}, {1: FixedBatches(fixture.inputs["x"], fixture.inputs["target"], len(fixture.inputs["x"]))})
    batches: list[Tensor] = []
    with built_learner(fixture, data, prefix="") as learner:
        head, _ = learner.setting.evaluation(1, seen)
        with learner.model.last[head].register_forward_hook(lambda *call: batches.append(call[-1])):
            accuracy = learner.evaluate(1, seen)
    logits = torch.cat(batches)
    return {
        "out.acc": torch.tensor(accuracy, dtype=torch.float64),
        "out.count": torch.tensor(len(logits)),
        "out.logits": logits,
    }


@reproduces("vdfd.protocol.task_summary")
def task_incremental_summary(fixture: Fixture) -> dict[str, Tensor]:
    matrix = _matrix(fixture)
    return {
        "out.acc_history": torch.tensor(matrix.average_accuracy(), dtype=torch.float64),
        "out.bwt_history": torch.tensor(matrix.backward_transfer(), dtype=torch.float64),
    }


@reproduces("vdfd.protocol.class_average")
def class_incremental_summary(fixture: Fixture) -> dict[str, Tensor]:
    averages = _matrix(fixture).weighted_average(fixture.inputs["val_counts"].tolist())
    return {"out.average_after_task": torch.tensor(averages, dtype=torch.float64)}


def _matrix(fixture: Fixture) -> AccuracyMatrix:
    values = fixture.inputs["acc_after_row_eval_col"].tolist()
    return AccuracyMatrix([row[: index + 1] for index, row in enumerate(values)])
