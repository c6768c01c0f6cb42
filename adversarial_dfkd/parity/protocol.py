"""Adapters: schedules, the bank, metrics, test images."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from adversarial_dfkd.data import test_tensor
from adversarial_dfkd.evaluation import TestImages, running_means
from adversarial_dfkd.replay import PUSH_PERIOD, MemoryBank
from adversarial_dfkd.schedules import cosine_rate, iterations_per_epoch
from common.parity import Fixture, reproduces


@reproduces("lra.schedule.cosine_student")
def cosine(fixture: Fixture) -> dict[str, list[float]]:
    return {
        f"out.lr_{epochs}": [cosine_rate(fixture.args["base_lr"], epoch, epochs) for epoch in range(epochs + 1)]
        for epochs in fixture.args["T_max"]
    }


@reproduces("lra.schedule.iterations_per_epoch")
def iterations(fixture: Fixture) -> dict[str, list[int]]:
    return {"out.iterations": [iterations_per_epoch(size) for size in fixture.inputs["batch_size"].tolist()]}


@reproduces("lra.policy.memory_bank")
def bank(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    random.seed(args["python_random_seed"])
    memory = MemoryBank(args["capacity"])
    sampled, length, position, contents = [], [], [], []
    for epoch in range(args["epochs"]):
        draws = [memory.draw() for _ in range(args["draws_per_epoch"])]
        sampled.append([-1 if batch is None else int(batch) for batch in draws])
        if epoch % PUSH_PERIOD == 0:
            memory.push(torch.tensor(epoch))
        length.append(len(memory))
        position.append(memory.position)
        held = [int(batch) for batch in memory.batches]
        contents.append(held + [-1] * (args["capacity"] - len(held)))
    named = {"sampled": sampled, "length": length, "position": position, "contents": contents}
    return {f"out.{name}": torch.tensor(values) for name, values in named.items()}


@reproduces("lra.metric.eval_model")
def evaluation(fixture: Fixture) -> dict[str, Any]:
    test = TestImages(fixture.inputs["logits"], fixture.inputs["labels"], fixture.args["batch_size"])
    score = test.score(nn.Identity())
    return {
        "out.accuracy_rounded": score.accuracy,
        "out.accuracy_printed": score.exact_accuracy,
        "out.loss_printed": score.printed_loss,
    }


@reproduces("lra.metric.cumulative_accuracy")
def cumulative(fixture: Fixture) -> dict[str, list[float]]:
    return {"out.cumulative": running_means(fixture.inputs["accuracy"].tolist())}


_SETS = ("mnist", "fmnist", "cifar10", "cifar100", "svhn", "tiny_imagenet")


@reproduces(*(f"lra.data.transform_{name}" for name in _SETS))
def transform(fixture: Fixture) -> dict[str, Tensor]:
    image = fixture.inputs["image"]
    image = image[:, :, None] if image.dim() == 2 else image
    tensor = test_tensor(fixture.args["dataset"], image.permute(2, 0, 1)[None], fixture.args["img_size"])
    return {"out.tensor": tensor[0]}
