"""Every recorded fixture of LRA, one test each; and proof that a wrong coefficient would be noticed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torchvision import transforms

import adversarial_dfkd.learner as learner
import adversarial_dfkd.losses as losses
import adversarial_dfkd.meta as meta
import adversarial_dfkd.parity.protocol as protocol
import adversarial_dfkd.replay as replay_module
from adversarial_dfkd.data import FACTS
from adversarial_dfkd.parity import building, loops
from common.parity import Fixture
from repro.parity import PASSED, load_adapters, open_recording, replay, select_entries
from repro.registry import read_registry
from repro.self_test import self_test
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.parity

SUBPROJECTS = [subproject for subproject in read_registry(REPOSITORY) if subproject.paper == "lra"]
ENTRIES = {entry.id: entry for entry in select_entries(SUBPROJECTS, REPOSITORY)}


@pytest.fixture(scope="module")
def adapters():
    return load_adapters(SUBPROJECTS, ENTRIES.values())


@pytest.mark.parametrize("name", ENTRIES)
def test_fixture(name, adapters):
    outcome = replay(ENTRIES[name], adapters)
    assert outcome.status == PASSED, f"{outcome.reasons} {outcome.trace}"


def scaled(function):
    def changed(*arguments, **keywords):
        result = function(*arguments, **keywords)
        return tuple(1.01 * part for part in result) if isinstance(result, tuple) else result * 1.01

    return changed


MUTATIONS = {
    "disagreement": (losses, "disagreement_loss", "lra.loss.generator_total_default"),
    "entropy": (losses, "entropy_term", "lra.loss.generator_total_other"),
    "generator": (learner, "generator_loss", "lra.step.novel_generator"),
    "latent tuning": (replay_module, "latent_loss", "lra.step.memory_generator"),
    "VAE": (replay_module, "autoencoder_loss", "lra.step.memory_generator_first"),
    "distillation": (meta, "distillation_loss", "lra.step.student_meta_lenet_second_order"),
    "learning rate": (protocol, "cosine_rate", "lra.schedule.cosine_student"),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_one_percent_in_one_term_is_noticed(what, adapters, monkeypatch):
    place, name, id = MUTATIONS[what]
    monkeypatch.setattr(place, name, scaled(getattr(place, name)))
    assert replay(ENTRIES[id], adapters).status != PASSED


def test_a_detached_gradient_fails_the_second_order_recording(adapters, monkeypatch):
    """The two variants differ by more than the tolerance, so that one cannot pass for the other."""
    from adversarial_dfkd.parity import steps

    monkeypatch.setitem(steps.GRADIENTS, "second_order", "detached")
    assert replay(ENTRIES["lra.step.student_meta_lenet_second_order"], adapters).status != PASSED
    monkeypatch.setitem(steps.GRADIENTS, "second_order", "first_order")
    assert replay(ENTRIES["lra.step.student_meta_lenet_second_order"], adapters).status != PASSED


@pytest.mark.parametrize("name", ["lra.step.student_meta_lenet", "lra.net.lenet5", "lra.loss.js_divergence"])
def test_disturbed_inputs_are_noticed(name, adapters):
    assert self_test(ENTRIES[name], adapters).status == "sensitive"


def test_an_adapter_sees_no_outputs(adapters):
    for id, entry in ENTRIES.items():
        fixture = open_recording(entry, adapters[id]).fixture
        assert not any(key.startswith(("out.", "grad.", "after.")) for key in [*fixture.inputs, *fixture.params])
        assert not {"parameters", "buffers", "feature_shapes", "out_shape", "noise_draws"} & fixture.args.keys()


# --- recordings of other shapes than those here -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "tiny_imagenet"])
def test_images_that_are_not_square(name, adapters):
    """Resized to a square, or on the shorter side, or not at all: as the original's transforms."""
    entry = ENTRIES[f"lra.data.transform_{name}"]
    fixture = open_recording(entry, adapters[entry.id]).fixture
    dataset, grey = fixture.args["dataset"], fixture.inputs["image"].dim() == 2
    image = torch.randint(256, (40, 32) if grey else (40, 32, 3), dtype=torch.uint8)
    steps = [transforms.ToTensor(), transforms.Normalize(FACTS[dataset].mean, FACTS[dataset].std)]
    if name != "cifar100":
        steps = [transforms.Resize(fixture.args["img_size"] if name == "tiny_imagenet" else (32, 32)), *steps]
    fixture.inputs["image"] = image
    ours = adapters[entry.id].compute(fixture)["out.tensor"]
    torch.testing.assert_close(ours, transforms.Compose(steps)(Image.fromarray(image.numpy())))


def test_large_batches_of_a_bank_are_sampled():
    bank = replay_module.MemoryBank(2)
    bank.push(torch.arange(576.0).view(3, 3, 8, 8))
    bank.push(torch.arange(384.0).view(2, 3, 8, 8))
    seen = SimpleNamespace(drawn=[], before={"length": []})
    outputs = loops.bank_outputs(SimpleNamespace(replay=bank), seen)
    assert outputs["out.memory0"].tolist() == list(range(0, 576, 2))
    assert outputs["out.memory1"].shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("text", "classes", "channels"),
    [
        ("wrn_16_1(num_classes=7)", 7, 3),
        ("networks/myresnet.MyResNet18(in_channels=1, num_classes=4), eval mode", 4, 1),
        ("LeNet5, eval mode", 10, 1),
        ("LeNet5(in_channels=3), eval mode", 10, 3),
    ],
)
def test_described_networks(text, classes, channels):
    network = building.named_network(Fixture("", {"student": text, "init_seeds": {"student": 3}}, {}), "student")
    parameters = list(network.parameters())
    assert (len(parameters[-1]), parameters[0].shape[1]) == (classes, channels)
