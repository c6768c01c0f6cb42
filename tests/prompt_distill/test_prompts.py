"""Prompt methods and networks: counts against the measured ones, orthogonality, selection, devices, merging."""

from __future__ import annotations

import pytest
import torch

from common.training.errors import UserError
from prompt_distill.building import build_pair
from prompt_distill.configuration import check
from prompt_distill.options import PromptDistillOptions
from prompt_distill.prompts import PROMPTS
from prompt_distill.prompts.base import PromptSetting
from prompt_distill.prompts.coda import gram_schmidt
from prompt_distill.prompts.pools import all_pairs_distance, own_keys_distance
from prompt_distill.vit import ViTSize, build_vit, forward_tokens, query_of

pytestmark = pytest.mark.unit

PARAMS = {"CODAPrompt": [100, 8, 0.0], "DualPrompt": [10, 20, 6], "L2P": [30, 20, -1], "APT": [0.01]}
WIDTHS = {
    "large": ViTSize(1024, 24, 16),
    "base": ViTSize(768, 12, 12),
    "small": ViTSize(384, 12, 6),
    "tiny": ViTSize(192, 12, 3),
}


def setting(**given) -> PromptSetting:
    return PromptSetting(**{"dim": 8, "key_dim": 8, "depth": 5, "heads": 2, "tasks": 2, "param": (), **given})


