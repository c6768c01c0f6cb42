"""The learner: resume, merging and freezing, regularisers, two processes, refusals."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.backbones.abn import norms_of
from common.training.errors import UserError
from common.training.options import RunOptions
from common.training.precision import Precision
from segmentation import losses
from segmentation.pseudo import pseudo_label
from segmentation.rcil.merging import merge_branches
from segmentation.regularizers import EWC, PI, RW
from tests.helpers import REPOSITORY
from tests.segmentation.building import CPU, random_batch, small_config, small_learner

pytestmark = pytest.mark.unit

COUNTS = [4, 2]


def two_steps(learner):
    batch = random_batch(COUNTS)
    learner.begin([batch])
    learner.train_mode()
    return [learner.step(*batch) for _ in range(2)]


@pytest.mark.parametrize("method", ["FT", "LWF", "LWF-MC", "ILT", "MiB", "PLOP", "RCIL", "EWC"])
def test_every_method_moves_new_weights_only(method):
    saved = {"fisher": {}} if method == "EWC" else None
    learner = small_learner(method, COUNTS, learner={"trainer_state": saved})
    before = copy.deepcopy(learner.old_network.state_dict())
    start = copy.deepcopy(learner.network.state_dict())
    first, second = two_steps(learner)
    assert all(torch.isfinite(value) for value in (*first.values(), *second.values()))
    named = ("ce", "lkd", "lde", "lreg", "pod", "entmin", "icarl")
    assert first["loss"].item() == pytest.approx(sum(first[name].item() for name in named), rel=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in learner.old_network.state_dict().items())
    assert not torch.equal(learner.network.cls[1].weight, start["cls.1.weight"])
    assert all(p.grad is None for p in learner.old_network.parameters())
    terms = {"LWF": "lkd", "LWF-MC": "icarl", "ILT": "lde", "MiB": "lkd", "PLOP": "pod", "RCIL": "pod"}
    assert method not in terms or first[terms[method]] > 0


@pytest.mark.parametrize("method", ["PLOP", "RCIL", "PI", "RW"])
def test_a_resumed_learner_goes_on_bit_by_bit(method):
    saved = {"PI": {"score": {}}, "RW": {"score": {}, "fisher": {}}}.get(method)
    batches = [random_batch(COUNTS, seed=seed) for seed in range(3)]
    straight, resumed = (small_learner(method, COUNTS, learner={"trainer_state": saved}) for _ in range(2))
    straight.begin(batches)
    straight.train_mode()
    straight.step(*batches[0])
    state, random = copy.deepcopy(straight.state_dict()), torch.get_rng_state()
    expected = [straight.step(*batch) for batch in batches[1:]]
    resumed.load_state_dict(state)
    resumed.train_mode()
    torch.set_rng_state(random)
    found = [resumed.step(*batch) for batch in batches[1:]]
    assert all(torch.equal(a[name], b[name]) for a, b in zip(expected, found, strict=True) for name in a)
    for key, value in resumed.network.state_dict().items():
        assert torch.equal(value, straight.network.state_dict()[key]), key


def test_a_step_in_the_first_task_asks_no_old_network():
    learner = small_learner("PLOP", [4])
    terms = two_steps_of_first(learner)
    assert terms["pod"] == 0 and terms["lkd"] == 0


def two_steps_of_first(learner):
    images, labels = random_batch([4])
    learner.train_mode()
    learner.step(images, labels)
    return learner.step(images, labels)


# --- RCIL -------------------------------------------------------------------------------------------------------------


def test_merged_branches_stay_as_they_are():
    learner = small_learner("RCIL", COUNTS)
    kept = {k: v.clone() for k, v in learner.network.state_dict().items() if ".conv2." in k or ".bn2." in k}
    head = {k: v.clone() for k, v in learner.network.state_dict().items() if "map_convs." in k or "map_bn." in k}
    two_steps(learner)
    state = learner.network.state_dict()
    assert kept and head and all(torch.equal(state[key], value) for key, value in {**kept, **head}.items())
    assert any(not torch.equal(p, q) for p, q in zip(
        learner.network.head.map_convs_new.parameters(),
        small_learner("RCIL", COUNTS).network.head.map_convs_new.parameters(), strict=True,
    ))  # fmt: skip


@pytest.mark.parametrize("compensate", [False, True])
def test_a_compensated_merge_starts_at_the_old_function(compensate):
    network = small_learner("RCIL", [4]).network
    for _ in range(3):
        network.train()(torch.randn(4, 3, 32, 32))
    network.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images)[0]
        merge_branches(network, compensate=compensate)
        after = network(images)[0]
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-3) == compensate


# --- regularisers -----------------------------------------------------------------------------------------------------


class OneWeight(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([value, 0.0]))


def walk(regularizer, network, gradients, steps=(0.0,)):
    for gradient, step in zip(gradients, steps, strict=True):
        network.weight.grad = torch.tensor([gradient, 0.0])
        regularizer.update()
        network.weight.data[0] += step


def test_ewc_averages_squared_gradients_and_scales_the_old_ones():
    network = OneWeight(1.0)
    ewc = EWC(network, {"weight": torch.tensor([0.5, 0.0])}, {"fisher": {"weight": torch.tensor([3.0, 1.0])}})
    walk(ewc, network, [2.0])
    assert ewc.trainer_state()["fisher"]["weight"].tolist() == pytest.approx([0.9 * 4 + 0.1, 0.1])
    assert ewc.penalty(network).item() == pytest.approx(1.0 * 0.5**2)  # scaled to 1 and 0


def test_pi_divides_the_fall_of_the_loss_by_the_squared_change():
    network = OneWeight(1.0)
    pi = PI(network, None, None)
    walk(pi, network, [5.0, -2.0, -1.0], [0.5, 0.5, 0.0])
    # the first gradient does not count: -2 * (1 - 1.5) + -1 * (1.5 - 2)
    assert pi.trainer_state()["score"]["weight"].tolist() == pytest.approx([1.5 / 1.0, 0.0])


def test_rw_scores_every_few_iterations():
    network = OneWeight(1.0)
    rw = RW(network, None, None, alpha=1.0, iterations=2)
    walk(rw, network, [1.0, -2.0, -1.0], [0.5, 0.5, 0.0])
    # at the third iteration: delta = -2 * -0.5 + -1 * -0.5, distance 0.5 * 1^2 * 0.5^2
    assert rw.trainer_state()["score"]["weight"].tolist() == pytest.approx([1.5 / 0.125 / 2, 0.0], rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "saved", "found"),
    [
        (EWC, None, "no"), (PI, {"fisher": {}}, "fisher"), (PI, {"fisher": {}, "score": {}}, "fisher and score"),
        (RW, {"score": {}}, "score"), (EWC, [{"factors": {}}], "VDFD's"),
    ],
)  # fmt: skip
def test_importances_of_another_method_are_refused_in_one_line(kind, saved, found):
    with pytest.raises(UserError, match=f"holds {found} importances, {kind.__name__} needs"):
        kind(OneWeight(1.0), {"weight": torch.zeros(2)}, saved)


def test_overflowed_gradients_do_not_spoil_the_importance():
    network = OneWeight(1.0)
    ewc = EWC(network, None, None)
    walk(ewc, network, [float("inf")])
    assert torch.isfinite(ewc.trainer_state()["fisher"]["weight"]).all()


# --- flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["nca", "kd_new"])
def test_flags_that_raise_in_the_original_are_refused(flag):
    with pytest.raises(UserError, match=flag):
        small_learner("FT", COUNTS, **{flag: True})


def test_entropy_of_the_background_needs_a_background():
    """D37: no old class in the first step, or an image without old pixels, gives 0 and not 0 / 0."""
    images, labels = random_batch(COUNTS)
    labels[0] = 4
    for counts, given in (([4], random_batch([4])[1]), (COUNTS, labels)):
        learner = small_learner("FT", counts, entropy_min=1.0)
        learner.train_mode()
        terms = learner.losses(images, given)
        assert torch.isfinite(terms["loss"]) and (terms["entmin"] > 0) == (len(counts) > 1)


def test_pooled_cubes_may_leave_the_schedule_out():
    terms = []
    for off in (False, True):
        torch.manual_seed(0)
        learner = small_learner("RCIL", COUNTS, no_pod_schedule=off)
        learner.network.eval()
        terms.append(learner.losses(*random_batch(COUNTS))["pod"].item())
    assert terms[0] == pytest.approx(terms[1] * (6 / 2) ** 0.5)


@pytest.mark.parametrize("mode", ["threshold_0.5", "entropy"])
def test_with_two_cross_entropies_unsure_background_keeps_its_label(mode):
    """--ce_on_pseudo: the unbiased cross-entropy of the original labels, but where a pseudo-label counts."""
    learner = small_learner("FT", COUNTS, pseudo=mode, unce=True, ce_on_pseudo=True)
    torch.manual_seed(3)
    logits, old_logits = torch.randn(1, 6, 8, 8), 3 * torch.randn(1, 4, 8, 8)
    labels = random_batch(COUNTS, size=8, count=1)[1].long()
    thresholds = torch.full((6,), 0.05)
    pseudo = pseudo_label(labels, old_logits, learner.config, thresholds, 6)
    found = learner.objective.supervised(logits, pseudo.labels, old_logits, pseudo)
    chosen = pseudo.background & pseudo.valid
    assert 0 < chosen.sum() < pseudo.background.sum()
    on_labels = losses.unbiased_cross_entropy(logits, labels, old_classes=4, ignored=chosen)
    on_pseudo = losses.cross_entropy(logits, old_logits.argmax(dim=1).masked_fill(~chosen, 255))
    torch.testing.assert_close(found, (on_labels + on_pseudo).mean())


def test_old_classifiers_may_learn_more_slowly():
    groups = small_learner("FT", COUNTS, lr_old=0.1).optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.01, 0.001, 0.01])
    assert len(small_learner("FT", COUNTS, freeze=True).optimizer.param_groups) == 2


def test_fixed_norms_keep_their_affine_parameters_and_move_their_statistics_as_released():
    learner = small_learner("FT", COUNTS, fix_bn=True)
    norms = list(norms_of(learner.network))
    before = [(norm.weight.clone(), norm.running_mean.clone()) for norm in norms]
    two_steps(learner)
    for norm, (weight, mean) in zip(norms, before, strict=True):
        assert torch.equal(norm.weight, weight) and not torch.equal(norm.running_mean, mean)


def test_a_frozen_body_stays():
    learner = small_learner("FT", COUNTS, freeze=True)
    before = [parameter.clone() for parameter in learner.network.body.parameters()]
    two_steps(learner)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.network.body.parameters(), strict=True))


@pytest.mark.parametrize("method", ["PLOP", "RCIL"])
def test_the_fast_layout_computes_the_same(method):
    plain, fast = small_learner(method, COUNTS), small_learner(method, COUNTS, fast=True)
    weight = fast.network.body.mod1.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    found = []
    for learner in (plain, fast):
        torch.manual_seed(5)
        found.append(two_steps(learner)[0]["loss"].item())
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_short_formats_train():
    precision = Precision(RunOptions(precision="bf16"), CPU)
    learner = small_learner("PLOP", COUNTS, learner={"precision": precision})
    reference = two_steps(small_learner("PLOP", COUNTS))
    for found, expected in zip(two_steps(learner), reference, strict=True):
        assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=0.1)


def test_importances_do_not_depend_on_the_loss_scale():
    fishers = []
    for name in ("fp32", "fp16"):
        learner = small_learner("EWC", [4], learner={"precision": Precision(RunOptions(precision=name), CPU)})
        learner.train_mode()
        learner.step(*random_batch([4]))
        fishers.append(learner.trainer_state()["fisher"]["cls.0.weight"] - 0.1)
    assert fishers[0].abs().max() > 1e-7
    assert (fishers[0] - fishers[1]).norm() < 0.1 * fishers[0].norm()


def test_a_batch_of_one_is_refused_in_one_line():
    with pytest.raises(UserError, match="--batch_size 1"):
        small_learner("FT", [4]).step(*random_batch([4], count=1))
    alone = small_learner("FT", [4], norm_act="abn")
    alone.processes.count = 2  # others have images too, but such a norm does not see them
    with pytest.raises(UserError, match="--batch_size 1"):
        alone.step(*random_batch([4], count=1))


# --- two processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("learners")
    script = Path(__file__).with_name("shared_step.py")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(20000 + os.getpid() % 20000)}  # fmt: skip
    running = [
        subprocess.Popen([sys.executable, str(script), str(folder / f"{rank}.pt")], stderr=subprocess.PIPE, text=True,
                         env={**environment, "RANK": str(rank)})
        for rank in (0, 1)
    ]  # fmt: skip
    for process in running:
        assert process.wait(timeout=240) == 0, process.stderr.read()
    return folder


def test_two_processes_equal_one_at_the_same_batch(two_processes):
    learner = small_learner("PLOP", COUNTS)
    two_steps(learner)
    expected = learner.network.state_dict()
    for rank in (0, 1):
        found = torch.load(two_processes / f"{rank}.pt")
        for key, value in expected.items():
            torch.testing.assert_close(found["network"][key], value, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found["thresholds"], learner.objective.thresholds, equal_nan=True)


def test_default_norm_is_the_synchronised_one():
    assert small_config().norm_act == "iabn_sync"
