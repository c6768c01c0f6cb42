"""Odd habits of the release, each with its switch: the default is the release, and the switch does what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from adversarial_dfkd.data import test_tensor as as_seen
from adversarial_dfkd.losses import Weights, disagreement_loss, entropy_term, generator_loss, latent_loss
from adversarial_dfkd.main import get_config, main
from adversarial_dfkd.networks import build_memory_generator, build_novel_generator
from adversarial_dfkd.options import AddedOptions
from common.training.checkpoint import read_newest_checkpoint
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

CONFIGS = REPOSITORY / "adversarial_dfkd" / "configs"
RELEASED_HABITS = {
    "meta_gradient": "detached", "inner_schedule": "constant", "train_mode_at_epoch_start": False,
    "clean_vae_gradient": False, "entropy_log": "log10", "js_floor": 0.01, "norm_epsilon": 0.8,
    "encoder_unit": "columns", "normalisation": "released",
}  # fmt: skip


def test_defaults_are_the_release():
    defaults = AddedOptions()
    assert {name: getattr(defaults, name) for name in RELEASED_HABITS} == RELEASED_HABITS
    for name in ("PRE-DFKD", "MB-DFKD", "Ours-1", "Ours-1_benchmark", "Ours-2"):
        path = CONFIGS / f"{name}.json"
        assert not RELEASED_HABITS.keys() & json.loads(path.read_text()).keys()


def test_entropy_logarithm():
    """D9: the natural one is ln 10 times that of base 10, in both losses that have the term."""
    logits, z = torch.randn(6, 4), torch.randn(6, 3)
    assert float(entropy_term(torch.zeros(5, 4))) == pytest.approx(-math.log10(4))
    assert float(entropy_term(torch.zeros(5, 4), "ln")) == pytest.approx(-math.log(4))
    ten, natural = Weights(oh=0, ie=5, a=0), Weights(oh=0, ie=5, a=0, entropy_log="ln")
    gap = 5 * float(entropy_term(logits, "ln") - entropy_term(logits))
    for loss in (lambda w: generator_loss(logits, logits, logits, w)[0], lambda w: latent_loss(logits, z, w)):
        assert float(loss(natural) - loss(ten)) == pytest.approx(gap, rel=1e-4)


def test_clamp_of_the_adversarial_term():
    """D10, by hand: probabilities (0.999, 0.001) and (0.5, 0.5), temperature 3; 0.001 meets the clamp or not."""
    student, teacher = 3 * torch.tensor([[math.log(999.0), 0.0]]), torch.zeros(1, 2)

    def by_hand(floor: float) -> float:
        def limited(values: list[float]) -> list[float]:
            return [min(max(value, floor), 1 - floor) for value in values]

        p, q, m = limited([0.999, 0.001]), limited([0.5, 0.5]), limited([0.7495, 0.2505])
        divergence = [sum(b * math.log(b / a) for a, b in zip(one, m, strict=True)) / 2 for one in (p, q)]
        return 1 - sum(divergence) / 2

    assert float(disagreement_loss(student, teacher)) == pytest.approx(by_hand(0.01), rel=1e-4)
    assert float(disagreement_loss(student, teacher, 0.0)) == pytest.approx(by_hand(1e-9), rel=1e-4)
    assert float(disagreement_loss(student, teacher, 0.1)) == pytest.approx(by_hand(0.1), rel=1e-4)
    certain = 1e4 * torch.eye(2)
    assert torch.isfinite(disagreement_loss(certain, certain.flip(0), 0.0))


def test_epsilon_of_the_norm_layers():
    """D10: between the convolutions only; with the usual epsilon a small signal is brought to variance 1."""
    for parts in (
        [build_novel_generator(4, 8, 3, epsilon=1e-3)], build_memory_generator(4, 8, 3, epsilon=1e-3)
    ):  # fmt: skip
        found = [[layer.eps for layer in part.modules() if isinstance(layer, nn.BatchNorm2d)] for part in parts]
        assert found[0] == [1e-5, 1e-3, 1e-3, 1e-5]
        assert found[1:] in ([], [[1e-3, 1e-3, 1e-5]])
    for epsilon, spread in ((0.8, 0.0312), (1e-8, 0.9999)):
        layer = build_novel_generator(4, 8, 3, epsilon=epsilon).conv_blocks1[1].train()
        image = 0.0279 * torch.randn(4, 128, 16, 16)
        assert layer(image).std().item() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("unit, dimension", [("columns", 2), ("pixels", 1), ("nothing", None)])
def test_what_the_encoder_scales_to_unit_length(unit, dimension):
    """D10: images that differ by a factor along that dimension look alike to it."""
    _, encoder = build_memory_generator(4, 8, 3, 4, 0.8, unit)
    encoder.eval()
    images, noise = torch.randn(2, 3, 8, 8), torch.zeros(2, 4)
    wanted = encoder(images, noise)[1]
    for scaled in (1, 2):
        shape = [1, 3, 8, 8]
        shape[scaled] = 1  # one factor for everything along the dimension
        other = encoder(images * (1 + torch.rand(shape)), noise)[1]
        assert torch.allclose(other, wanted, rtol=1e-4, atol=1e-5) == (scaled == dimension)


def test_constants_of_the_images():
    """D15: a pixel of 255 in every channel."""
    image = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    for dataset, name, mean, std in (
        ("cifar10", "released", 0.4914, 0.2471), ("cifar10", "wide", 0.4914, 0.2023),
        ("cifar100", "released", 0.4914, 0.2023), ("cifar100", "wide", 0.5071, 0.2675),
        ("SVHN", "wide", 0.4378, 0.1980),
    ):  # fmt: skip
        assert float(as_seen(dataset, image, 32, name)[0, 0, 0, 0]) == pytest.approx((1 - mean) / std, rel=1e-5)


def outcome(folder: Path, *settings: str) -> dict[str, torch.Tensor]:
    """All weights after a short run of Ours-2 on a student with norm layers."""
    words = [word for setting in settings for word in ("--set", setting)]
    main([str(CONFIGS / "desk_Ours-2_second-order.json"), "--smoke", "--student", "wrn-10-1", *words,
          "--output_dir", str(folder)])  # fmt: skip
    state = read_newest_checkpoint(folder)[0]["parts"]["training"]
    parts = {"student": state["student"], "generator": state["generator"], "vae": state["replay"]["generator"]}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return outcome(tmp_path_factory.mktemp("released"))


@pytest.mark.parametrize("setting, first", [
    ("meta_gradient=detached", "student"), ("meta_gradient=first_order", "student"),
    ("inner_schedule=cosine", "student"), ("train_mode_at_epoch_start=true", "generator"),
    ("clean_vae_gradient=true", "vae"), ("entropy_log=ln", "generator"), ("js_floor=0.3", "generator"),
    ("norm_epsilon=1e-5", "generator"), ("encoder_unit=pixels", "vae"),
])  # fmt: skip
def test_a_switch_reaches_the_weights_of_a_run(setting, first, released, tmp_path):
    """Through the program's own command line."""
    changed = outcome(tmp_path, setting)
    names = [name for name in changed if name.startswith(first) and changed[name].is_floating_point()]
    assert any(not torch.equal(changed[name], released[name]) for name in names)


def test_the_wide_resnet_configurations_take_the_wide_constants():
    for path in CONFIGS.glob("*wrn-40-2*.json"):
        assert get_config([str(path)])[0].normalisation == "wide"
