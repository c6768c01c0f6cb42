"""Swin: which tokens meet in a window, what the shift separates, how patches merge, sizes and names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.backbones.swin_vdfd import (
    PatchMerging,
    SwinBlock,
    SwinTransformer,
    join_windows,
    relative_positions,
    shift_mask,
    split_windows,
)
from common.training.errors import UserError

pytestmark = pytest.mark.unit


def tiny(**changes) -> SwinTransformer:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 2, "embed_dim": 4, "depths": (2, 2), "num_heads": (1, 2), "window_size": 4}
    return SwinTransformer(**(sizes | {"num_classes": 3} | changes))


def test_windows_are_cut_row_by_row_and_put_together_again() -> None:
    tokens = torch.arange(16).reshape(1, 4, 4, 1)
    windows = split_windows(tokens, 2)
    assert windows.squeeze(-1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    tokens = torch.randn(3, 4, 8, 5)
    assert torch.equal(join_windows(split_windows(tokens, 2), 2, 4, 8), tokens)


def test_relative_positions_of_a_window_of_two() -> None:
    # offsets run from -1 to 1 along each axis; row of the table: 3 (dy + 1) + (dx + 1)
    assert relative_positions(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_the_mask_of_a_shifted_map_of_four() -> None:
    mask = shift_mask(4, 2, 1)
    assert mask.shape == (4, 4, 4)
    assert not mask[0].any()  # no border inside
    beside = [[0, -100, 0, -100], [-100, 0, -100, 0], [0, -100, 0, -100], [-100, 0, -100, 0]]
    assert mask[1].tolist() == beside  # the border runs between its columns
    assert torch.equal(mask[3], -100 * (1 - torch.eye(4)))  # four corners of the image, all strangers


@pytest.mark.parametrize(
    ("shifted", "place", "reached"),
    [
        (False, (3, 3), {(2, 2), (2, 3), (3, 2), (3, 3)}),
        (True, (1, 1), {(1, 1), (1, 2), (2, 1), (2, 2)}),
        (True, (3, 3), {(3, 3)}),  # the shift brings it to the other corners; the mask keeps them apart
        (True, (0, 1), {(0, 1), (0, 2)}),
    ],
)
def test_a_token_reaches_its_window_only(shifted: bool, place: tuple[int, int], reached: set[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    block = SwinBlock(4, 4, 2, 2, shifted, 2.0, 0.0).double().eval()
    tokens = torch.randn(1, 16, 4, dtype=torch.float64)
    other = tokens.clone()
    other[0, 4 * place[0] + place[1]] = torch.randn(4, dtype=torch.float64)
    with torch.no_grad():
        moved = (block(tokens) - block(other)).abs().amax(-1).reshape(4, 4) > 1e-9
    assert {(row, column) for row in range(4) for column in range(4) if moved[row, column]} == reached


def test_a_map_no_larger_than_its_window_is_not_shifted() -> None:
    block = SwinBlock(4, 4, 2, 7, True, 2.0, 0.0)
    assert (block.window, block.shift) == (4, 0)
    assert "attn_mask" not in block.state_dict()
    assert "attn_mask" in SwinBlock(4, 4, 2, 2, True, 2.0, 0.0).state_dict()


def test_four_neighbours_merge_column_by_column() -> None:
    merging = PatchMerging(1, 2)
    merging.norm = nn.Identity()
    merging.reduction = nn.Identity()
    assert merging(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])).tolist() == [[[1.0, 3.0, 2.0, 4.0]]]


def test_shapes_heads_and_the_unused_classifier() -> None:
    model = tiny().eval()
    assert model.num_features == 8
    model.set_heads({"1": 2, "2": 3})
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert model.embed(images).shape == (2, 8)
        assert {name: tuple(logits.shape) for name, logits in model(images).items()} == {"1": (2, 2), "2": (2, 3)}
    keys = list(model.state_dict())
    assert keys[-4:] == ["head.weight", "head.bias", "last.1.weight", "last.2.weight"]
    model.zero_grad()
    sum(logits.sum() for logits in model(images).values()).backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == ["head.weight", "head.bias"]


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(UserError, match="16 x 16 images, found 32 x 32"):
        tiny().embed(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"num_heads": (1,)}, "one number of heads per stage"),
        ({"num_heads": (3, 2)}, "cannot be shared by 3 heads"),
        ({"window_size": 3}, "do not tile 8 tokens"),
        ({"img_size": 18, "window_size": 9}, "cannot be merged in pairs"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        tiny(**changes)


def test_branches_are_left_out_more_often_towards_the_end_and_only_in_training() -> None:
    model = tiny(drop_path_rate=0.3)
    rates = [block.drop_path.p for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    images = torch.randn(2, 3, 16, 16)
    model.eval()
    assert torch.equal(model.embed(images), model.embed(images))
    model.train()
    outputs = [model.embed(images) for _ in range(20)]
    assert any(not torch.equal(output, outputs[0]) for output in outputs)


def test_initial_weights() -> None:
    model = tiny(embed_dim=48, num_heads=(3, 6))
    assert model.layers[0].blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module.bias is not None]
    assert all(not module.bias.any() for module in linear)
    model.set_heads({"1": 50})  # drawn afterwards: the default initialisation, uniform up to 1 / sqrt(96)
    assert model.last["1"].weight.abs().max().item() == pytest.approx(96**-0.5, rel=0.02)
