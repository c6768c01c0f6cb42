"""Adapters: whole short runs of all four agents."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adversarial_dfkd.evaluation import TestImages, running_means
from adversarial_dfkd.learner import AdversarialDistillation
from adversarial_dfkd.parity.building import RecordedNoise, built_loop, in_recorded_format, norms_after, options_of
from adversarial_dfkd.parity.networks import sampled
from adversarial_dfkd.parity.steps import reported
from adversarial_dfkd.replay import MemoryBank
from common.parity import Fixture, reproduces

AGENT_OF = {
    "predfkd": "PREDFKDAgent", "mb": "PREDFKDMemAgent", "ours1": "PREDFKDMemMetaAgent", "ours2": "PREDFKDMetaAgent",
}
BANK_LIMIT = 512
"""Numbers up to which a bank's batch was recorded in full."""

RECORDED_STATE = ("fc.weight", "fc.bias", "bn1.running_mean", "bn1.running_var")


class Observer:
    """Notes what the steps of a loop return, and in which state they find it."""

    def __init__(self, loop: AdversarialDistillation) -> None:
        self.loop = loop
        self.before: dict[str, list[Any]] = {"mode": [], "rate": [], "length": []}
        self.results: dict[str, list[Any]] = {"generator_step": [], "student_step": [], "memory_step": []}
        self.drawn: list[int] = []
        for name in self.results:
            setattr(loop, name, self._observed(name, getattr(loop, name)))

    def _observed(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def observed(*arguments: Any) -> Any:
            if name == "generator_step":
                self.before["mode"].append(int(self.loop.student.training))
                self.before["rate"].append(self.loop.optimizer.param_groups[0]["lr"])
            bank = self.loop.replay if isinstance(self.loop.replay, MemoryBank) else None
            if name == "student_step" and bank is not None:
                self.before["length"].append(len(bank))
            result = step(*arguments)
            self.results[name].append(result)
            if name == "student_step" and bank is not None and bank.drawn is not None:
                self.drawn.append(bank.drawn)
            return result

        return observed


@reproduces(*(f"lra.loop.{name}" for name in AGENT_OF))
def loop(fixture: Fixture) -> dict[str, Any]:
    args, inputs = fixture.args, fixture.inputs
    options = options_of(fixture, AGENT_OF[fixture.id.split(".")[-1]], iterations=args["iterations_per_epoch"])
    count = sum(name.startswith("noise") for name in inputs)
    noise = RecordedNoise(*(in_recorded_format(fixture, inputs[f"noise{number}"]) for number in range(count)))
    images = in_recorded_format(fixture, inputs["test_images"])
    test = TestImages(images, inputs["test_labels"], args["test_batch_size"])
    random.seed(args["python_random_seed"])
    with built_loop(fixture, options, noise, test) as training:
        seen = Observer(training)
        training.fit()
    accuracies = [value / 100 for value in training.history["accuracy"]]
    columns = len(args["kd_columns"])
    outputs: dict[str, Any] = {
        "out.loss_gen": torch.stack([torch.stack(pair) for pair in seen.results["generator_step"]]),
        "out.loss_kd": torch.stack([reported(report.terms, columns) for report in seen.results["student_step"]]),
        "out.student_training_flag_at_generator_step": seen.before["mode"],
        "out.lr_at_generator_step": seen.before["rate"],
        "out.accuracy": accuracies,
        "out.cumulative_accuracy": running_means(accuracies),
        "args.noise_draws": noise.used,
    }
    outputs |= bank_outputs(training, seen) if options.has_bank else memory_outputs(seen.results["memory_step"])
    state = training.student.state_dict()
    return outputs | {f"after.student.{key}": state[key] for key in RECORDED_STATE} | norms_after(
        "student", training.student
    )


def bank_outputs(training: AdversarialDistillation, seen: Observer) -> dict[str, Any]:
    bank = training.replay
    outputs = {
        "out.memory_sampled_index": seen.drawn,
        "out.memory_length_at_student_step": seen.before["length"],
        "out.memory_position": bank.position,
    }
    return outputs | {f"out.memory{number}": sampled(batch, BANK_LIMIT) for number, batch in enumerate(bank.batches)}


def memory_outputs(losses: list[Tensor]) -> dict[str, Tensor]:
    return {"out.loss_memory_generator": torch.stack(losses)}
