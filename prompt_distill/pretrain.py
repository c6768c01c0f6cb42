"""Pretrains the small pair: two ViTs for 32-pixel images, on CIFAR-100 classes that the desk's tasks do not contain.

    python -m prompt_distill.pretrain                     # both, classes 50 to 99 of CIFAR-100, into
    prompt_distill/pair
    python -m prompt_distill.pretrain --name vit_pair_student --time_budget 120

Supervised training with random resized crops, flips and mixup; AdamW, warm-up, cosine. Weights are written in half
precision (safetensors) with a card beside them: classes, images, accuracy, command, check sum. Stops and goes on as
every run does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from common.data.datasets import open_dataset
from common.data.images import ImageSet
from common.data.loader import DeviceLoader
from common.data.resized_crop import BatchResizedCrop
from common.metrics.accuracy import RunningMean, count_correct
from common.training.device import choose_device
from common.training.errors import UserError, command_line
from common.training.files import write_atomically, write_json
from common.training.journal import progress_bar
from common.training.options import RunOptions, as_dict, is_machine_option, machine_option, parse_config
from common.training.precision import Precision, evaluating, set_backend_flags
from common.training.run import Run
from common.training.seeding import draw_seed, seed_everything
from prompt_distill.backbones import PAIR_FOLDER, PAIR_SIZES
from prompt_distill.data import DeviceTrainLoader, transform_spec
from prompt_distill.vit import build_vit, forward_tokens

MAX_BYTES = 6 * 2**20
"""Of one file in the repository."""


@dataclass(frozen=True)
class PretrainOptions(RunOptions):
    """pretraining of the pair"""

    output_dir: str = machine_option("outputs/pretrain")
    """folder of logs and checkpoints; one below it per network"""
    name: Literal["both", "vit_pair_teacher", "vit_pair_student"] = "both"
    """which network"""
    dataset: Literal["CIFAR100", "Sample"] = "CIFAR100"
    """images"""
    dataroot: str = machine_option("data")
    """folder of the data sets"""
    first_class: int = 50
    """classes below this one are left to the continual tasks"""
    epochs: int = 60
    """passes over the images"""
    warmup: int = 5
    """passes with a rising learning rate"""
    batch_size: int = 128
    """images per step"""
    lr: float = 1e-3
    """largest learning rate"""
    weight_decay: float = 0.05
    """of AdamW"""
    label_smoothing: float = 0.1
    """of the cross-entropy"""
    mixup: float = 0.2
    """parameter of the beta distribution; 0: none"""
    gpuid: list[int] = machine_option([0])
    """CUDA device number; negative: CPU"""
    seed: int = 0
    """seed"""
    pair_folder: str | None = machine_option(None)
    """where weights and cards are written; default: prompt_distill/pair, with --smoke pair/ below --output_dir"""


class PretrainData:
    """Training and test images of the pretraining classes, targets counted from 0."""

    def __init__(self, config: PretrainOptions, size: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.spec = transform_spec(config.dataset, size, normalise=True)
        sets = [open_dataset(config.dataset, config.dataroot, split) for split in ("train", "test")]
        self.train_set, self.test_set = (self._chosen(images) for images in sets)
        self.classes = len(sets[0].classes) - config.first_class
        if self.classes < 2:
            raise UserError(
                f"--first_class {config.first_class} leaves {self.classes} of {len(sets[0].classes)} classes"
            )

    def loader(self, train: bool, seed: int) -> DeviceLoader:
        """Batches of one split."""
        images = self.train_set if train else self.test_set
        transform = BatchResizedCrop(self.spec, train, side=images.images.shape[-1])
        kind = DeviceTrainLoader if train else DeviceLoader
        return kind(
            images.images,
            images.labels - self.config.first_class,
            transform,
            self.config.batch_size,
            shuffle=train,
            device=self.device,
            seed=seed,
        )

    def _chosen(self, images: ImageSet) -> ImageSet:
        return images.subset((images.labels >= self.config.first_class).nonzero()[:, 0])


class Pretrainer:
    """A ViT with a linear classifier on its class token.

    Args:
        config: flags.
        name: one of `PAIR_SIZES`.
        data: images.
        run: where steps are counted, logged and saved.
    """

    def __init__(self, config: PretrainOptions, name: str, data: PretrainData, run: Run) -> None:
        self.config, self.data, self.run = config, data, run
        self.model = nn.ModuleDict({"vit": build_vit(PAIR_SIZES[name])})
        self.model["head"] = nn.Linear(PAIR_SIZES[name].dim, data.classes)
        self.model.to(run.device)
        self.precision = Precision(config, run.device)
        self.loader = data.loader(train=True, seed=draw_seed())
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.lr, betas=(0.9, 0.999), fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._factor)
        self.epoch = 0
        run.register("pretrainer", self)

    def fit(self) -> None:
        """All epochs, or what is left of them."""
        while self.epoch < self.config.epochs:
            self.model.train()
            for images, target in progress_bar(
                self.loader, f"epoch {self.epoch}", len(self.loader), self.loader.position
            ):
                self.train_step(images, target)
                self.run.tick()
            self.epoch += 1
            if self.epoch % 10 == 0 or self.epoch == self.config.epochs:
                self.run.note(f"epoch {self.epoch}: test accuracy {self.evaluate():.2f} %, {self.run.seconds():.0f} s")
            self.run.save()

    def train_step(self, images: Tensor, target: Tensor) -> None:
        """One optimiser step on mixed images."""
        weight = self._mixing_weight()
        with self.precision.autocast():
            logits = self.logits(weight * images + (1 - weight) * images.flip(0))
        smoothing = self.config.label_smoothing
        own = F.cross_entropy(logits.float(), target, label_smoothing=smoothing)
        other = F.cross_entropy(logits.float(), target.flip(0), label_smoothing=smoothing)
        loss = weight * own + (1 - weight) * other
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.backward(loss, [self.optimizer])
        self.precision.step(self.optimizer)
        self.precision.update()
        self.schedule.step()
        self.run.step += 1
        self.run.log(task=1, epoch=self.epoch, loss=loss)

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes)."""
        return self.model["head"](forward_tokens(self.model["vit"], images).last[:, 0])

    def evaluate(self) -> float:
        """Test accuracy, percent."""
        meter = RunningMean(self.run.device)
        with evaluating(self.model):
            for images, target in self.data.loader(train=False, seed=0):
                meter.add_sum(100 * count_correct(self.logits(images), target), len(target))
        return meter.value()

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "loader": self.loader.state_dict(),
            "precision": self.precision.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a saved pretraining stood."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]["last_epoch"]
        self.loader.load_state_dict(state["loader"])
        self.precision.load_state_dict(state["precision"])

    def _mixing_weight(self) -> float:
        """# rng: one draw per step, global CPU generator"""
        if self.config.mixup <= 0:
            return 1.0
        gamma = torch._standard_gamma(torch.full((2,), self.config.mixup))
        return float(gamma[0] / gamma.sum().clamp_min(1e-12))

    def _groups(self) -> list[dict[str, Any]]:
        """Weight decay for matrices only."""
        parameters = list(self.model.parameters())
        return [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]

    def _factor(self, step: int) -> float:
        """Linear warm-up, then half a cosine; share of the largest rate."""
        warm, total = self.config.warmup * len(self.loader), self.config.epochs * len(self.loader)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def pretrain_one(config: PretrainOptions, name: str) -> dict[str, Any]:
    """Train one network and write its weights and card; returns the metrics."""
    device, notice = choose_device(config.gpuid)
    seed_everything(config.seed)
    set_backend_flags(config.fast)
    folder = Path(config.output_dir) / name
    with Run(
        config, method=f"pretraining-{name}", paper="prompt_distill", device=device, seed=config.seed, folder=folder
    ) as run:
        if notice:
            run.note(notice)
        if run.finished:
            run.note(f"finished already: {folder}")
            return run.read_record()["metrics"]
        data = PretrainData(config, PAIR_SIZES[name].image, device)
        trainer = Pretrainer(config, name, data, run)
        run.restore()
        trainer.fit()
        metrics = {"accuracy": trainer.evaluate()}
        images = {"name": data.train_set.name, "sha256": data.train_set.fingerprint(), "copy": data.train_set.copy}
        write_pair_file(config, name, trainer, metrics, images)
        counts = {"train_images": len(data.train_set), "test_images": len(data.test_set), "classes": data.classes}
        labels = {
            "smoke": config.smoke,
            images["copy"]: images["copy"] != "original",
            "desk-scale": True,
            "fast": config.fast or config.precision != "fp32" or config.opt_level not in (None, "O0"),
        }
        run.write_record(metrics, {**images, **counts}, [label for label, holds in labels.items() if holds])
        return metrics


