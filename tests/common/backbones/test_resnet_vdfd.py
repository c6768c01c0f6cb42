"""The residual networks of VDFD: blocks checked by hand, sizes, order of the state dict, heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.backbones.registry import build_backbone
from common.backbones.resnet_vdfd import PreActBlock, PreActBottleneck, PreActResNet

pytestmark = pytest.mark.unit

TEN_HEADS = {str(task): 10 for task in range(1, 11)}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(name: str, heads: dict[str, int] | None = None) -> nn.Module:
    """A network without memory for its weights: enough to count and to name them."""
    with torch.device("meta"):
        model = build_backbone("resnet", name)
        if heads:
            model.set_heads(heads)
    return model


# --- blocks ---------------------------------------------------------------------------------------------------------


def with_known_statistics(block: nn.Module) -> nn.Module:
    """bn1(x) = 3 (x - 2) / 2 - 1 in evaluation mode (but for its epsilon)."""
    nn.init.constant_(block.bn1.running_mean, 2.0)
    nn.init.constant_(block.bn1.running_var, 4.0 - block.bn1.eps)
    nn.init.constant_(block.bn1.weight, 3.0)
    nn.init.constant_(block.bn1.bias, -1.0)
    return block.eval()


def test_the_identity_of_a_basic_block_is_the_normalised_input_not_rectified() -> None:
    block = with_known_statistics(PreActBlock(1, 1))
    nn.init.zeros_(block.conv2.weight)  # the residual branch is silent: what is left is the shortcut
    x = torch.tensor([[[[-2.0, 0.0], [2.0, 6.0]]]])
    torch.testing.assert_close(block(x), torch.tensor([[[[-7.0, -4.0], [-1.0, 5.0]]]]))


def test_the_identity_of_a_bottleneck_is_its_input() -> None:
    block = with_known_statistics(PreActBottleneck(4, 1))
    nn.init.zeros_(block.conv3.weight)
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("kind", [PreActBlock, PreActBottleneck])
def test_a_changing_shortcut_is_a_convolution_of_the_rectified_input(kind: type) -> None:
    torch.manual_seed(0)
    block = with_known_statistics(kind(3, 2, stride=2))
    nn.init.zeros_((block.conv3 if kind is PreActBottleneck else block.conv2).weight)
    x = torch.randn(2, 3, 6, 6) * 3
    rectified = (3 * (x - 2) / 2 - 1).clamp_min(0)
    expected = F.conv2d(rectified[:, :, ::2, ::2], block.shortcut[0].weight)
    torch.testing.assert_close(block(x), expected)
    assert block(x).shape == (2, 2 * kind.expansion, 3, 3)


def test_the_residual_branch_of_a_basic_block() -> None:
    """One pixel, one channel: every 3x3 convolution is its middle weight."""
    block = with_known_statistics(PreActBlock(1, 1))
    for convolution, middle in ((block.conv1, 0.5), (block.conv2, 10.0)):
        nn.init.zeros_(convolution.weight)
        convolution.weight.data[0, 0, 1, 1] = middle
    nn.init.constant_(block.bn2.running_var, 1 - block.bn2.eps)
    x = torch.tensor([4.0, 1.0]).reshape(2, 1, 1, 1)  # normalised: 2 and -2.5
    torch.testing.assert_close(block(x).flatten(), torch.tensor([2 + 10 * 0.5 * 2, -2.5 + 0.0]))


@pytest.mark.parametrize("kind", [PreActBlock, PreActBottleneck])
def test_no_convolution_has_a_bias(kind: type) -> None:
    assert not [name for name, _ in kind(3, 2, 2).named_parameters() if "conv" in name and "bias" in name]


# --- whole networks -------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_specification() -> None:
    assert parameters(on_meta("resnet18")) - parameters(on_meta("resnet18").last) == 11_167_040
    assert parameters(on_meta("resnet18", TEN_HEADS)) == 11_218_240
    assert parameters(on_meta("resnet18", {str(t): 8 for t in range(25)})) == 11_269_440
    assert parameters(on_meta("resnet18", {"All": 400})) == 11_371_840
    assert parameters(on_meta("resnet50", TEN_HEADS)) == 23_705_152


@pytest.mark.parametrize(
    ("name", "blocks", "features"),
    [("resnet18", 8, 512), ("resnet32", 16, 512), ("resnet50", 16, 2048), ("resnet101", 33, 2048)],
)
def test_blocks_and_features(name: str, blocks: int, features: int) -> None:
    model = on_meta(name)
    assert sum(isinstance(module, (PreActBlock, PreActBottleneck)) for module in model.modules()) == blocks
    assert model.num_features == model.bn_last.num_features == features


def test_order_of_the_state_dict() -> None:
    model = PreActResNet(PreActBlock, (1, 2), (4, 8))
    model.set_heads({"1": 2, "2": 3})
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def block(name: str, *, shortcut: bool = False) -> list[str]:
        first = [f"{name}.bn1.{n}" for n in norm] + [f"{name}.conv1.weight"]
        second = [f"{name}.bn2.{n}" for n in norm] + [f"{name}.conv2.weight"]
        return first + second + ([f"{name}.shortcut.0.weight"] if shortcut else [])

    assert list(model.state_dict()) == [
        "conv1.weight",
        *block("stage1.0"),
        *block("stage2.0", shortcut=True),
        *block("stage2.1"),
        *[f"bn_last.{n}" for n in norm],
        "last.1.weight",
        "last.2.weight",
    ]


def test_a_stage_starts_with_a_stride_and_the_stem_is_not_pooled() -> None:
    model = build_backbone("resnet", "resnet32").eval()
    sizes = []
    for stage in (model.conv1, model.stage1, model.stage2, model.stage3, model.stage4):
        stage.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        embedding = model.embed(torch.zeros(1, 3, 64, 64))
    assert sizes == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert embedding.shape == (1, 512)
    assert model.conv1.kernel_size == (7, 7)


@pytest.mark.parametrize(("size", "last"), [(32, 4), (64, 8)])
def test_resnet18_keeps_the_resolution_at_its_stem(size: int, last: int) -> None:
    model = build_backbone("resnet", "resnet18", widths=[4, 4, 8, 8]).eval()
    sizes = []
    for stage in (model.conv1, model.stage4):
        stage.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[2:])))
    with torch.no_grad():
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 10)
    assert sizes == [(size, size), (last, last)]


def test_the_embedding_is_the_mean_of_the_rectified_map() -> None:
    torch.manual_seed(0)
    model = build_backbone("resnet", "resnet18", widths=[4, 4], blocks=[1, 1]).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        maps = model.bn_last(model.stage2(model.stage1(model.conv1(x))))
        pixels = [maps.clamp_min(0)[:, :, row, column] for row in range(4) for column in range(4)]
        expected = torch.stack(pixels).mean(0)
        torch.testing.assert_close(model.embed(x), expected)
        torch.testing.assert_close(model(x), model.last(model.embed(x)))


def test_widths_and_blocks_must_go_together() -> None:
    with pytest.raises(ValueError, match="one width per stage"):
        PreActResNet(PreActBlock, (1, 1), (4, 4, 4))
