"""The series of a run: buffered, ordered, cut back exactly, and watched for values that are no numbers."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from common.training.errors import NonFiniteLoss
from common.training.journal import LOG, SERIES, Journal, progress_bar, read_series

pytestmark = pytest.mark.unit


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, write_every=1, flush_every=100, tensorboard=False, echo=False)
    yield journal
    journal.close()


def lines(journal: Journal) -> list[str]:
    return (journal.folder / SERIES).read_text(encoding="utf-8").splitlines()


def log(journal: Journal, step: int, value: float = 1.0, epoch: int = 0) -> None:
    journal.log_step(step, 2, epoch, ce=torch.tensor(value), loss=torch.tensor(2 * value))


def test_a_point_has_the_fields_of_the_schema(journal: Journal) -> None:
    journal.log_step(10, 3, 4, ce=torch.tensor(0.5))
    journal.log_value("val/accuracy", 61.25, step=10, task=3, epoch=4)
    assert [json.loads(line) for line in lines(journal)] == [
        {"step": 10, "task": 3, "epoch": 4, "name": "train/ce", "value": 0.5},
        {"step": 10, "task": 3, "epoch": 4, "name": "val/accuracy", "value": 61.25},
    ]


def test_steps_are_kept_back_and_written_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path, write_every=1, flush_every=3, tensorboard=False, echo=False)
    for step in (1, 2):
        log(journal, step, step / 2)
    assert lines(journal) == []
    log(journal, 3, 1.5)
    points = list(read_series(tmp_path / SERIES))
    assert [(p["step"], p["name"], p["value"]) for p in points] == [
        (1, "train/ce", 0.5),
        (1, "train/loss", 1.0),
        (2, "train/ce", 1.0),
        (2, "train/loss", 2.0),
        (3, "train/ce", 1.5),
        (3, "train/loss", 3.0),
    ]
    log(journal, 4)
    journal.close()  # what is pending is not lost
    assert [p["step"] for p in read_series(tmp_path / SERIES)] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_value_is_written_after_the_steps_before_it(journal: Journal) -> None:
    log(journal, 1)
    journal.log_value("lr/head", 0.1, step=1, task=2, epoch=0)
    log(journal, 2)
    journal.flush()
    assert [p["name"] for p in read_series(journal.folder / SERIES)] == [
        "train/ce",
        "train/loss",
        "lr/head",
        "train/ce",
        "train/loss",
    ]


def test_only_every_nth_step_is_written_but_every_step_is_examined(tmp_path: Path) -> None:
    journal = Journal(tmp_path, write_every=10, tensorboard=False, echo=False)
    for step in range(1, 31):
        journal.log_step(step, 1, 0, ce=torch.tensor(float(step)))
    journal.flush()
    assert [p["step"] for p in read_series(tmp_path / SERIES)] == [10, 20, 30]
    journal.log_step(31, 1, 0, ce=torch.tensor(math.nan))
    with pytest.raises(NonFiniteLoss, match="step 31"):
        journal.close()


def test_rare_terms_are_written_in_every_step_if_asked_to(tmp_path: Path) -> None:
    journal = Journal(tmp_path, write_every=10, tensorboard=False, echo=False)
    for step in (3, 10, 13):
        journal.log_step(step, 1, 0, always=step == 3, rare=torch.tensor(1.0))
    journal.close()
    assert [p["step"] for p in read_series(tmp_path / SERIES)] == [3, 10]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_named(journal: Journal, value: float) -> None:
    log(journal, 6)
    journal.log_step(7, 2, 5, ce=torch.tensor(1.0), reg=torch.tensor(value), loss=torch.tensor(value))
    log(journal, 8, math.nan)
    with pytest.raises(NonFiniteLoss) as error:
        journal.flush()
    message = str(error.value)
    assert "\n" not in message
    for part in ("'reg'", "step 7", "task 2", "epoch 5", str(value)):
        assert part in message


def test_logging_a_step_reads_nothing_from_the_device(journal: Journal) -> None:
    """Tensors on the meta device have no values: whoever asks for one gets an error."""
    for step in range(50):
        journal.log_step(step, 1, 0, ce=torch.ones((), device="meta"), loss=torch.ones((), device="meta"))
    with pytest.raises((NotImplementedError, RuntimeError)):
        journal.flush()


def noting(method: Callable, name: str, calls: list[str]) -> Callable:
    def noted(*arguments):
        calls.append(name)
        return method(*arguments)

    return noted


def test_all_noted_steps_are_read_in_one_transfer(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    for name in ("tolist", "item", "__float__", "cpu", "numpy", "__bool__"):
        monkeypatch.setattr(Tensor, name, noting(getattr(Tensor, name), name, reads))
    for step in range(50):
        log(journal, step)
    assert reads == []
    journal.flush()
    assert reads == ["tolist"]


def test_noted_values_are_not_changed_by_later_steps(journal: Journal) -> None:
    loss = torch.tensor(1.0, requires_grad=True)
    journal.log_step(1, 1, 0, loss=loss)
    with torch.no_grad():
        loss.fill_(9.0)
    journal.flush()
    assert [p["value"] for p in read_series(journal.folder / SERIES)] == [1.0]


def test_rewinding_cuts_exactly(journal: Journal) -> None:
    log(journal, 1)
    position = journal.position()
    kept = lines(journal)
    log(journal, 2)
    journal.log_value("val/accuracy", 1.0, step=2, task=2, epoch=0)
    log(journal, 3)  # still pending: it must not reappear
    journal.rewind(position)
    assert lines(journal) == kept
    assert journal.position() == position
    log(journal, 2)
    journal.flush()
    assert lines(journal)[: len(kept)] == kept
    assert [p["step"] for p in read_series(journal.folder / SERIES)] == [1, 1, 2, 2]


def test_a_new_journal_rewinds_an_old_series(tmp_path: Path, journal: Journal) -> None:
    log(journal, 1)
    position = journal.position()
    log(journal, 2)
    journal.flush()
    again = Journal(tmp_path, write_every=1, tensorboard=False, echo=False)
    again.rewind(position)
    log(again, 2)
    log(again, 3)
    again.close()
    assert [p["step"] for p in read_series(tmp_path / SERIES)] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("left", [0, 100])
def test_a_series_that_lost_its_end_stays_readable(tmp_path: Path, journal: Journal, left: int) -> None:
    for step in (1, 2):
        log(journal, step)
    position = journal.position()
    with open(tmp_path / SERIES, "r+b") as file:
        file.truncate(left)
    journal.rewind(position)
    log(journal, 3)
    journal.flush()
    assert [p["step"] for p in read_series(tmp_path / SERIES)] == [1, 3, 3][-2 if left == 0 else 0 :]
    assert "has lost its end" in (tmp_path / LOG).read_text(encoding="utf-8")


def test_an_incomplete_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / SERIES
    path.write_text('{"step": 1, "value": 0.5}\n{"step": 2, "val', encoding="utf-8")
    assert list(read_series(path)) == [{"step": 1, "value": 0.5}]


def test_notes_go_to_the_log_and_to_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for echo in (True, False):
        journal = Journal(tmp_path, tensorboard=False, echo=echo)
        journal.note(f"echo {echo}")
        journal.close()
    assert (tmp_path / LOG).read_text(encoding="utf-8") == "echo True\necho False\n"
    assert capsys.readouterr().out == "echo True\n"


def test_tensorboard_files_are_written_on_request(tmp_path: Path) -> None:
    journal = Journal(tmp_path, write_every=1, echo=False)
    log(journal, 1)
    journal.close()
    assert sum(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir()) > 0


def test_bars_are_silent_unless_a_person_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(progress_bar(range(3), "task 1")) == [0, 1, 2]
    assert capsys.readouterr().err == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress_bar(range(3), "task 1", total=5, start=2)) == [0, 1, 2]
    assert "task 1" in terminal.getvalue()
    assert "2/5" in terminal.getvalue()
