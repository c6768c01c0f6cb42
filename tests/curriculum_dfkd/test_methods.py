"""Losses, curriculum, synthesisers, pool and bank: values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from common.data.grids import pack_images, quantise
from common.losses.distillation import clamped_jensen_shannon, temperature_kl
from common.losses.inversion import BatchNormTaps, batch_norm_distance
from common.metrics.streams import stream_statistics
from common.training.errors import UserError
from common.training.precision import Precision
from curriculum_dfkd.curriculum import Pace, adversarial_weight, self_paced_weight, student_losses, weighted_loss
from curriculum_dfkd.data import DATASETS
from curriculum_dfkd.factory import build_generator, build_synthesiser
from curriculum_dfkd.images import Normaliser, jitter
from curriculum_dfkd.metrics import ClassificationMeter, FidelityMeter
from curriculum_dfkd.networks import NETWORKS, build_network
from curriculum_dfkd.options import DataFreeOptions, check, rounds_of, translate
from curriculum_dfkd.synthesis.base import Networks, frozen, weighted_sum
from curriculum_dfkd.synthesis.cmi import Inspector
from curriculum_dfkd.synthesis.contrast import FeatureBank, crop_places, draw_boxes, resample
from curriculum_dfkd.synthesis.pool import ImagePool
from curriculum_dfkd.training import cosine_rate, multistep_rate, warm_cosine_rate

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
PARAMETERS = {
    "resnet18": (11_173_962, 11_220_132), "resnet34": (21_282_122, 21_328_292), "resnet50": (23_520_842, 23_705_252),
    "vgg8": (3_918_858, 3_965_028), "vgg11": (9_231_114, 9_277_284), "vgg13": (9_416_010, 9_462_180),
    "wrn40_2": (2_243_546, 2_255_156), "wrn40_1": (563_930, 569_780), "wrn16_2": (691_674, 703_284),
    "wrn16_1": (175_066, 180_916), "resnet8x4": (1_210_410, 1_233_540), "resnet32x4": (7_410_730, 7_433_860),
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_sizes(name):
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in build_network(name, classes).parameters()) for classes in (10, 100)]
    assert tuple(sizes) == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in PARAMETERS])
def test_every_other_network_gives_logits_and_features(name):
    channels, size = (1 if "lenet" in name else 3), (64 if "tiny" in name or "imagenet" in name else 32)
    network = build_network(name, 7, channels).eval()
    with torch.no_grad():
        logits, features = network.with_features(torch.randn(2, channels, size, size))
        assert torch.equal(logits, network.classify(features)) and logits.shape == (2, 7)
    assert features.shape == (2, network.num_features)


def test_unknown_network_is_named():
    with pytest.raises(UserError, match="resnet34"):
        build_network("resnet35", 10)


def test_kl_of_two_classes():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert temperature_kl(student, teacher).item() == pytest.approx(wanted, rel=1e-5)
    assert temperature_kl(student, teacher, reduction="mean").item() == pytest.approx(wanted / 2, rel=1e-5)
    assert temperature_kl(2 * student, 2 * teacher, 2.0).item() == pytest.approx(4 * wanted, rel=1e-5)


def test_jensen_shannon_of_equal_answers_is_zero_and_of_opposite_ones_large():
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    assert clamped_jensen_shannon(logits, logits).item() == pytest.approx(0, abs=1e-6)
    assert clamped_jensen_shannon(torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])).item() > 0.5


def test_norm_statistics_of_a_batch_are_at_distance_zero():
    images = torch.randn(8, 3, 5, 5)
    mean, variance = images.mean(dim=(0, 2, 3)), images.var(dim=(0, 2, 3), unbiased=False)
    assert batch_norm_distance(images, mean, variance).item() == pytest.approx(0, abs=1e-5)
    assert batch_norm_distance(images, mean + 3, variance).item() == pytest.approx(3 * 3**0.5, rel=1e-5)


def test_taps_listen_only_while_they_are_asked_to():
    network = build_network("wrn16_1", 10).eval()
    taps = BatchNormTaps(network)
    with taps.distances() as found:
        network(torch.randn(1, 3, 32, 32))
    assert len(found) == len(taps.layers) == 13
    assert not any(layer._forward_pre_hooks for layer in taps.layers)


def test_self_paced_weights_by_hand():
    losses = torch.tensor([0.0, 1.0, 3.0])
    hard, soft = (self_paced_weight(kind, losses, 2.0) for kind in ("curr_hard", "curr_soft"))
    assert hard.v.tolist() == [1, 1, 0] and hard.g.item() == -4
    assert soft.v.tolist() == [1, 0.5, 0] and soft.g.item() == pytest.approx(-1.75)
    log = self_paced_weight("curr_log", losses, 2.0).v
    assert log[0].item() == pytest.approx(1) and (log.diff() < 0).all()
    with pytest.raises(ValueError, match="curr_log"):
        self_paced_weight("spl", losses, 2.0)


def test_no_gradient_passes_through_the_weight():
    loss = torch.tensor(1.0, requires_grad=True)
    result = weighted_loss("curr_soft", loss, 2.0)
    result.loss.backward()
    assert loss.grad.item() == pytest.approx(0.5) == result.v.item()


def test_everything_too_difficult_gives_zero_not_nan():
    result = weighted_loss("curr_hard", torch.tensor(5.0), 2.0)
    assert result.loss.item() == 0 and result.difficulty.item() == 0


def test_curriculum_per_sample_differs_from_the_batch():
    student, teacher = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [3.0, 3.0]])
    assert student_losses("l1", student, teacher, 1.0, per_sample=False).item() == 2
    assert student_losses("l1", student, teacher, 1.0, per_sample=True).tolist() == [1, 3]
    assert weighted_loss("curr_hard", torch.tensor([1.0, 3.0]), 2.0).loss.item() == 0.5


def test_pace_and_adversarial_weight():
    assert Pace(2.0, 1e-4).at(99_600) == pytest.approx(11.96)
    weights = [adversarial_weight(0.5, 0.05, 250, 0.25, 0.75, epoch) for epoch in range(251)]
    assert weights[0] == weights[63] == 0.5 and weights[64] == 0.55
    assert weights[-1] == pytest.approx(6.7) and len({round(weight, 6) for weight in weights}) == 125


def test_rates():
    assert cosine_rate(0.1, 10)(0) == 0.1 and cosine_rate(0.1, 10)(5) == pytest.approx(0.05)
    steps = multistep_rate(0.1, [2, 4])
    assert [steps(epoch) for epoch in (1, 2, 4)] == pytest.approx([0.1, 0.01, 0.001])
    warm = warm_cosine_rate(0.1, 20, 4)
    assert warm(0) == pytest.approx(0.02) and warm(4) == 0.1 and warm(19) < 0.01


def test_stream_statistics_give_variance_and_deviation():
    values = stream_statistics([60.0, 80.0, 70.0])
    assert values["acc"] == 70 and values["best_acc"] == 80 and values["best_acc_epoch"] == 2
    assert values["acc_mean"] == 70 and values["acc_variance"] == pytest.approx(200 / 3)
    assert values["acc_std"] ** 2 == pytest.approx(values["acc_variance"])
    assert stream_statistics([])["acc"] is None


def test_meters_by_hand():
    logits, target = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 0])
    meter, fidelity = ClassificationMeter(), FidelityMeter()
    meter.add(logits, target)
    fidelity.add(logits, logits)
    assert meter.values()["acc1"] == 50 and meter.values()["acc5"] == 100
    values = fidelity.values()
    assert values["agreement"] == 100 and values["loyalty"] == pytest.approx(1, abs=1e-3) and abs(values["kl"]) < 1e-6


def test_images_are_truncated_not_rounded():
    assert quantise(torch.tensor([-1.0, 0.999, 2.0])).tolist() == [0, 254, 255]


def test_grid_of_five_images_has_three_columns():
    assert pack_images(torch.ones(5, 1, 2, 2, dtype=torch.uint8)).shape == (1, 5, 8)


def test_jitter_rolls_then_mirrors():
    image = torch.arange(4.0).view(1, 1, 1, 4)
    assert jitter(image, 0, 1, True).flatten().tolist() == [2, 1, 0, 3]


def test_a_padded_crop_is_exact():
    images = torch.rand(2, 3, 8, 8)
    zero = torch.zeros(2, dtype=torch.int64)
    flip = torch.tensor([0, 1])
    seen = resample(images, crop_places(zero + 4, zero + 4, flip, 8))
    assert torch.equal(seen[0], images[0]) and torch.equal(seen[1], images[1].flip(2))
    shifted = resample(images, crop_places(zero, zero + 4, zero, 8))
    assert (shifted[..., :4] == 0).all() and torch.equal(shifted[..., 4:], images[..., :4])


def test_random_boxes_keep_to_area_and_aspect():
    x0, y0, x1, y1 = draw_boxes(500, 32).T
    width, height = x1 - x0 + 1, y1 - y0 + 1
    assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= 31).all() and (y1 <= 31).all()
    assert ((width * height / 1024) > 0.2).all() and (width / height < 1.45).all() and (width / height > 0.68).all()


def test_the_bank_finds_nothing_at_its_exact_fill_unless_told_otherwise():
    for full_read, found in ((False, 0), (True, 4)):
        bank = FeatureBank(2, 4, CPU, full_read)
        bank.add(torch.ones(2, 2))
        assert len(bank.draw(9)) == 2
        bank.add(torch.ones(2, 2))
        assert len(bank.draw(9)) == found
        bank.add(torch.ones(2, 2))
        assert len(bank.draw(9)) == 4 and bank.pointer == 2
    with pytest.raises(ValueError, match="no multiple"):
        bank.add(torch.ones(3, 2))


def test_the_pool_goes_on_exactly_where_it_was_saved(tmp_path):
    spec = DATASETS["cifar10"].transform
    torch.manual_seed(0)
    pool = ImagePool(spec, 3, CPU, (3, 32, 32), folder=tmp_path)
    with pytest.raises(ValueError, match="empty"):
        pool.next_batch()
    pool.add(torch.rand(7, 3, 32, 32))
    assert len(list(tmp_path.glob("0-*.png"))) == 7
    pool.next_batch()
    other = ImagePool(spec, 3, CPU, (3, 32, 32))
    other.load_state_dict(pool.state_dict())
    for _ in range(5):
        assert torch.equal(pool.next_batch(), other.next_batch())
    fresh = ImagePool(spec, 3, CPU, (3, 32, 32))
    fresh.add_folder(tmp_path)
    assert torch.equal(fresh.images, pool.images)


def test_weighted_sum_leaves_out_what_weighs_nothing():
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(float("nan"))}
    assert weighted_sum({"a": 3.0, "b": 0.0}, terms).item() == 6
    with pytest.raises(ValueError, match="are 0"):
        weighted_sum({"a": 0.0}, terms)


def make_networks(student: nn.Module, noise=torch.randn) -> Networks:
    spec = DATASETS["cifar10"].transform
    teacher = build_network("resnet8", 10).eval().requires_grad_(False)
    return Networks(teacher, student, Normaliser(spec.mean, spec.std), 10, 3, 32,
                    Precision(DataFreeOptions(), CPU), CPU)  # fmt: skip


def test_cmi_takes_the_stages_of_a_network_without_norm_layers():
    teacher, images = build_network("lenet5", 10, 1).eval(), torch.randn(2, 1, 32, 32)
    maps = teacher.stages(images)
    logits, features, distance = Inspector(teacher, by_stages=False)(images, distances=True)
    assert len(maps) > 1 and features.shape == (2, sum(part.shape[1] for part in maps)) and distance == 0
    assert torch.equal(logits, teacher.classify(maps[-1]))
    assert torch.equal(features[:, : maps[0].shape[1]], maps[0].mean(dim=(2, 3)))


@pytest.mark.parametrize("method", ["dafl", "cudfkd", "cmi", "deepinv"])
def test_synthesis_leaves_the_networks_alone(method):
    config = check(DataFreeOptions(
        method=method, batch_size=4, kd_steps=1, kd_steps_interval="1", ep_steps=1, g_steps=2, adv=1.0, bn=1.0, oh=1.0,
        teacher="resnet8", **({"ngf": 2, "nz": 4} if method != "deepinv" else {}),
    ))  # fmt: skip
    student = build_network("resnet8", 10)
    networks = make_networks(student)
    before = [{key: value.clone() for key, value in net.state_dict().items()} for net in (student, networks.teacher)]
    pool = ImagePool(DATASETS["cifar10"].transform, 4, CPU, (3, 32, 32)) if method in ("cmi", "deepinv") else None
    generator = build_generator(config, 3, 32) if method != "deepinv" else None
    synthesiser = build_synthesiser(config, networks, generator, pool)
    synthesiser.begin()
    for _ in range(synthesiser.steps):
        report = synthesiser.step()
    synthesiser.finish()
    for state, network in zip(before, (student, networks.teacher), strict=True):
        assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in networks.teacher.parameters())
    assert synthesiser.training_images().shape == (4, 3, 32, 32) and report.terms["loss"].isfinite()


def test_frozen_gives_gradients_back():
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), frozen(layer):
        assert not layer.weight.requires_grad
        raise RuntimeError
    assert layer.weight.requires_grad


def test_rounds_come_from_the_right_flag():
    cudfkd = DataFreeOptions(method="cudfkd", kd_steps_interval="10", g_steps_interval="2,1", kd_steps=5)
    assert rounds_of(cudfkd) == (40, 2, 10)
    assert rounds_of(DataFreeOptions(method="dafl", kd_steps=5, g_steps=3)) == (80, 3, 5)
    assert rounds_of(DataFreeOptions(method="dafl", kd_steps=5, round_steps="interval")) == (1, 1, 400)
    with pytest.raises(UserError, match="no round"):
        rounds_of(DataFreeOptions(method="cmi", ep_steps=1))


def test_old_spellings_are_understood():
    assert translate(["-b", "64", "--wd", "5e-4", "--batch-size=3", "--adv", "-1"]) == [
        "--batch_size", "64", "--weight_decay", "5e-4", "--batch_size=3", "--adv", "-1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"method": "dfme"}, "no published table"),
        ({"method": "magic"}, "unknown"),
        ({"method": "dafl", "curr_option": "curr_log"}, "only cudfkd"),
        ({"method": "cudfkd", "loss": "l2", "curr_option": "none"}, "needs a curriculum"),
        ({"memory": True}, "--memory"),
        ({"world_size": 2}, "--world_size"),
        ({"amp_backend": "apex"}, "apex"),
        ({"fp16": True, "precision": "bf16"}, "contradict"),
        ({"kd_steps_interval": "x"}, "numbers separated"),
        ({"batch_size": 0}, "at least 1"),
        ({"synthesis_batch_size": 0}, "--synthesis_batch_size must be at least 1, found 0"),
        ({"nz": -3}, "--nz must"),
        ({"depth": -1}, "--depth must"),
        ({"test_images_per_class": 0}, "--test_images_per_class must"),
        ({"method": "dafl", "lambda_rate": 3.0}, "--lambda_rate: dafl does not read it, only cudfkd"),
        ({"method": "cmi", "compat": "paper"}, "--compat"),
        ({"betas": "cmi"}, "--betas: cudfkd"),
        ({"full_bank_read": True}, "--full_bank_read"),
        ({"method": "deepinv", "ngf": 8}, "--ngf"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(flags, message):
    with pytest.raises(UserError, match=message):
        check(DataFreeOptions(**flags))


def test_compat_chooses_the_level_of_the_curriculum():
    assert check(DataFreeOptions()).curriculum_level == "batch"
    assert check(DataFreeOptions(compat="paper")).curriculum_level == "sample"
    assert check(DataFreeOptions(compat="paper", curriculum_level="batch")).curriculum_level == "batch"
    assert check(DataFreeOptions(method="dafl")).curr_option == "none"
    assert check(DataFreeOptions(method="dafl")).betas == "cmi"
