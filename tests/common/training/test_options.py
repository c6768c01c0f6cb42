"""Typed flags: what is accepted, what is refused in one line, what counts as a change of the published row."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest

from common.training.errors import UserError
from common.training.options import (
    RunOptions,
    always_on,
    as_dict,
    build_parser,
    is_machine_option,
    machine_option,
    parse_config,
    parse_row,
)

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Base:
    """flags of the base

    Not part of the title.
    """

    kinds: ClassVar[int] = 3
    gpuid: list[int] = machine_option([0])
    """device number"""
    lr: float = 1e-3
    """learning rate,
    above 0"""
    train_aug: bool = True
    """augment"""
    rand_split: bool = False
    """draw the classes"""
    mode: Literal["sum", "last"] = "sum"
    """which tasks"""
    schedule: list[int] = field(default_factory=lambda: [5])
    """epochs"""
    widths: list[int] | None = None
    """planes"""
    epochs: int = 4
    """number of epochs"""


@dataclass(frozen=True)
class Options(Base, RunOptions):
    """flags of the sub"""

    lr: float = 0.5
    name: str | None = None
    """a name"""


def parse(*argv: str) -> Options:
    return parse_config(Options, argv)


def refusal(*argv: str) -> str:
    with pytest.raises(UserError) as error:
        parse(*argv)
    message = str(error.value)
    assert "\n" not in message
    assert "--help" in message  # what to do
    return message


def help_text() -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as exit_:
        build_parser(Options, "what the program does").parse_args(["--help"])
    assert exit_.value.code == 0
    return re.sub(r"[ \n]+", " ", text.getvalue())


def test_defaults_are_those_of_the_dataclass() -> None:
    assert parse() == Options()
    assert parse().lr == 0.5


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--lr", "1e-5"], "lr", 1e-5),
        (["--lr", "2"], "lr", 2.0),
        (["--lr=3"], "lr", 3.0),
        (["--epochs", "-4"], "epochs", -4),
        (["--gpuid", "-1"], "gpuid", [-1]),
        (["--gpuid", "0", "1"], "gpuid", [0, 1]),
        (["--schedule", "30", "60", "80"], "schedule", [30, 60, 80]),
        (["--widths", "8", "16"], "widths", [8, 16]),
        (["--train_aug"], "train_aug", False),
        (["--rand_split"], "rand_split", True),
        (["--mode", "last"], "mode", "last"),
        (["--name", "1e3"], "name", "1e3"),
        (["--time_budget", "3"], "time_budget", 3.0),
        (["--epochs", "1", "--epochs", "2"], "epochs", 2),
    ],
)
def test_values_are_typed(argv: list[str], name: str, value: Any) -> None:
    config = parse(*argv)
    assert getattr(config, name) == value
    assert type(getattr(config, name)) is type(value)
    assert dataclasses.replace(config, **{name: getattr(Options(), name)}) == Options()  # nothing else changed


@pytest.mark.parametrize(
    ("argv", "flag", "found"),
    [
        (["--mode", "first"], "--mode", "first"),
        (["--precision", "fp8"], "--precision", "fp8"),
        (["--opt_level", "O7"], "--opt_level", "O7"),
        (["--lr", "quick"], "--lr", "quick"),
        (["--lr", "nan"], "--lr", "nan"),
        (["--epochs", "1.5"], "--epochs", "1.5"),
        (["--schedule", "30", "x"], "--schedule", "x"),
        (["--unheard", "1"], "--unheard", "1"),
        (["--sched", "3"], "--sched", "3"),  # no abbreviations: they would change their meaning with a new flag
        (["--rand_split", "1"], "", "1"),
        (["stray"], "", "stray"),
    ],
)
def test_bad_values_are_refused_in_one_line(argv: list[str], flag: str, found: str) -> None:
    message = refusal(*argv)
    assert flag in message
    assert found in message


@pytest.mark.parametrize("flag", ["--lr", "--schedule", "--mode"])
def test_a_missing_value_is_refused(flag: str) -> None:
    assert flag in refusal(flag)


def test_a_refused_choice_lists_the_choices() -> None:
    assert "'sum', 'last'" in refusal("--mode", "first")


def test_overrides_tell_what_the_user_changed() -> None:
    row = ["--lr", "0.1", "--schedule", "30", "60", "--rand_split"]
    added = ["--lr", "0.2", "--schedule", "7", "--train_aug", "--rand_split", "--mode", "sum"]
    machine = ["--output_dir", "elsewhere", "--gpuid", "-1", "--time_budget", "5"]
    config, changed = parse_row(Options, [*row, "--overrides", *added, *machine])
    assert changed == {"lr": [0.1, 0.2], "schedule": [[30, 60], [7]], "train_aug": [True, False]}
    assert config == dataclasses.replace(
        Options(),
        lr=0.2,
        schedule=[7],
        train_aug=False,
        rand_split=True,
        output_dir="elsewhere",
        gpuid=[-1],
        time_budget=5.0,
    )


def test_a_switch_that_stays_on_may_say_how_a_run_is_executed() -> None:
    @dataclass(frozen=True)
    class Switches(RunOptions):
        computes: bool = always_on()
        places: bool = always_on(machine=True)

    assert [is_machine_option(Switches, name) for name in ("computes", "places")] == [False, True]


@pytest.mark.parametrize("argv", [["--lr", "0.2"], ["--lr", "0.2", "--overrides"], ["--overrides"], []])
def test_nothing_is_changed_without_flags_after_the_marker(argv: list[str]) -> None:
    assert parse_row(Options, argv)[1] == {}


def test_a_row_answers_its_own_cell_only() -> None:
    assert parse_row(Options, ["--cell", "a/b", "--overrides"])[0].cell == "a/b"
    for words in (["--cell", "a/c"], ["--cell=a/c"]):
        with pytest.raises(UserError, match="--cell after --overrides"):
            parse_row(Options, ["--cell", "a/b", "--overrides", *words])


def test_a_bad_flag_after_the_marker_is_refused() -> None:
    assert "--unheard" in refusal("--overrides", "--unheard")


def test_class_variables_are_no_flags() -> None:
    assert "--kinds" in refusal("--kinds", "4")
    assert "kinds" not in help_text()


def test_help_shows_groups_help_and_defaults() -> None:
    text = help_text()
    assert "what the program does" in text
    groups = ["added by this repository:", "flags of the base:", "flags of the sub:"]
    places = [text.index(group) for group in groups]
    assert places == sorted(places)
    assert "Not part of the title" not in text
    flags = re.findall(r" --(\w+) (?:\S+ )*?(?=\S)", text[places[0] :])
    assert set(flags) == {field_.name for field_ in dataclasses.fields(Options)}
    assert "learning rate, above 0 (type: float, default: 0.5)" in text  # the subclass's default, the base's help
    assert "augment (switch) (default: True)" in text
    assert "{sum,last}" in text


def test_a_subclass_that_changes_a_default_keeps_the_flag_in_its_group() -> None:
    text = help_text()
    base, sub = text.index("flags of the base:"), text.index("flags of the sub:")
    assert base < text.index("learning rate, above 0") < sub < text.index("a name")


def test_a_config_is_plain_values() -> None:
    values = as_dict(parse("--schedule", "1", "2"))
    assert values["schedule"] == [1, 2]
    assert list(values) == [field_.name for field_ in dataclasses.fields(Options)]


def test_list_defaults_are_not_shared() -> None:
    first = Options()
    first.gpuid.append(7)
    first.schedule.append(7)
    assert (Options().gpuid, Options().schedule) == ([0], [5])
    parse().gpuid.append(7)
    assert parse().gpuid == [0]


def test_hyphens_stand_for_underscores() -> None:
    config = parse_config(RunOptions, ["--output-dir=out-put", "--time-budget", "3"])
    assert (str(config.output_dir), config.time_budget) == ("out-put", 3)
    with pytest.raises(UserError, match="--no-such-flag"):
        parse_config(RunOptions, ["--no-such-flag", "3"])
