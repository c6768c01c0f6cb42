"""Networks by name, the small networks, and the heads they are given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.backbones.heads import TaskHeads
from common.backbones.registry import BACKBONES, build_backbone
from common.training.errors import UserError

pytestmark = pytest.mark.unit


# --- registry -------------------------------------------------------------------------------------------------------


WITHOUT_HEADS = {"resnet18": 11_167_040, "SwinTransformer": 28_365_154 - 10 * 10 * 768}
"""Parameters; the specification counts Swin-T with its unused classifier and ten heads of ten outputs."""


@pytest.mark.parametrize("names", BACKBONES, ids=lambda names: names[1])
def test_every_name_builds_a_network_that_takes_heads(names: tuple[str, str]) -> None:
    model = build_backbone(*names)
    model.set_heads({"1": 4, "2": 3})
    assert [key for key in model.state_dict() if key.startswith("last")] == ["last.1.weight", "last.2.weight"]
    assert model.last["1"].weight.shape == (4, model.num_features)
    if names[1] in WITHOUT_HEADS:
        total = sum(parameter.numel() for parameter in model.parameters())
        assert total - 7 * model.num_features == WITHOUT_HEADS[names[1]]


@pytest.mark.parametrize("names", [("resnet", "resnet20"), ("vgg", "resnet18"), ("resnet", "ResNet18")])
def test_an_unknown_name_is_refused_with_the_known_ones(names: tuple[str, str]) -> None:
    with pytest.raises(UserError) as error:
        build_backbone(*names)
    message = str(error.value)
    assert f"--model_type {names[0]} --model_name {names[1]}" in message
    assert "--model_type resnet --model_name resnet18" in message
    assert "\n" not in message


def test_widths_and_blocks_change_the_size() -> None:
    model = build_backbone("resnet", "resnet18", widths=[4, 8, 12], blocks=[1, 2, 3])
    assert (model.num_stages, model.num_features) == (3, 12)
    assert [len(getattr(model, f"stage{k}")) for k in (1, 2, 3)] == [1, 2, 3]
    assert model.conv1.out_channels == 4  # the stem is as wide as the first stage
    assert [build_backbone("resnet", "resnet18", blocks=[1, 1, 1, 1]).num_features] == [512]


@pytest.mark.parametrize(
    ("name", "sizes", "part"),
    [
        ("resnet50", {"widths": [8, 8, 8, 8]}, "resnet50"),
        ("resnet18", {"widths": [8, 8, 8]}, "as many numbers"),
        ("resnet18", {"widths": [8, 8], "blocks": [1]}, "as many numbers"),
        ("resnet18", {"widths": [8, 8, 8, 0]}, "--widths expects positive numbers, found 8 8 8 0"),
        ("resnet18", {"blocks": [1, -1, 1, 1]}, "--blocks expects positive numbers"),
        ("resnet18", {"widths": [], "blocks": []}, "--widths expects positive numbers, found none"),
    ],
)
def test_sizes_that_make_no_network_are_refused(name: str, sizes: dict, part: str) -> None:
    with pytest.raises(UserError, match=part):
        build_backbone("resnet", name, **sizes)


# --- small networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name", "shape", "features"),
    [
        ("lenet", "LeNet", (3, 32, 32), 500),
        ("alexnet", "AlexNet", (3, 32, 32), 2048),
        ("cnn", "CNN", (3, 32, 32), 2048),
        ("mlp", "MLP", (1, 28, 28), 100),
        ("mlp", "MLP", (784,), 100),
    ],
)
def test_shapes_of_the_small_networks(family: str, name: str, shape: tuple[int, ...], features: int) -> None:
    model = build_backbone(family, name).eval()
    images = torch.rand(2, *shape)
    with torch.no_grad():
        assert model.embed(images).shape == (2, features)
        assert model(images).shape == (2, 10)
    assert model.num_features == features


def test_the_mlp_has_no_biases_and_the_cnn_is_bounded() -> None:
    mlp = build_backbone("mlp", "MLP")
    assert not [name for name, _ in mlp.named_parameters() if name.endswith("bias")]
    assert not mlp.embed(torch.zeros(1, 784)).any()
    cnn = build_backbone("cnn", "CNN")
    with torch.no_grad():
        assert cnn.embed(1e4 * torch.randn(1, 3, 32, 32)).abs().max() <= 1  # tanh


# --- heads ----------------------------------------------------------------------------------------------------------


def small() -> nn.Module:
    return build_backbone("resnet", "resnet18", widths=[4, 6], blocks=[1, 1])


def test_heads_are_named_and_answer_together() -> None:
    model = small().eval()
    model.set_heads({"1": 2, "All": 5})
    assert [key for key in model.state_dict() if key.startswith("last")] == ["last.1.weight", "last.All.weight"]
    assert model.last["All"].weight.shape == (5, 6)
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        logits = model(images)
        embedding = model.embed(images)
    assert list(logits) == ["1", "All"]
    assert logits["1"].shape == (3, 2)
    torch.testing.assert_close(logits["All"], embedding @ model.last["All"].weight.T)


def test_heads_with_biases() -> None:
    assert list(TaskHeads(4, {"1": 2}, bias=True).state_dict()) == ["1.weight", "1.bias"]


def test_heads_are_drawn_after_the_network_in_their_order() -> None:
    """The originals build a classifier with the network, then replace it: both draw from the global generator."""
    torch.manual_seed(3)
    model = small()
    model.set_heads({"1": 2, "2": 5})
    torch.manual_seed(3)
    expected = small()
    heads = [nn.Linear(6, 2, bias=False), nn.Linear(6, 5, bias=False)]
    for key, value in expected.state_dict().items():
        if not key.startswith("last"):
            assert torch.equal(model.state_dict()[key], value)
    for head, own in zip(heads, model.last.values(), strict=True):
        assert torch.equal(own.weight, head.weight)
