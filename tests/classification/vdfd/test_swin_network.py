"""The Swin network: windows, masks and positions by hand, sizes of Swin-T, what it refuses."""

from __future__ import annotations

import pytest
import torch

from classification.vdfd.optimization import backbone_names, parameter_groups
from common.backbones.registry import build_backbone
from common.backbones.swin_vdfd import (
    PatchMerging,
    SwinTransformer,
    WindowAttention,
    join_windows,
    relative_positions,
    shift_mask,
    split_windows,
)
from common.training.errors import UserError

pytestmark = pytest.mark.unit

SMALL = {
    "img_size": 32, "patch_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4,
}  # fmt: skip


def test_windows_by_hand():
    tokens = torch.arange(16.0).view(1, 4, 4, 1)
    windows = split_windows(tokens, 2)
    assert windows.squeeze(-1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert torch.equal(join_windows(windows, 2, 4, 4), tokens)


def test_relative_positions_by_hand():
    index = relative_positions(2)  # tokens (0,0) (0,1) (1,0) (1,1); offsets -1..1, counted from 0 in a 3x3 table
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_mask_keeps_apart_what_the_shift_brings_together():
    mask = shift_mask(4, 2, 1)  # windows of 2x2 on a 4x4 map that was rolled by 1
    assert mask.shape == (4, 4, 4)
    assert torch.equal(mask[0], torch.zeros(4, 4))  # the window that no border crosses
    right = torch.tensor([[0, -100, 0, -100], [-100, 0, -100, 0], [0, -100, 0, -100], [-100, 0, -100, 0]]).float()
    assert torch.equal(mask[1], right)  # left and right column come from opposite borders
    assert torch.equal(mask[3], torch.where(torch.eye(4) == 1, 0.0, -100.0))  # four corners of the image


def test_masked_tokens_do_not_see_each_other():
    torch.manual_seed(0)
    attention = WindowAttention(dim=4, window=2, heads=2)
    mask = torch.zeros(1, 4, 4)
    mask[0, :2, 2:] = mask[0, 2:, :2] = -100.0
    windows = torch.randn(1, 4, 4)
    changed = windows.clone()
    changed[0, 3] += 5.0
    with torch.no_grad():
        before, after = attention(windows, mask)[0], attention(changed, mask)[0]
    assert torch.allclose(before[:2], after[:2], atol=1e-6) and not torch.allclose(before[2], after[2], atol=1e-3)


def test_merging_takes_neighbours_in_the_published_order():
    merging = PatchMerging(dim=1, resolution=2)
    torch.nn.init.eye_(merging.reduction.weight)
    merging.norm = torch.nn.Identity()
    tokens = torch.tensor([10.0, 20.0, 30.0, 40.0]).view(1, 4, 1)  # rows of the map: 10 20 / 30 40
    assert merging(tokens).flatten().tolist() == [10.0, 30.0]  # (0,0), (1,0); then (0,1), (1,1)


def test_a_map_no_larger_than_a_window_is_one_window():
    model = SwinTransformer(**SMALL)  # 8 tokens per side, then 4
    first, second = model.layers
    assert [block.shift for block in first.blocks] == [0, 2]
    assert [block.shift for block in second.blocks] == [0, 0]
    keys = list(model.state_dict())
    assert "layers.0.blocks.1.attn_mask" in keys and "layers.1.blocks.1.attn_mask" not in keys


def test_branches_are_left_out_more_often_the_deeper():
    rates = [block.drop_path.p for stage in SwinTransformer().layers for block in stage.blocks]
    assert rates[0] == 0 and rates[-1] == pytest.approx(0.1) and rates == sorted(rates) and len(rates) == 12


def test_initial_weights():
    torch.manual_seed(0)
    model = SwinTransformer(**SMALL | {"embed_dim": 32})
    for name, parameter in model.named_parameters():
        if name.endswith("relative_position_bias_table") or (parameter.dim() == 2):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.2), name
        elif name.endswith("bias") and "patch_embed.proj" not in name:
            assert not parameter.any(), name


def test_size_of_swin_t():
    model = build_backbone("swin", "SwinTransformer")
    model.set_heads({str(task): 10 for task in range(1, 11)})
    assert sum(parameter.numel() for parameter in model.parameters()) == 28_365_154
    assert len(backbone_names(model)) == 171 and model.num_features == 768


def test_the_unused_classifier_is_neither_optimised_nor_regularised():
    model = SwinTransformer(**SMALL)
    model.set_heads({"1": 3, "2": 3})
    groups = parameter_groups(model, "2", head_lr=1, model_lr=1, head_weight_decay=0, model_weight_decay=0)
    assert groups[0]["names"] == ["last.2.weight"]
    named = {name for group in groups for name in group["names"]}
    assert {name for name, _ in model.named_parameters()} - named == {"head.weight", "head.bias", "last.1.weight"}
    model(torch.randn(1, 3, 32, 32))["2"].sum().backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == {"head.weight", "head.bias", "last.1.weight"}


def test_images_of_another_size_are_refused_in_one_line():
    with pytest.raises(UserError, match="32 x 32 images, found 16 x 16") as refused:
        SwinTransformer(**SMALL).embed(torch.zeros(1, 3, 16, 16))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_heads": (3, 2)}, "3 heads"),
        ({"num_heads": (2,)}, "one number of heads per stage"),
        ({"window_size": 3}, "windows of 3"),
        ({"img_size": 12, "window_size": 8}, "3 tokens per side"),
    ],
)
def test_sizes_that_do_not_fit(change, expected):
    with pytest.raises(ValueError, match=expected):
        SwinTransformer(**SMALL | change)