def write_pair_file(
    config: PretrainOptions, name: str, trainer: Pretrainer, metrics: dict[str, Any], images: dict[str, Any]
) -> Path:
    """Backbone in half precision, and its card.

    Raises:
        UserError: if the file is too big for the repository.
    """
    state = trainer.model["vit"].state_dict()
    content = save({key: value.detach().half().cpu().contiguous() for key, value in state.items()})
    if len(content) > MAX_BYTES:
        raise UserError(f"{name} takes {len(content)} bytes, expected at most {MAX_BYTES}; choose a smaller size")
    path = pair_folder(config) / f"{name}.safetensors"
    write_atomically(path, lambda file: file.write(content))
    classes = trainer.data.classes
    card = {
        "name": name,
        "size": dataclasses.asdict(PAIR_SIZES[name]),
        "trained_on": f"{images['name']} classes {config.first_class} to {config.first_class + classes - 1}",
        "not_seen": f"classes 0 to {config.first_class - 1}",
        "images": images,
        "input": "32x32 RGB, normalised to mean 0.5, std 0.5",
        "format": "safetensors, float16, names of timm's VisionTransformer without a head",
        "test_accuracy_percent": round(metrics["accuracy"], 2),
        "command": rebuild_command(config, name),
        "config": {key: value for key, value in as_dict(config).items() if key not in ("output_dir", "pair_folder")},
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_json(path.with_suffix(".json"), card)
    return path


def pair_folder(config: PretrainOptions) -> Path:
    """Where weights and cards are written; a short form never takes the place of the shipped ones unasked."""
    if config.pair_folder is not None:
        return Path(config.pair_folder)
    return Path(config.output_dir) / "pair" if config.smoke else PAIR_FOLDER


def rebuild_command(config: PretrainOptions, name: str) -> str:
    """The command that trains a network again: its name and every flag that differs from its default and matters."""
    words = ["python -m prompt_distill.pretrain", "--name", name]
    for flag, default in as_dict(PretrainOptions()).items():
        value = as_dict(config)[flag]
        if flag != "name" and value != default and not is_machine_option(PretrainOptions, flag):
            words += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    return " ".join(words)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Pretrain; returns the metrics by network."""
    config = parse_config(PretrainOptions, sys.argv[1:] if argv is None else argv, "Pretraining of the small pair")
    if config.smoke:
        config = dataclasses.replace(config, dataset="Sample", first_class=18, epochs=1, warmup=0, batch_size=16)
    names = list(PAIR_SIZES) if config.name == "both" else [config.name]
    return {name: pretrain_one(config, name) for name in names}


if __name__ == "__main__":
    command_line(main)()
