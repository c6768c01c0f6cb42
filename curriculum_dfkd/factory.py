"""From flags to the parts of a method: networks, synthesiser, objective, optimiser."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from common.backbones.generators_cmi import (
    ImageGenerator,
    cudfkd_generator,
    large_generator,
    redraw_generator,
    small_generator,
)
from common.losses.distillation import temperature_kl
from common.training.errors import UserError
from curriculum_dfkd.curriculum import Pace, pace_of
from curriculum_dfkd.objectives import CurriculumDistillation, Distillation
from curriculum_dfkd.options import GENERATIVE, DataFreeOptions, rounds_of
from curriculum_dfkd.synthesis.base import Networks, Synthesiser
from curriculum_dfkd.synthesis.cmi import ContrastiveInversion, Inspector, uses_stage_inputs
from curriculum_dfkd.synthesis.contrast import BANK_SIZE, ContrastiveHead, FeatureBank
from curriculum_dfkd.synthesis.deepinversion import DeepInversion
from curriculum_dfkd.synthesis.generative import BETAS, CurriculumSynthesiser, GenerativeSynthesiser
from curriculum_dfkd.synthesis.pool import ImagePool

FLAGS = {"ent": "lmda_ent", "tv": "tv_weight", "l2": "l2_weight"}
"""Name of a term -> flag of its weight, where they differ."""


def adversarial_criterion(method: str, temperature: float) -> nn.Module | object:
    """What the student of a method minimises and its generator maximises: (student, teacher logits) -> ()."""
    if method == "dfad":
        return F.l1_loss
    if method in GENERATIVE:
        return temperature_kl  # original: --T is ignored (D3)
    return lambda student, teacher: temperature_kl(student, teacher, temperature)


def build_objective(config: DataFreeOptions) -> Distillation | CurriculumDistillation:
    """The student's loss."""
    if config.method != "cudfkd":
        return Distillation(adversarial_criterion(config.method, config.T))
    pace = Pace(config.lambda_0, pace_of(config.dataset) if config.lambda_rate is None else config.lambda_rate)
    return CurriculumDistillation(config.curr_option, pace, config.loss, config.T, config.curriculum_level == "sample")


def build_optimizer(config: DataFreeOptions, student: nn.Module) -> torch.optim.SGD:
    """SGD with momentum over all of the student's weights."""
    return torch.optim.SGD(
        student.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )


def build_generator(config: DataFreeOptions, channels: int, img_size: int) -> ImageGenerator:
    """The method's generator, freshly initialised (draws from torch's global generator).

    Raises:
        UserError: if --depth does not fit the image size.
    """
    if config.method == "cudfkd":
        nz = config.nz or (1024 if config.depth == 3 else 512)
        if img_size % 2**config.depth:
            raise UserError(f"--depth {config.depth}: {img_size} pixels cannot be halved that often")
        generator = cudfkd_generator(nz, config.ngf, img_size, channels, config.depth)
        redraw_generator(generator)  # rng: once, at construction
        return generator
    if config.method == "cmi":
        return small_generator(config.nz or 256, config.ngf, img_size, channels)
    return large_generator(config.nz or (512 if config.method == "dafl" else 256), config.ngf, img_size, channels)


def build_synthesiser(
    config: DataFreeOptions, networks: Networks, generator: ImageGenerator | None, pool: ImagePool | None
) -> Synthesiser:
    """The method's synthesiser.

    Args:
        config: checked flags.
        networks: teacher, student and how they see images.
        generator: on the device; None for deepinv.
        pool: for deepinv and cmi.

    Raises:
        UserError: if nothing is left to minimise, or cmi's batch does not fit its bank.
    """
    _, steps, _ = rounds_of(config)
    batch = config.synthesis_batch_size or config.batch_size
    if config.method in GENERATIVE:
        weights = {
            "bn": config.bn, "oh": config.oh, "adv": config.adv, "balance": config.balance, "act": config.act,
        }
        _check_weights(config, weights)
        return GenerativeSynthesiser(
            networks, generator, lr=config.lr_g, betas=BETAS[config.betas], steps=steps, synthesis_batch=batch,
            batch=config.batch_size, weights=weights, all_terms=config.log_all_terms,
            criterion=adversarial_criterion(config.method, config.T),
        )
    if config.method == "cudfkd":
        weights = {"ent": config.lmda_ent, "adv": config.adv, "oh": config.oh, "act": config.act, "bn": config.bn}
        _check_weights(config, weights)
        return CurriculumSynthesiser(
            networks, generator, lr=config.lr_g, betas=BETAS["cud"], steps=steps, synthesis_batch=batch,
            batch=config.batch_size, weights=weights, all_terms=config.log_all_terms, temperature=config.T,
            adversarial=config.adv_type, growth=config.grad_adv if config.curr_option != "none" else 0.0,
            epochs=config.epochs, begin=config.begin_fraction, end=config.end_fraction,
        )
    if config.method == "deepinv":
        weights = {
            "bn": config.bn, "oh": config.oh, "adv": config.adv, "tv": config.tv_weight, "l2": config.l2_weight,
        }
        _check_weights(config, weights)
        return DeepInversion(
            networks, pool, lr=config.lr_g, steps=steps, batch=batch, weights=weights, keep=config.keep_image,
            all_terms=config.log_all_terms,
        )
    return _build_cmi(config, networks, generator, pool, steps, batch)


def _build_cmi(
    config: DataFreeOptions, networks: Networks, generator: ImageGenerator, pool: ImagePool, steps: int, batch: int
) -> ContrastiveInversion:
    weights = {"cr": config.cr, "bn": config.bn, "oh": config.oh, "adv": config.adv}
    _check_weights(config, weights)
    if BANK_SIZE % batch:
        raise UserError(f"cmi: the bank's {BANK_SIZE} rows must be a multiple of the synthesis batch, found {batch}")
    inspector = Inspector(networks.teacher, uses_stage_inputs(config.teacher))
    width = inspector.width(networks)
    head = ContrastiveHead(width).to(networks.device)  # rng: weights
    bank = FeatureBank(2 * width, BANK_SIZE, networks.device, config.full_bank_read)
    return ContrastiveInversion(
        networks, generator, pool, bank, head, inspector, lr=config.lr_g, steps=steps, batch=batch, weights=weights,
        temperature=config.cr_T, negatives=config.n_neg,
    )


def _check_weights(config: DataFreeOptions, weights: dict[str, float]) -> None:
    if not any(weights.values()):
        flags = ", ".join(f"--{FLAGS.get(name, name)}" for name in weights)
        raise UserError(f"--method {config.method}: all weights of the synthesis loss are 0; give some of {flags}")


def describe_parts(generator: ImageGenerator | None, student: nn.Module, teacher: nn.Module) -> str:
    """One line on the sizes of the networks."""
    parts = {"teacher": teacher, "student": student, "generator": generator}
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}
    return ", ".join(f"{name} {size:,} parameters" for name, size in sizes.items())
