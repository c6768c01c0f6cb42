"""Typed options from the command line: one dataclass per program, one flag per field.

A field's default, type and docstring are the flag's default, type and help. Flags keep the originals' spelling:
`bool` fields are switches that take no value (given, they turn the default around: a field that is True by default
is switched OFF by its flag, as with the originals' `store_false` flags); `list` fields take one or more values.

A launch script separates the published row from what its user adds by `--overrides`:

    python main.py <flags of the row> --overrides "$@"

Later values win; what the user changed is recorded, so that a changed run never passes for the published one.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import docstring_parser
import jsonargparse

from common.training.errors import UserError

OVERRIDES_MARKER = "--overrides"

Config = TypeVar("Config")


def machine_option(default: Any) -> Any:
    """A field that says where or how a run is executed, not what it computes.

    Such fields may differ between a run and its resumption, and never make a run differ from its published row.
    """
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"machine": True})
    return dataclasses.field(default=default, metadata={"machine": True})


def always_on(machine: bool = False) -> Any:
    """A switch that is on by default and that its flag can only switch on again (an original's `store_true`).

    Args:
        machine: it is a `machine_option` too.
    """
    return dataclasses.field(default=True, metadata={"always_on": True, "machine": machine})


@dataclass(frozen=True)
class RunOptions:
    """added by this repository"""

    output_dir: str = machine_option("outputs/run")
    """folder of this run: log, series, checkpoints, record"""
    resume: Literal["auto", "never"] = machine_option("auto")
    """auto: go on from the newest sound checkpoint in output_dir, skip a finished run; never: start over, earlier
    content of output_dir is moved aside"""
    time_budget: float | None = machine_option(None)
    """seconds after which the run saves a checkpoint and stops with exit code 75"""
    checkpoint_interval: float = machine_option(300.0)
    """seconds between checkpoints inside an epoch; the ends of epochs and tasks are always saved"""
    cell: str | None = machine_option(None)
    """name of the published table cell that this run answers, e.g. vdfd/ti-cifar100-10"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """number format of the forward pass (torch.amp); fp32 is the reference"""
    opt_level: Literal["O0", "O1", "O2", "O3"] | None = None
    """NVIDIA apex's names for mixed precision: O0 = fp32, O1 and O2 = fp16 with loss scaling, O3 = refused"""
    amp_backend: Literal["torch", "apex"] = "torch"
    """apex: use NVIDIA apex, if it can be imported, for --opt_level"""
    fast: bool = False
    """faster arithmetic on the same mathematics: TF32, channels-last layout, cuDNN autotuning; in some papers more, see
    their READMEs"""
    smoke: bool = False
    """short form on the embedded sample: few classes, images and epochs through the same code"""


class OptionParser(jsonargparse.ArgumentParser):
    """argparse with type checking; bad input is one line naming the flag."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raise instead of printing the whole usage text."""
        line = re.sub(r'Parser key "(\w+)"', r"--\1", " ".join(message.split()))  # jsonargparse names the field
        line = re.sub(r"<class '(\w+)'>", r"\1", line).replace("typing.", "")
        raise UserError(f"{line} (run with --help for all options)") from ex

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> Any:
        """Parse; a flag may be written with hyphens instead of the underscores of its name."""
        words = sys.argv[1:] if args is None else args
        return super().parse_args([self._underscored(word) for word in words], *rest, **named)

    def _underscored(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        name = "--" + flag[2:].replace("-", "_")
        known = self._option_string_actions
        return name + equals + value if flag.startswith("--") and flag not in known and name in known else word


def build_parser(config_type: type, description: str = "") -> OptionParser:
    """A parser with one titled group of flags per dataclass that `config_type` inherits from."""
    parser = OptionParser(description=description, exit_on_error=True, allow_abbrev=False)
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    hints = typing.get_type_hints(config_type)
    help_of: dict[str, str] = {}
    owners: dict[str, type] = {}
    for owner in reversed(config_type.__mro__):
        if dataclasses.is_dataclass(owner):
            help_of |= _attribute_help(owner)
            for name in owner.__dict__.get("__annotations__", {}):
                owners.setdefault(name, owner)  # a subclass may give a flag another default; it stays in its group
    groups = {owner: parser.add_argument_group(_title(owner)) for owner in dict.fromkeys(owners.values())}
    for name, owner in owners.items():
        if name in fields:  # not a class variable
            _add_flag(groups[owner], fields[name], hints[name], help_of.get(name, ""))
    return parser


def parse_config(config_type: type[Config], argv: Sequence[str] | None = None, description: str = "") -> Config:
    """Parse a command line into a config.

    Args:
        config_type: a dataclass; its base dataclasses become groups of flags.
        argv: the arguments without the program's name; None takes those of the process.
        description: first text of `--help`.

    Raises:
        UserError: for an unknown flag or a value of the wrong type, naming the flag.
    """
    return parse_row(config_type, argv, description)[0]


def parse_row(
    config_type: type[Config], argv: Sequence[str] | None = None, description: str = ""
) -> tuple[Config, dict[str, list[Any]]]:
    """Parse a command line and tell what follows `--overrides` changes.

    Returns:
        The config, and {flag: [value of the row, value used]} of every field that the part after the marker changes
        and that is no `machine_option`.

    Raises:
        UserError: as `parse_config` and `part_row`.
    """
    row, everything = part_row(sys.argv[1:] if argv is None else argv)
    parser = build_parser(config_type, description)
    config, row_config = _parse(parser, config_type, everything), _parse(parser, config_type, row)
    changed = {
        name: [old, new]
        for (name, new), old in zip(as_dict(config).items(), as_dict(row_config).values(), strict=True)
        if new != old and not is_machine_option(config_type, name)
    }
    return config, changed


def part_row(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments in front of `--overrides` (all, where it is absent), and all without the marker.

    Raises:
        UserError: if the part after the marker says which cell the run answers; only the row can.
    """
    argv = list(argv)
    place = argv.index(OVERRIDES_MARKER) if OVERRIDES_MARKER in argv else len(argv)
    if any(word.partition("=")[0] == "--cell" for word in argv[place:]):
        raise UserError(f"--cell after {OVERRIDES_MARKER}: a row answers its own cell only; leave --cell away")
    return argv[:place], [argument for argument in argv if argument != OVERRIDES_MARKER]


def is_machine_option(config_type: type, name: str) -> bool:
    """Whether a field was declared with `machine_option`; "group.field" names a field of a nested dataclass."""
    group, _, rest = name.partition(".")
    if rest:
        return is_machine_option(typing.get_type_hints(config_type)[group], rest)
    return any(field.name == name and field.metadata.get("machine", False) for field in dataclasses.fields(config_type))


def as_dict(config: Any) -> dict[str, Any]:
    """A config as plain values that JSON can hold, in the order of its flags; nested ones as "group.field"."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            plain |= {f"{field.name}.{name}": nested for name, nested in as_dict(value).items()}
        else:
            plain[field.name] = str(value) if isinstance(value, Path) else copy.deepcopy(value)
    return plain


def _parse(parser: OptionParser, config_type: type[Config], argv: list[str]) -> Config:
    values = parser.parse_args(argv)
    names = {field.name for field in dataclasses.fields(config_type)}
    return config_type(**{name: value for name, value in vars(values).items() if name in names})


def _title(owner: type) -> str:
    return (owner.__doc__ or owner.__name__).strip().splitlines()[0]


def _add_flag(group: Any, field: dataclasses.Field, type_: Any, help_: str) -> None:
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    flag = f"--{field.name}"
    if type_ is bool:
        turns_off = default and not field.metadata.get("always_on", False)
        action = "store_false" if turns_off else "store_true"
        group.add_argument(flag, action=action, default=default, help=f"{help_} (switch)")
        return
    item = _list_item(type_)
    if item is not None:
        group.add_argument(flag, type=item, nargs="+", default=default, help=help_)
    else:
        group.add_argument(flag, type=type_, default=default, help=help_)


def _list_item(type_: Any) -> Any:
    """Item type of `list[item]` or `list[item] | None`; None for every other type."""
    members = typing.get_args(type_) if isinstance(type_, types.UnionType) else (type_,)
    for member in members:
        if typing.get_origin(member) is list:
            return typing.get_args(member)[0]
    return None


def _attribute_help(owner: type) -> dict[str, str]:
    """The docstrings below a dataclass's fields, by field name."""
    parsed = docstring_parser.parse_from_object(owner)
    return {meta.arg_name: " ".join((meta.description or "").split()) for meta in parsed.params}
