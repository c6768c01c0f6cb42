"""The command line of `main.py`: dotted keys, YAML files, and what a user changed of a script's row.

Arguments are applied in the order in which they appear: a key after `--config` overrides the file, one before it does
not. Keys that do not exist are errors, missing ones take their defaults.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from common.training.options import OptionParser, as_dict, build_parser, is_machine_option, part_row
from rfd.options import Added, DataOptions, ModelOptions, RfdOptions, TrainerOptions, check

GROUPS = {"trainer": TrainerOptions, "model": ModelOptions, "data": DataOptions}


def make_parser(description: str = "") -> OptionParser:
    """The parser of `main.py`, with --config and --print_config."""
    parser = build_parser(Added, description)
    parser.add_argument("--config", action="config", help="YAML file with the same keys, nested; may be repeated")
    for name, group in GROUPS.items():
        parser.add_class_arguments(group, name)
    return parser


def parse(argv: Sequence[str] | None = None, description: str = "") -> tuple[RfdOptions, dict[str, list[Any]]]:
    """Command line -> config, and {flag: [value of the row, value used]} of what follows `--overrides`.

    Raises:
        UserError: for an unknown key, a value of the wrong type, or a combination that is refused.
    """
    row, everything = part_row(sys.argv[1:] if argv is None else argv)
    parser = make_parser(description)
    config = _read(parser, everything)
    check(config)
    before, after = as_dict(_read(parser, row) if row != everything else config), as_dict(config)
    changed = {
        name: [before[name], value]
        for name, value in after.items()
        if value != before[name] and not is_machine_option(RfdOptions, name)
    }
    return config, changed


def read_config_file(path: Path) -> RfdOptions:
    """The config that a file gives by itself.

    Raises:
        UserError: if the file is missing, or holds a key that does not exist.
    """
    return parse(["--config", str(path)])[0]


def _read(parser: OptionParser, argv: list[str]) -> RfdOptions:
    for flag, value in pairwise([*argv, ""]):
        if flag == "--config" and not Path(value).is_file():
            raise UserError(f"--config {value}: no such file; the released ones are in rfd/config")
    values = parser.parse_args(argv).as_dict()
    groups = {name: kind(**_mended(values[name], name)) for name, kind in GROUPS.items()}
    own = {field.name: values[field.name] for field in dataclasses.fields(Added)}
    return RfdOptions(**own, **groups)


def _mended(values: dict[str, Any], group: str) -> dict[str, Any]:
    """original: a released config says `none`, which YAML reads as a text; it is taken as null, with a warning."""
    mended = dict(values)
    for name, value in values.items():
        if isinstance(value, str) and re.fullmatch("none", value, re.IGNORECASE):
            print(f"warning: {group}.{name} is the text {value!r}, read as null", file=sys.stderr)
            mended[name] = None
    return mended
