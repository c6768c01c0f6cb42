"""Adapters: tasks, image lists, transforms, schedules, accuracies, forgetting."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from common.data.transforms import image_pipeline
from common.metrics.accuracy import RunningMean, accuracy_percent
from common.metrics.continual import AccuracyMatrix
from common.parity import Fixture, reproduces
from prompt_distill.data import transform_spec
from prompt_distill.schedule import epoch_rates, make_optimizer, set_rate
from prompt_distill.split_lists import LISTED, read_list
from prompt_distill.summary import forgetting_over_trials, last_forgetting
from prompt_distill.tasks import class_tasks, task_places, validation_split

CLASSES = {"CIFAR10": 10, "CIFAR100": 100, **{name: facts.classes for name, facts in LISTED.items()}}
LIST_NAMES = {facts.folder: name for name, facts in LISTED.items()}


@reproduces(*(f"prompt_distill.data.class_split_{number}" for number in (1, 2, 3, 4)))
def class_split(fixture: Fixture) -> dict[str, Tensor]:
    first, other, max_task = fixture.inputs["sizes"].tolist()
    tasks = class_tasks(CLASSES[fixture.args["dataset"]], first, other, max_task)
    table = [[label, number] for number, classes in enumerate(tasks) for label in classes]
    return {"out.class_task": torch.tensor(table), "out.num_tasks": torch.tensor(len(tasks))}


@reproduces(*(f"prompt_distill.data.archive_{name}" for name in ("val0_train1", "val1_train1", "val1_train0")))
def archive(fixture: Fixture) -> dict[str, Tensor]:
    args, targets = fixture.args, fixture.inputs["targets"]
    places = None
    if args["validation"]:
        kept, others = validation_split(len(targets), args["seed"])
        places = kept if args["train"] else others
    outputs, chosen = {}, []
    for number, classes in enumerate(args["tasks"], start=1):
        chosen.append(task_places(targets, classes, places))
        outputs[f"out.index_task{number}"] = chosen[-1]
        outputs[f"out.target_task{number}"] = targets[chosen[-1]]
    return outputs | {"out.cumulative_2": torch.cat(chosen[:2])}


@reproduces("prompt_distill.data.split_file_counts")
def split_file_counts(fixture: Fixture) -> dict[str, Tensor]:
    classes, outputs = int(fixture.inputs["classes"]), {}
    for split in ("train", "test"):
        labels = read_list(LIST_NAMES[fixture.args["dataset"]], split)[1]
        outputs[f"out.{split}_per_class"] = torch.tensor(
            [len(task_places(labels, [label])) for label in range(classes)]
        )
        tasks = class_tasks(classes, 20, 20)
        outputs[f"out.{split}_per_task20"] = torch.tensor([len(task_places(labels, task)) for task in tasks])
        outputs[f"out.{split}_first20_targets"] = labels[:20]
    return outputs


@reproduces(
    *(f"prompt_distill.data.transform_{name}" for name in ("cifar_test", "cifar_train", "imnetr_test", "imnetr_train"))
)
def transform(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    pipeline = image_pipeline(transform_spec(args["dataset"]), train=args["phase"] == "train")
    torch.manual_seed(args["seed"])
    result = pipeline(Image.fromarray(fixture.inputs["image"].numpy()))
    return {"out.sampled": result[:, :: args["stride"], :: args["stride"]], "out.mean": result.mean(dim=(1, 2))}


@reproduces(*(f"prompt_distill.optim.cosine_k{epochs}" for epochs in (20, 35, 50)))
def cosine(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    optimizer = make_optimizer("Adam", [nn.Parameter(torch.zeros(1))], args["base_lr"], 0.9, 0.0)
    used = []
    for rate in epoch_rates("cosine", args["base_lr"], [args["K"]]):
        set_rate(optimizer, rate)
        used.append(optimizer.param_groups[0]["lr"])
    return {"out.lr": torch.tensor(used, dtype=torch.float64)}


@reproduces("prompt_distill.metric.accuracy")
def accuracy(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.acc": accuracy_percent(fixture.inputs["logits"], fixture.inputs["target"])}


@reproduces("prompt_distill.metric.average_meter")
def average_meter(fixture: Fixture) -> dict[str, Tensor]:
    meter, averages = RunningMean(), []
    for value, count in zip(fixture.inputs["values"], fixture.inputs["counts"].tolist(), strict=True):
        meter.add(value, count)
        averages.append(meter.value())
    return {"out.avg": torch.tensor(averages, dtype=torch.float64)}


@reproduces("prompt_distill.metric.trainer_summary")
def trainer_summary(fixture: Fixture) -> dict[str, Tensor]:
    rows = _rows(fixture.inputs["A"])
    averages = AccuracyMatrix(rows).average_accuracy()
    return {
        "out.avg_acc": torch.tensor(averages, dtype=torch.float64),
        "out.forgetting": torch.tensor(last_forgetting(rows), dtype=torch.float64),
    }


@reproduces("prompt_distill.metric.calc_forgetting")
def calc_forgetting(fixture: Fixture) -> dict[str, Tensor]:
    mean, deviation = forgetting_over_trials([_rows(table) for table in fixture.inputs["Y"]])
    return {
        "out.mean": torch.tensor(mean, dtype=torch.float64),
        "out.std": torch.tensor(deviation, dtype=torch.float64),
    }


def _rows(table: Tensor) -> list[list[float]]:
    return [row[: number + 1] for number, row in enumerate(table.tolist())]
