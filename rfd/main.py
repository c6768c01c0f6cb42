"""RFD, R-DFCIL, the port of ABD, and ABD's learners on the same data, backbone and inversion.

    python main.py --config config/cifar100.yaml --data.root ../data     # all tasks, resumable
    python main.py --config config/cifar100.yaml --model.base_lr 0.05    # a key after the file overrides it
    python main.py --config config/cifar100.yaml --print_config          # everything, merged
    sh scripts/rfd.sh                                                    # every setting

Original: S2VTouser/RFD@ede67fa main.py (it imports a module that was not released), gqk/R-DFCIL@f47e123 and
gqk/ABD@53e9b2a.
Deviations from them: see README.md, section "Deviations".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from common.training.errors import UserError, command_line
from common.training.precision import resolve_precision
from rfd.data.image_sets import CLASSES, open_images
from rfd.data.protocol import class_split, default_order, repetition_order, task_sizes
from rfd.data.tasks import TaskImages
from rfd.data.transforms import ABD, CLLITE
from rfd.experiment import DYNAMIC, Experiment, run_experiment
from rfd.factors import Lambdas
from rfd.inversion import InversionRecipe
from rfd.networks import FixedHeadNetwork, build_backbone
from rfd.options import PHASED, RfdOptions, device_numbers, precision_of
from rfd.program import parse
from rfd.recipe import Recipe

_MU = {"abd": 0.1, "lwf_synthetic": 0.1}
SMOKE_CLASSES, SMOKE_IMAGES, LARGE_IMAGE = 4, 8, 128


def build_recipe(config: RfdOptions) -> Recipe:
    """The numbers that a learner needs."""
    model, trainer = config.model, config.trainer
    kept = 0.1 if model.method == "abd_port" else 0.5
    return Recipe(
        epochs=trainer.max_epochs,
        base_lr=model.base_lr,
        momentum=model.momentum,
        weight_decay=model.weight_decay,
        lr_factor=model.lr_factor,
        milestones=tuple(model.milestones),
        finetuning_epochs=model.finetuning_epochs if model.method in PHASED else 0,
        finetuning_lr=model.finetuning_lr,
        clip=trainer.gradient_clip_val,
        lambdas=Lambdas(
            ce=model.lambda_ce, hkd=model.lambda_hkd, rkd=model.lambda_rkd, distkd_old=model.lambda_distkd_old,
            distkd_new=model.lambda_distkd_new, kd=kept if model.lambda_kd is None else model.lambda_kd,
        ),
        wrd_inter=model.wrd_inter,
        wrd_intra=model.wrd_intra,
        mu=_MU.get(model.method, 1.0) if model.mu is None else model.mu,
        temperature=model.temp,
        inversion=InversionRecipe(
            iterations=model.num_inv_iters, lr=model.inv_lr, temperature=model.inv_tau, smoothness=model.inv_alpha_pr,
            statistics=model.inv_alpha_rf, noise=model.noise, fast=config.fast,
        ),
        check_every=trainer.check_val_every_n_epoch,
        current_only=config.data.test_mode == "current",
        validation_quirk=model.lightning_val_quirk,
        dump_every=model.dump_images,
        fast=config.fast,
    )  # fmt: skip


def build_data(config: RfdOptions, device: torch.device) -> TaskImages:
    """The images of every task.

    Raises:
        UserError: for data that are missing or unknown, or tasks that cannot be formed.
    """
    data, own_statistics = config.data, config.data.augmentation == "cl-lite"
    specs = CLLITE if own_statistics else ABD
    if data.dataset not in specs:
        raise UserError(f"--data.dataset {data.dataset}: expected one of {', '.join(specs)}")
    source = "sample" if config.smoke else data.dataset
    train, test = (open_images(source, data.root, split) for split in ("train", "test"))
    if data.num_classes is not None:
        train, test = train.classes_only(data.num_classes), test.classes_only(data.num_classes)
    if data.images_per_class is not None:
        train = train.per_class(data.images_per_class)
    if data.test_images_per_class is not None:
        test = test.per_class(data.test_images_per_class)
    classes = len(train.classes)
    order = choose_order(config, classes)
    split = class_split(order, task_sizes(classes, data.num_tasks, data.init_task_splits))
    return TaskImages(
        train, test, split, specs[data.dataset], recipe=data.augmentation, batch_size=data.batch_size, device=device,
        workers=data.num_workers, channels_last=config.fast,
    )  # fmt: skip


def choose_order(config: RfdOptions, classes: int) -> list[int]:
    """The order of the classes: of the repetition, of the config, or drawn from task_seed.

    Raises:
        UserError: if the config's order is not one of this data set.
    """
    given = config.data.class_order
    if config.seed is not None:
        return repetition_order(config.data.dataset, classes, config.seed)
    if not given:
        return default_order(classes, config.data.task_seed)
    if sorted(given) != list(range(classes)):
        raise UserError(
            f"--data.class_order has {len(given)} entries; {config.data.dataset} here needs each of 0..{classes - 1} "
            "once ([] draws an order from --data.task_seed)"
        )
    return list(given)


def with_repetition(config: RfdOptions) -> RfdOptions:
    """The config with its number as `seed` if, without --seed, it is a repetition: its class order is the published
    one of its seed. So one and the same run has one name."""
    number, order = config.seed_everything, config.data.class_order
    if config.seed is not None or number is None or not order:
        return config
    is_published = list(order) == repetition_order(config.data.dataset, len(order), number)
    return dataclasses.replace(config, seed=number) if is_published else config


def smoke_form(config: RfdOptions) -> RfdOptions:
    """The short form: the embedded sample at the row's image size, two tasks, few steps, everything else alike."""
    large = CLLITE[config.data.dataset].size >= LARGE_IMAGE if config.data.dataset in CLLITE else False
    images = 1 if large else SMOKE_IMAGES
    trainer = dataclasses.replace(config.trainer, max_epochs=2, check_val_every_n_epoch=1)
    model = dataclasses.replace(config.model, milestones=[1], finetuning_epochs=1, num_inv_iters=1 if large else 2)
    data = dataclasses.replace(
        config.data, num_classes=SMOKE_CLASSES, images_per_class=images, test_images_per_class=min(images, 2),
        class_order=[],
        num_tasks=2, init_task_splits=0, batch_size=2 if large else SMOKE_IMAGES,
    )  # fmt: skip
    return dataclasses.replace(config, trainer=trainer, model=model, data=data, keep_checkpoints="none")


