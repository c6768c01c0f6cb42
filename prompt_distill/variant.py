"""The dated states of the authors' code, and which distillation methods each of them has."""

from __future__ import annotations

from dataclasses import dataclass

from common.training.errors import UserError
from prompt_distill.distillation import DKD, KD, FitNets, NoDistillation, ReviewKD
from prompt_distill.prompts.base import MEAN, SUM
from prompt_distill.second_head import KDP, CDLPrompt, FrontToken

JULY = "cdl_prompt_2024_07"
NEWEST = "d_cdl_2026_04"


@dataclass(frozen=True)
class Variant:
    """Semantics of a state.

    Attributes:
        tag: name for --variant.
        methods: --KD_method -> class.
        key_loss: of DualPrompt and L2P.
        student_schedule: "cosine" or "constant" (July 2024 never steps the student's scheduler).
        learners: --learner_name values it knows.
        first_seed: seed of the first repetition where the state has no --random_s; None otherwise.
    """

    tag: str
    methods: dict[str, type[NoDistillation]]
    key_loss: str
    student_schedule: str = "schedule"
    learners: tuple[str, ...] = ("CODAPrompt", "DualPrompt", "L2P")
    first_seed: int | None = None


_BASELINES: dict[str, type[NoDistillation]] = {
    "none": NoDistillation,
    "KD": KD,
    "DKD": DKD,
    "FitNets": FitNets,
    "ReviewKD": ReviewKD,
}

VARIANTS = {
    variant.tag: variant
    for variant in (
        Variant(JULY, {"none": NoDistillation, "CDL-Prompt": CDLPrompt}, SUM, "constant", first_seed=2),
        Variant("kd_token_2024_12", {**_BASELINES, "KD_Token": FrontToken}, SUM),
        Variant("kd_token_2025_01", {**_BASELINES, "KD_Token": FrontToken}, MEAN),
        Variant("kdp_2025_03", {**_BASELINES, "KD_Token": KDP}, MEAN),
        Variant(NEWEST, {**_BASELINES, "KD_Token": KDP}, MEAN, learners=("CODAPrompt", "DualPrompt", "L2P", "APT")),
    )
}


def resolve_variant(tag: str | None, method: str, learner: str) -> Variant:
    """The state that a run follows.

    Args:
        tag: --variant; None: the newest state that has the method.
        method: --KD_method.
        learner: --learner_name.

    Raises:
        UserError: if that state does not have the method or the learner.
    """
    variant = VARIANTS[tag if tag is not None else JULY if method == "CDL-Prompt" else NEWEST]
    if method not in variant.methods:
        having = ", ".join(each.tag for each in VARIANTS.values() if method in each.methods)
        raise UserError(f"--KD_method {method} does not exist in --variant {variant.tag}; it exists in {having}")
    if learner not in variant.learners:
        raise UserError(
            f"--learner_name {learner} does not exist in --variant {variant.tag}, which --KD_method {method} asks for; "
            f"it has {', '.join(variant.learners)}"
        )
    return variant
