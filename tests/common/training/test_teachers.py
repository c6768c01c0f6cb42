"""Teachers and their cards: found, read, compared, refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from common.training.errors import UserError
from common.training.teachers import (
    SHIPPED,
    TOLERANCE,
    check_accuracy,
    find_teacher,
    load_teacher,
    read_card,
    save_teacher,
    teacher_path,
)

pytestmark = pytest.mark.unit


def network() -> nn.Module:
    return nn.Linear(3, 2)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = teacher_path(tmp_path, "cifar10", "linear")
    save_teacher(
        path, network(), network="linear", dataset="cifar10", num_classes=2, in_channels=3, accuracy=80.0,
        test_images=10, test_sha256="abc", recipe={"lr": 0.1}, run_id="r",
    )  # fmt: skip
    return path


def test_a_saved_teacher_comes_back_with_its_card(teacher: Path) -> None:
    other = network()
    loaded = load_teacher(teacher, other)
    assert loaded.card == read_card(teacher.with_suffix(".json"))
    assert (loaded.card.parameters, loaded.card.sha256) == (8, loaded.sha256)
    assert torch.equal(safetensors.torch.load_file(teacher)["weight"], other.weight)
    assert loaded.describe() == {
        "teacher_file": "cifar10_linear.safetensors", "teacher_sha256": loaded.sha256, "teacher_card_accuracy": 80.0,
    }  # fmt: skip


def test_a_teacher_below_its_card_is_refused(teacher: Path) -> None:
    loaded = load_teacher(teacher, network())
    assert "80.00 % on its card" in check_accuracy(loaded, 80 - TOLERANCE + 0.01, "abc")
    with pytest.raises(UserError, match="its card says 80.00"):
        check_accuracy(loaded, 80 - TOLERANCE - 0.01, "abc")
    assert "other test images" in check_accuracy(loaded, 10.0, "def")


def test_a_card_belongs_to_its_weights(teacher: Path) -> None:
    other = teacher.with_name("other.safetensors")
    other.write_bytes(safetensors.torch.save({key: value + 1 for key, value in network().state_dict().items()}))
    teacher.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="not the file its card describes"):
        load_teacher(teacher, network())
    without = load_teacher(other, network())
    assert without.card is None and "no card" in check_accuracy(without, 10.0, "abc")


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"accuracy": 80}'])
def test_a_damaged_card_is_refused(teacher: Path, text: str) -> None:
    teacher.with_suffix(".json").write_text(text)
    with pytest.raises(UserError, match="not a teacher's card"):
        load_teacher(teacher, network())


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}], ids=["bare", "wrapped"])
def test_weights_as_the_originals_write_them(tmp_path: Path, wrap) -> None:
    wanted, other = network(), network()
    state = wrap({f"module.{key}": value for key, value in wanted.state_dict().items()})
    torch.save(state, tmp_path / "t.pth")
    load_teacher(tmp_path / "t.pth", other)
    assert torch.equal(other.weight, wanted.weight)


def test_files_that_cannot_be_teachers_are_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "module.pth")
    with pytest.raises(UserError, match="state dict where its classes are known"):
        load_teacher(tmp_path / "module.pth", network())
    (tmp_path / "torn.safetensors").write_bytes(b"12")
    with pytest.raises(UserError, match="cannot read"):
        load_teacher(tmp_path / "torn.safetensors", network())
    (tmp_path / "other.safetensors").write_bytes(safetensors.torch.save(nn.Linear(3, 4).state_dict()))
    with pytest.raises(UserError, match="do not fit"):
        load_teacher(tmp_path / "other.safetensors", network())


def test_finding_looks_in_every_folder_and_says_what_to_do(teacher: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert find_teacher("cifar10_linear", [empty, tmp_path], "train it") == teacher
    assert find_teacher("cifar10_linear.safetensors", [tmp_path], "train it") == teacher
    with pytest.raises(UserError, match="no teacher cifar10_linear .* in .*empty; train it"):
        find_teacher("cifar10_linear", [empty], "train it")


def test_a_shipped_teacher_sought_elsewhere_is_pointed_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shipped in .*common/teachers; give a folder"):
        find_teacher("fashion_mnist_lenet5", [tmp_path], "give a folder")


def test_shipped_teachers_have_cards_and_are_small() -> None:
    weights = sorted(SHIPPED.glob("*.safetensors"))
    assert weights
    for path in weights:
        card = read_card(path.with_suffix(".json"))
        assert path == teacher_path(SHIPPED, card.dataset, card.network) and card.accuracy > 80
        assert json.loads(path.with_suffix(".json").read_text()) == asdict(card)
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 4 * 2**20