def labels_of(config: RfdOptions, changed: dict[str, list[Any]], data: TaskImages) -> list[str]:
    """In what respect a run is not the full published setting."""
    labels = []
    if config.smoke:
        labels.append("smoke")
    if data.train_set.copy != "original":
        labels.append(data.train_set.copy)
    if config.desk or config.data.dataset == "sample":
        labels.append("desk-scale")
    epochs = changed.get("trainer.max_epochs", [0, 0])
    iterations = changed.get("model.num_inv_iters", [0, 0])
    if epochs[1] < epochs[0] or iterations[1] < iterations[0] or data.split.num_classes < CLASSES[config.data.dataset]:
        labels.append("shortened")
    if config.fast or resolve_precision(config) != "fp32":
        labels.append("fast")
    return labels


def prepare(config: RfdOptions, changed: dict[str, list[Any]]) -> Experiment:
    """What `run_experiment` needs."""
    model, data = config.model, config.data

    def backbone() -> Any:
        return build_backbone(data.dataset, model.blocks, model.width)

    return Experiment(
        method=model.method,
        recipe=build_recipe(config),
        seed=config.seed if config.seed is not None else config.seed_everything,
        is_repetition=with_repetition(config).seed is not None,
        gpu_ids=device_numbers(config.trainer.gpus),
        make_data=lambda device: build_data(config, device),
        labels=lambda images: labels_of(config, changed, images),
        make_backbone=backbone if model.method in DYNAMIC else None,
        make_network=None if model.method in DYNAMIC else lambda classes: FixedHeadNetwork(backbone(), classes),
        classifier=model.head,
        latent=model.gen_latent,
        generator_width=model.gen_width,
        keep_checkpoints=config.keep_checkpoints,
        inversion_file=model.inv_resume_from,
        resume_file=config.trainer.resume_from_checkpoint,
        resume_task=data.current_task,
        write_every=config.trainer.log_every_n_steps,
        deterministic=config.trainer.deterministic,
        autotune=config.trainer.benchmark,
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the experiment; returns the metrics."""
    config, changed = parse(argv, __doc__.splitlines()[0])
    config = dataclasses.replace(config, precision=precision_of(config))
    if config.smoke:
        config = smoke_form(config)
    return run_experiment(with_repetition(config), changed, prepare(config, changed))


if __name__ == "__main__":
    command_line(main)()
