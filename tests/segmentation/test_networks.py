"""The networks of PLOP and RCIL: keys, starts of steps, pretrained weights, random numbers."""

from __future__ import annotations

import csv
import dataclasses
import math

import pytest
import torch

from common.training.errors import UserError
from segmentation.configuration import with_preset
from segmentation.network import build_network, load_pretrained
from segmentation.options import SegmentationOptions
from segmentation.rcil.merging import add_merge_biases
from segmentation.rcil.network import BranchMix, draw_mixes
from segmentation.start import load_weights, start_step
from tests.helpers import REPOSITORY
from tests.segmentation.building import small_config

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("codebase", ["plop", "rcil"])
def test_keys_and_shapes_are_the_originals(codebase):
    table = REPOSITORY / "repro" / "paper" / "seg" / f"state_dict_{codebase}_resnet101.csv"
    with table.open(newline="") as file:
        expected = {row["key"]: row["shape"] for row in csv.DictReader(file)}
    config = dataclasses.replace(SegmentationOptions(), dataset="cityscapes_domain", codebase=codebase)
    with torch.device("meta"):
        network = build_network(config, [19])
        add_merge_biases(network)
    found = {key: "x".join(map(str, value.shape)) or "scalar" for key, value in network.state_dict().items()}
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize("backbone", ["resnet14", "resnet18", "resnet26"])
@pytest.mark.parametrize("stride", [8, 16])
def test_sizes_of_the_maps(backbone, stride):
    config = small_config(backbone=backbone, output_stride=stride)
    network = build_network(config, [3, 2]).eval()
    logits, features = network(torch.randn(1, 3, 64, 48))
    assert logits.shape == (1, 5, 64, 48)
    assert features["sem_logits_small"].shape == (1, 5, 64 // stride, 48 // stride)
    wide = 1 if backbone == "resnet18" else 4
    assert [m.shape[1] for m in features["attentions"]] == [wide * 4 * 2**k for k in range(4)] + [8]


def test_maps_can_be_tapped_on_either_side_of_the_activation():
    images = torch.randn(2, 3, 64, 64)
    for codebase, released in (("plop", "before"), ("rcil", "after")):
        for choice in ("released", "before", "after"):
            torch.manual_seed(0)
            network = build_network(small_config(codebase=codebase, attention_maps=choice), [3]).eval()
            with torch.no_grad():
                _, features = network(images)
            activated = torch.equal(features["attentions"][3], features["body"])
            assert activated == ((released if choice == "released" else choice) == "after")


# --- starts of steps --------------------------------------------------------------------------------------------------


def test_balanced_start_keeps_the_background_probability():
    old = build_network(small_config(), [3])
    new = build_network(small_config(), [3, 2])
    start_step(with_preset(small_config(method="MiB")), new, old.state_dict())
    features = torch.randn(2, 8, 4, 4)
    before, after = old.classify(features).softmax(1), new.classify(features).softmax(1)
    torch.testing.assert_close(after[:, [0, 3, 4]].sum(1), before[:, 0])
    torch.testing.assert_close(after[:, 1:3], before[:, 1:3])


def test_rcil_copies_no_biases_unless_told():
    old = build_network(small_config(codebase="rcil"), [3])
    for choice, copied in (("released", False), ("on", True)):
        new = build_network(small_config(codebase="rcil"), [3, 2])
        kept = new.cls[1].bias.clone()
        config = with_preset(small_config(method="RCIL", init_balanced_bias=choice))
        start_step(config, new, old.state_dict())
        assert torch.equal(new.cls[1].weight[0], old.cls[0].weight[0])
        expected = (old.cls[0].bias[0] - math.log(3)).expand(2) if copied else kept
        torch.testing.assert_close(new.cls[1].bias, expected)


def test_balanced_start_needs_a_new_class():
    config = small_config(dataset="cityscapes_domain", init_balanced=True)
    network = build_network(config, [19])
    with pytest.raises(UserError, match="no new class"):
        start_step(config, network, network.state_dict())


def test_aligned_rows_have_the_old_mean_length():
    network = build_network(small_config(), [3, 2, 2])
    network.align_weight("all")
    lengths = [classifier.weight.flatten(1).norm(dim=1) for classifier in network.cls]
    torch.testing.assert_close(lengths[2].mean(), torch.cat(lengths[:2]).mean())


def test_a_foreign_checkpoint_is_refused_in_one_line():
    network = build_network(small_config(), [3])
    with pytest.raises(UserError, match="does not fit"):
        load_weights(network, build_network(small_config(width=8), [3]).state_dict())
    with pytest.raises(UserError, match="unexpected"):
        load_weights(network, build_network(small_config(), [3, 1]).state_dict())
    load_weights(network, {f"module.{key}": value for key, value in network.state_dict().items()})


@pytest.mark.parametrize("codebase", ["plop", "rcil"])
def test_pretrained_bodies_are_found_and_loaded(tmp_path, codebase):
    config = small_config(codebase=codebase, norm_act="iabn", code_directory=str(tmp_path))
    network = build_network(config, [3])
    with pytest.raises(UserError, match="--no_pretrained"):
        load_pretrained(network, config)
    body = build_network(small_config(codebase="plop"), [3]).body.state_dict()
    stored = {f"module.{key}": torch.rand_like(value.float()) for key, value in body.items()}
    stored["module.classifier.fc.weight"] = torch.zeros(2, 2)
    path = tmp_path / "pretrained" / "resnet14_iabn_sync.pth.tar"
    path.parent.mkdir()
    torch.save({"state_dict": stored}, path)
    assert load_pretrained(network, config) == path
    expected = stored["module.mod3.block1.convs.conv2.weight"]
    convs = network.body.mod3.block1.convs
    for convolution in [convs["conv2"] if codebase == "rcil" else convs.conv2, *(
        [convs["conv2_new"]] if codebase == "rcil" else []
    )]:  # fmt: skip
        assert torch.equal(convolution.weight, expected)


# --- random numbers ---------------------------------------------------------------------------------------------------


def test_one_draw_for_all_mixes_gives_the_same_numbers():
    mixes = torch.nn.ModuleList([BranchMix(5), BranchMix(20), BranchMix(3)])
    torch.manual_seed(3)
    draw_mixes(mixes, torch.device("cpu"))
    torch.manual_seed(3)
    for mix in mixes:
        assert torch.equal(mix.drawn, torch.rand(mix.channels))


def test_mixes_take_either_branch_or_the_mean():
    mix = BranchMix(3)
    first, second = torch.full((2, 3, 1, 1), 2.0), torch.full((2, 3, 1, 1), 6.0)
    mix.drawn = torch.tensor([0.1, 0.5, 0.9])
    assert mix(first, second)[0].flatten().tolist() == [2.0, 6.0, 4.0]
    assert mix.drawn is None
    assert mix.eval()(first, second)[0].flatten().tolist() == [4.0, 4.0, 4.0]
