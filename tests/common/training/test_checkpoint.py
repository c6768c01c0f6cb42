"""Checkpoints: what is damaged is passed over and named, what is killed loses nothing, code in a file never runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from common.training import checkpoint
from common.training.checkpoint import (
    NEWEST,
    PREVIOUS,
    load_weights,
    read_checkpoint,
    read_newest_checkpoint,
    save_checkpoint,
)
from common.training.errors import UserError

pytestmark = pytest.mark.unit
INCOMING = f"{NEWEST}.incoming"


def state(number: int) -> dict:
    return {"number": number, "weights": torch.full((100,), float(number)), "parts": {"list": [1, 2.5, "a", None]}}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_a_bit(data: bytes) -> bytes:
    """One bit inside the tensor's numbers: torch.load reads such a file without complaint."""
    place = data.index(state(2)["weights"].numpy().tobytes()) + 40
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": cut,
    "without its last byte": lambda data: data[:-1],
    "garbage": lambda data: bytes(range(1, 256)) * 20,
    "text": lambda data: b"<html>not found</html>\n",
    "pickle garbage": lambda data: b"\x80\x02}q\x01(e.",  # makes the unpickler raise IndexError
    "zero bytes": lambda data: bytes(len(data)),
    "empty": lambda data: b"",
    "one bit": flip_a_bit,
}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert save_checkpoint(tmp_path, state(1)) == tmp_path / NEWEST
    found, problems = read_newest_checkpoint(tmp_path)
    assert problems == []
    assert found["number"] == 1
    assert found["parts"] == {"list": [1, 2.5, "a", None]}
    assert torch.equal(found["weights"], state(1)["weights"])


def test_the_one_before_the_newest_is_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_checkpoint(tmp_path, state(number))
    assert read_checkpoint(tmp_path / NEWEST)["number"] == 3
    assert read_checkpoint(tmp_path / PREVIOUS)["number"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([NEWEST, PREVIOUS])


def test_an_empty_folder_holds_no_checkpoint(tmp_path: Path) -> None:
    assert read_newest_checkpoint(tmp_path) == (None, [])
    with pytest.raises(UserError, match="no checkpoint file"):
        read_checkpoint(tmp_path / NEWEST)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_is_named_and_passed_over(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    newest = tmp_path / NEWEST
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
    found, problems = read_newest_checkpoint(tmp_path)
    assert found["number"] == 1
    assert len(problems) == 1
    assert str(newest) in problems[0]
    assert "falling back" in problems[0]
    assert "\n" not in problems[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_sound_left_is_an_error(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, state(2))
    save_checkpoint(tmp_path, state(2))
    for name in (NEWEST, PREVIOUS):
        (tmp_path / name).write_bytes(DAMAGES[damage]((tmp_path / name).read_bytes()))
    with pytest.raises(UserError, match="--resume never") as error:
        read_newest_checkpoint(tmp_path)
    assert "2 files" in str(error.value)


class Crash(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    ("operations", "left", "number"),
    [
        (0, {NEWEST, PREVIOUS}, 2),  # before anything was renamed: the temporary file has another name
        (1, {NEWEST, PREVIOUS, INCOMING}, 2),  # the new one is complete under its incoming name
        (2, {PREVIOUS, INCOMING}, 3),  # the old one is renamed, the new one not yet
        (3, {NEWEST, PREVIOUS}, 3),
    ],
)
def test_a_kill_at_any_moment_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operations: int, left: set[str], number: int
) -> None:
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    replace, done = checkpoint.os.replace, []

    def replace_until_killed(source: Path, target: Path) -> None:
        if len(done) == operations:
            raise Crash
        replace(source, target)
        done.append(target)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "replace", replace_until_killed)  # that of `write_atomically` as well
        if operations < 3:
            with pytest.raises(Crash):
                save_checkpoint(tmp_path, state(3))
        else:
            save_checkpoint(tmp_path, state(3))
    assert {path.name for path in tmp_path.iterdir()} == left
    found, problems = read_newest_checkpoint(tmp_path)
    assert (found["number"], problems) == (number, [])

    save_checkpoint(tmp_path, state(4))  # and the next save finds its way from there
    assert read_newest_checkpoint(tmp_path)[0]["number"] == 4
    assert read_checkpoint(tmp_path / PREVIOUS)["number"] in (number, number - 1)
    assert not (tmp_path / INCOMING).exists()


def test_the_incoming_one_stands_in_for_a_damaged_newest_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state(2))
    (tmp_path / NEWEST).rename(tmp_path / INCOMING)
    save_checkpoint(tmp_path / "other", state(1))
    (tmp_path / NEWEST).write_bytes(cut((tmp_path / "other" / NEWEST).read_bytes()))
    found, problems = read_newest_checkpoint(tmp_path)
    assert found["number"] == 2
    assert len(problems) == 1


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_bare_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [torch.save, write_bare_pickle])
def test_code_in_a_file_is_refused(tmp_path: Path, write: Callable) -> None:
    sprung = tmp_path / "sprung"
    write({"number": 1, "object": Trap(sprung)}, tmp_path / NEWEST)
    with pytest.raises(UserError, match="cannot read checkpoint"):
        read_checkpoint(tmp_path / NEWEST)
    assert not sprung.exists()


# --- weights into a network -----------------------------------------------------------------------------------------


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def refused(change: Callable[[dict], object]) -> str:
    """The message about a changed state dict; the network must stay as it was."""
    module, weights = network(), network().state_dict()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    weights = change(dict(weights)) or weights
    with pytest.raises(UserError, match="w.pt") as error:
        load_weights(module, weights, "w.pt")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(**entries: object) -> Callable[[dict], dict]:
    return lambda weights: {k: v for k, v in (weights | entries).items() if v is not None}


def test_weights_that_fit_are_loaded() -> None:
    module, weights = network(), network().state_dict()
    load_weights(module, weights, "w.pt")
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())


def test_what_does_not_fit_is_named() -> None:
    assert "missing: 0.bias, 1.weight" in refused(changed(**{"0.bias": None, "1.weight": None}))
    assert "unknown: last.weight" in refused(changed(**{"last.weight": torch.zeros(2)}))
    assert "0.weight (expected (4, 3), found (3, 4))" in refused(changed(**{"0.weight": torch.zeros(3, 4)}))
    assert "0.weight (expected (4, 3), found float)" in refused(changed(**{"0.weight": 1.5}))
    everything = refused(changed(**{"0.bias": None, "x": torch.zeros(1), "1.bias": torch.zeros(5)}))
    assert all(part in everything for part in ("missing: 0.bias", "unknown: x", "1.bias (expected (4,), found (5,))"))


def test_long_lists_are_cut() -> None:
    message = refused(changed(**{f"extra{n}": torch.zeros(1) for n in range(8)}))
    assert "extra4 and 3 more" in message
    assert "extra5" not in message


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2)])
def test_what_is_no_state_dict_is_refused(content: object) -> None:
    assert "expected a state dict" in refused(lambda weights: content if isinstance(content, list) else [content])
    with pytest.raises(UserError, match="expected a state dict"):
        load_weights(network(), content, "w.pt")