class Bare(torch.nn.Module):
    """Stands for a backbone of a size whose weights nobody needs."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.embed_dim, self.blocks = size.dim, [None] * size.depth


MEASURED = [
    ("base", "small", "CODAPrompt", "KD_Token", 3_532_900, 2_022_728),
    ("base", "small", "CODAPrompt", "KD", None, 1_958_500),
    ("base", "small", "CODAPrompt", "FitNets", None, 2_254_180),
    ("base", "small", "CODAPrompt", "ReviewKD", None, 8_933_860),
    ("base", "small", "CODAPrompt", "CDL-Prompt", None, 4_301_000),
    ("base", "small", "DualPrompt", "KD_Token", 558_436, 349_256),
    ("base", "small", "DualPrompt", "CDL-Prompt", None, 784_328),
    ("base", "small", "L2P", "KD_Token", 549_220, 344_648),
    ("base", "small", "L2P", "CDL-Prompt", None, 1_701_320),
    # 12 blocks hold two 2x2 layers each that the original trains and never uses (D10)
    ("base", "small", "APT", "KD_Token", 95_476 - 144, 112_088 - 144),
    ("large", "base", "DualPrompt", "KD_Token", 752_228, 698_312),
    ("large", "base", "L2P", "CDL-Prompt", 739_940, 3_248_840),
    ("base", "tiny", "CODAPrompt", "FitNets", 3_340_900, 1_127_524),
]


@pytest.mark.parametrize(("teacher", "student", "learner", "method", "of_teacher", "of_student"), MEASURED)
def test_numbers_of_trained_parameters(teacher, student, learner, method, of_teacher, of_student):
    """The counts that were measured on the originals, 100 classes and 10 tasks."""
    config = PromptDistillOptions(
        learner_name=learner, prompt_param=PARAMS[learner], KD_method=method, kd_prompt_param=[12, 6]
    )
    sizes = {"teacher": WIDTHS[teacher], "student": WIDTHS[student]}
    pair = build_pair(config, check(config), Bare(sizes["student"]), Bare(sizes["teacher"]), sizes, 100, 10)
    trained = sum(p.numel() for p in [*pair.student.trainable(), *pair.distillation.trainable()])
    assert trained == of_student
    if of_teacher is not None:
        assert sum(p.numel() for p in pair.teacher.trainable()) == of_teacher


@pytest.mark.parametrize(("name", "parameters"), [("tiny", 5_524_416), ("small", 21_665_664)])
def test_backbones_have_the_published_sizes(name, parameters):
    assert sum(p.numel() for p in build_vit(WIDTHS[name]).parameters()) == parameters


def test_without_prompts_the_backbone_is_timms():
    torch.manual_seed(0)
    vit = build_vit(ViTSize(16, 3, 2, image=8, patch=4)).eval()
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(forward_tokens(vit, images).last, vit.forward_features(images))
    assert not query_of(vit, images).requires_grad


def test_new_components_are_orthonormal_to_old_and_new_ones():
    torch.manual_seed(0)
    pool = gram_schmidt(torch.zeros(6, 4, 3), 0, 3, torch.randn)
    grown = gram_schmidt(pool, 3, 6, torch.randn)
    torch.testing.assert_close(grown[:3], pool[:3], rtol=0, atol=0)
    assert not pool[3:].any()
    rows = grown.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(6), atol=1e-5, rtol=0)


def test_a_pool_larger_than_its_space_is_refused():
    with pytest.raises(UserError, match="smaller pool"):
        gram_schmidt(torch.zeros(6, 4), 0, 5, torch.randn)


def test_old_components_get_no_gradient_and_later_ones_are_not_used():
    torch.manual_seed(0)
    method = PROMPTS["CODAPrompt"](setting(dim=12, key_dim=12, tasks=3, param=(6, 4, 0.0)))
    method.next_task()
    injection, loss = method.inject(0, torch.randn(2, 12), True)
    (injection.own.keys.sum() + injection.own.values.square().sum()).backward()
    gradient = method.pools.e_p_0.grad
    assert loss is None and not gradient[:2].any() and gradient[2:4].any() and not gradient[4:].any()


def test_dual_trains_the_tasks_expert_and_infers_the_nearest():
    torch.manual_seed(0)
    method = PROMPTS["DualPrompt"](setting(param=(3, 4, 2)))
    method.next_task()
    query = method.e_k_2.detach()[[2, 0]]
    prefix, loss = method.inject(2, query, True)
    torch.testing.assert_close(prefix.own.keys[0], method.e_p_2[1, :2])
    assert loss > 0
    prefix, loss = method.inject(2, query, False)
    torch.testing.assert_close(prefix.own.keys, method.e_p_2[[2, 0], :2])
    assert loss is None


@pytest.mark.parametrize(
    ("learner", "param", "key_loss", "factor"),
    [
        ("DualPrompt", (2, 4, 2), "mean", 2.0),
        ("DualPrompt", (2, 4, 2), "sum", 1.0),
        ("L2P", (6, 4, -1), "mean", 2.0),
        ("CODAPrompt", (4, 4, 0.5), "mean", 2.0),
    ],
)
def test_two_devices_weigh_prompt_losses_as_the_original_did(learner, param, key_loss, factor):
    losses = []
    for devices in (1, 2):
        torch.manual_seed(0)
        method = PROMPTS[learner](setting(param=param, key_loss=key_loss, devices=devices))
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn(parameter.shape))
        parts = [method.inject(layer, torch.randn(4, 8), True)[1] for layer in range(5)]
        losses.append(sum(part for part in parts if part is not None))
    torch.testing.assert_close(losses[1], factor * losses[0])


def test_both_distances_of_l2p_by_hand():
    similarity = torch.tensor([[0.5, 0.0, -1.0], [1.0, 0.25, 0.0]])
    chosen = torch.tensor([[0, 1], [0, 1]])
    assert own_keys_distance(similarity, chosen).item() == pytest.approx(((0.5 + 1.0) + (0 + 0.75)) / 2)
    assert all_pairs_distance(similarity, chosen).item() == pytest.approx(2 * (0.5 + 1.0) + 2 * (0 + 0.75))


def test_apt_infers_with_the_merged_buffer():
    method = PROMPTS["APT"](setting(ema=0.7))
    assert not method.inject(0, torch.zeros(1, 8), False)[0].added.keys.any()
    method.finish_task()
    first = method.prompt_tokens.detach().clone()
    torch.testing.assert_close(method.global_merged_prompt, first)
    method.next_task()
    with torch.no_grad():
        method.prompt_tokens.add_(1.0)
    method.finish_task()
    torch.testing.assert_close(method.global_merged_prompt, 0.7 * first + 0.3 * (first + 1))


@pytest.mark.parametrize(
    ("learner", "param", "message"),
    [
        ("CODAPrompt", (1, 8, 0.0), "too small"),
        ("CODAPrompt", (4, 8), "weight of the penalty"),
        ("DualPrompt", (1, 4, 2), "one expert per task"),
        ("L2P", (4, 4, -1), "the pool has 4"),
        ("L2P", (0.5, 4, -1), "whole numbers"),
    ],
)
def test_numbers_that_cannot_work_are_refused(learner, param, message):
    with pytest.raises(UserError, match=message):
        PROMPTS[learner](setting(param=param))
