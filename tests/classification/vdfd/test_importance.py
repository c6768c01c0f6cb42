"""Class gradients through taps against plain automatic differentiation of the definition."""

from __future__ import annotations

import pytest
import torch

from classification.vdfd.importance import class_gradients, row_means
from classification.vdfd.optimization import backbone_names
from common.backbones.registry import build_backbone

pytestmark = pytest.mark.unit


def network(name: str = "resnet18", **sizes):
    torch.manual_seed(0)
    model = build_backbone("resnet" if name.startswith("resnet") else name.lower(), name, **sizes)
    model.set_heads({"1": 3, "2": 4})
    for module in model.modules():  # away from the initial values, under which batch norms are nearly the identity
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    return model.eval()


def by_definition(model, names, head, columns, batches):
    """Mean over mini-batches of the gradient of the mean class output, averaged over each row."""
    parameters = dict(model.named_parameters())
    sums = {name: 0.0 for name in names}
    for images in batches:
        outputs = model(images)[head][:, columns].mean(dim=0)
        for name in names:
            rows = [
                row_means(torch.autograd.grad(output, parameters[name], retain_graph=True)[0]) for output in outputs
            ]
            sums[name] = sums[name] + torch.stack(rows, dim=1) / len(batches)
    return sums


@pytest.mark.parametrize("name", ["resnet18", "LeNet"])
def test_equals_the_definition_with_a_smaller_last_batch(name):
    sizes = {"widths": (4, 6, 8, 10), "blocks": (1, 2, 1, 1)} if name == "resnet18" else {}
    model = network(name, **sizes)
    names = backbone_names(model)
    side = 32 if name == "LeNet" else 12
    batches = list(torch.randn(7, 3, side, side).split(3))  # 3 + 3 + 1
    weights = torch.cat([torch.full((len(batch),), 1 / (len(batches) * len(batch))) for batch in batches])
    ours = class_gradients(model, names, "2", slice(0, 4), torch.cat(batches), weights)
    expected = by_definition(model, names, "2", slice(0, 4), batches)
    assert list(ours) == names
    for key in names:
        torch.testing.assert_close(ours[key], expected[key], rtol=1e-4, atol=1e-6)


def test_every_fourth_output():
    model = network(widths=(4, 4), blocks=(1, 1))
    names, images = backbone_names(model), torch.randn(2, 3, 8, 8)
    weights = torch.full((2,), 0.5)
    every = class_gradients(model, names, "2", slice(0, 4), images, weights)
    some = class_gradients(model, names, "2", slice(0, 4, 2), images, weights)
    for name in names:
        torch.testing.assert_close(some[name], every[name][:, ::2])


def test_bf16_stays_near_float32_and_gives_float32_sums():
    model = network(widths=(8, 16), blocks=(1, 1))
    names, images = backbone_names(model), torch.randn(16, 3, 16, 16)
    found = []
    for lower in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            weights = torch.full((len(images),), 1e-4)  # as over a whole training set; bf16 cannot hold it
            found.append(class_gradients(model, names, "1", slice(0, 3), images, weights))
    for name in names:
        full, half = (gradients[name] for gradients in found)
        assert half.dtype == torch.float32
        assert 0 < (full - half).norm() < 0.05 * full.norm(), name


def test_leaves_the_model_as_it_was():
    model = network(widths=(4, 4), blocks=(1, 1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    class_gradients(model, backbone_names(model), "1", slice(0, 3), torch.randn(2, 3, 8, 8), torch.full((2,), 0.5))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_training_mode_is_refused():
    model = network(widths=(4, 4), blocks=(1, 1)).train()
    with pytest.raises(ValueError, match="evaluation mode"):
        class_gradients(model, ["conv1.weight"], "1", slice(0, 3), torch.randn(2, 3, 8, 8), torch.full((2,), 0.5))
