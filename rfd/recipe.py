"""What a learner needs to know, however the command line calls it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rfd.factors import Lambdas
from rfd.inversion import InversionRecipe


@dataclass(frozen=True)
class Recipe:
    """Numbers of one experiment.

    Attributes:
        epochs: per task, the finetuning phase included.
        base_lr, momentum, weight_decay: of SGD.
        lr_factor, milestones: the learning rate is multiplied by the factor at each of these epochs.
        finetuning_epochs, finetuning_lr: the last epochs of every task, with a frozen backbone; 0: none.
        clip: largest norm of the gradient; 0: not clipped.
        lambdas: weights of the losses; a weight of 0 drops the loss with its forward passes.
        wrd_inter, wrd_intra: weights of the two terms of the relation distillation.
        mu, temperature: weight and temperature of the distillation of ABD's learners.
        inversion: how generators are trained.
        check_every: epochs between two tests.
        current_only: test on the newest task only.
        validation_quirk: mimic the originals' trainer, which leaves the backbone in training mode after a test.
        dump_every: steps between two dumps of the batch as image files; 0: never.
        seed_per_task: seed all generators with 100 * this + task (from 0) before each task; None: do not (ABD).
        fast: fused optimiser, and frozen networks in a form that rounds otherwise (`common.backbones.staged.folded`).
    """

    epochs: int
    base_lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    lr_factor: float = 0.1
    milestones: tuple[int, ...] = (80, 120)
    finetuning_epochs: int = 0
    finetuning_lr: float = 0.005
    clip: float = 0.0
    lambdas: Lambdas = field(default_factory=Lambdas)
    wrd_inter: float = 1.0
    wrd_intra: float = 1.0
    mu: float = 1.0
    temperature: float = 2.0
    inversion: InversionRecipe = field(default_factory=InversionRecipe)
    check_every: int = 40
    current_only: bool = False
    validation_quirk: bool = False
    dump_every: int = 0
    seed_per_task: int | None = None
    fast: bool = False
