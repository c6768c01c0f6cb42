"""From a fixture's arguments and weights to the objects that training uses."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.parity import Fixture
from common.training.journal import SERIES, read_series
from common.training.run import Run
from prompt_distill.building import Pair, build_pair
from prompt_distill.configuration import check
from prompt_distill.learner import PromptLearner
from prompt_distill.options import PromptDistillOptions
from prompt_distill.vit import ViTSize, build_vit

NETWORK_PARTS = ("feat.", "prompt.", "last.", "clf_norm.")


class FixedBatches:
    """Recorded mini-batches in recorded order."""

    def __init__(self, images: Tensor, target: Tensor) -> None:
        self.images, self.target = images, target  # (batches, B, ...), (batches, B)
        self.dataset_size, self.position = target.numel(), 0

    def __len__(self) -> int:
        return len(self.target)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self.position < len(self):
            self.position += 1
            yield self.images[self.position - 1], self.target[self.position - 1]
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}


class FixedData:
    """Recorded mini-batches of each task, counted from 1."""

    def __init__(self, tasks: list[list[int]], train: dict[int, FixedBatches], test: dict[int, FixedBatches]) -> None:
        self.tasks, self.train, self.test = tasks, train, test

    def train_loader(self, task: int) -> FixedBatches:
        return self.train[task]

    def test_loader(self, task: int) -> FixedBatches:
        return self.test[task]


def size_from(args: dict[str, Any], dims: list[int]) -> ViTSize:
    """Size of a recorded backbone: [dim, depth, heads] and the common arguments."""
    return ViTSize(*dims, image=args["img"], patch=args["patch"], mlp_ratio=args["mlp_ratio"])


def config_from(args: dict[str, Any], folder: str) -> PromptDistillOptions:
    """Flags of the program that a recording stands for."""
    names = ("KD_method", "variant", "prompt_param", "kd_alpha", "Soft_T", "kd_prompt_param", "ema_coeff", "lr")
    given = {name: args[name] for name in names if name in args}
    if "betas" in args:
        given["momentum"] = args["betas"][0]
    return PromptDistillOptions(
        learner_name=args["learner"], schedule=[args.get("epochs", 1)], output_dir=folder, gpuid=[-1], **given
    )


def recorded_name(key: str, module: nn.Module) -> str:
    """Our state-dict key -> the original's."""
    if key == "add_T_token":
        return "feat.add_T_token"
    return key.replace("prompt.pools.", "prompt.")


def load_recorded(module: nn.Module, recorded: dict[str, Tensor]) -> None:
    """Load weights under the original's names; every one of ours must be there."""
    module.load_state_dict({key: recorded[recorded_name(key, module)] for key in module.state_dict()})


def load_pair(pair: Pair, fixture: Fixture) -> None:
    """All recorded weights of both networks."""
    if pair.teacher is not None:
        load_recorded(pair.teacher, fixture.under("model."))
    load_recorded(pair.student, fixture.under("s_model."))
    load_recorded(pair.distillation, fixture.under("s_model."))


@contextlib.contextmanager
def built_learner(fixture: Fixture, data: FixedData) -> Iterator[PromptLearner]:
    """A learner with the recorded weights, in a run of its own in a temporary folder."""
    args = fixture.args
    with tempfile.TemporaryDirectory() as folder:
        config = config_from(args, folder)
        variant = check(config)
        run = Run(
            config,
            method="parity",
            paper="prompt_distill",
            device=torch.device("cpu"),
            seed=0,
            write_every=1,
            quiet=True,
        )
        with run:
            sizes = {"teacher": size_from(args, args["t_dims"]), "student": size_from(args, args["s_dims"])}
            vits = {name: build_vit(size) for name, size in sizes.items()}
            pair = build_pair(
                config, variant, vits["student"], vits["teacher"], sizes, args["out_dim"], args["n_tasks"]
            )
            load_pair(pair, fixture)
            yield PromptLearner(
                config,
                pair.student,
                pair.teacher,
                pair.distillation,
                data,
                run,
                student_rates=config.student_schedule or variant.student_schedule,
            )


def trained(learner: PromptLearner) -> dict[str, nn.Parameter]:
    """What the optimisers move, under the original's names."""
    named: dict[str, nn.Parameter] = {}
    for prefix, network in (("model", learner.teacher), ("s_model", learner.student)):
        own = {id(parameter) for parameter in network.trainable()}
        for key, parameter in network.named_parameters():
            if id(parameter) in own:
                named[f"{prefix}.{recorded_name(key, network)}"] = parameter
    own = {id(parameter) for parameter in learner.distillation.trainable()}
    for key, parameter in learner.distillation.named_parameters():
        if id(parameter) in own:
            named[f"s_model.{recorded_name(key, learner.distillation)}"] = parameter
    return named


def series_of(learner: PromptLearner, name: str) -> Tensor:
    """The values that a learner's run has logged under a name, in order."""
    learner.run.flush()
    points = read_series(Path(learner.run.folder) / SERIES)
    return torch.tensor([point["value"] for point in points if point["name"] == name], dtype=torch.float64)
