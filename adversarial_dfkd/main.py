"""LRA (CVPR 2023, arXiv 2302.14290) and its rivals PRE-DFKD and MB-DFKD.

    python main.py ./configs/Ours-2.json                              # as in the original
    python main.py ./configs/Ours-2.json --set batch_size=256 --set data=/data
    python main.py ./configs/Ours-2.json --meta_gradient second_order # the paper's method, see README "Deviations" D1
    sh scripts/lra.sh ours-2                                          # the same by row, for the tables

Original: gaurav104/LRA@40a8941 src/main.py.  Deviations from it: see README.md, section "Deviations".
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adversarial_dfkd.experiment import run_experiment, smoke_form
from adversarial_dfkd.options import AddedOptions, ConfigurationKeys, LRAOptions, check, ignored_keys
from common.training.errors import UserError, command_line
from common.training.options import OVERRIDES_MARKER, as_dict, build_parser, is_machine_option, part_row

KEYS = set(ConfigurationKeys.__dataclass_fields__) | set(AddedOptions.__dataclass_fields__)
"""What a configuration file may hold."""


def read_configuration(path: Path) -> dict[str, Any]:
    """The content of a configuration file.

    Raises:
        UserError: if it is missing, no JSON object, or holds an unknown key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path} ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object (keys and values)")
    _check_keys(content, str(path))
    return content


def split_settings(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take `--set key=value` out of a command line; values are JSON where they can be read as such, else text.

    Raises:
        UserError: for a `--set` without key and value, or an unknown key.
    """
    rest, settings, words = [], {}, list(words)
    while words:
        word = words.pop(0)
        if word != "--set" and not word.startswith("--set="):
            rest.append(word)
            continue
        text = word.removeprefix("--set=") if word != "--set" else (words.pop(0) if words else "")
        key, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--set expects key=value, found {text or 'nothing'!r}")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    _check_keys(settings, "--set")
    return rest, settings


def get_config(argv: Sequence[str] | None = None) -> tuple[LRAOptions, dict[str, list[Any]], list[str]]:
    """A command line -> typed config, what was changed of the configuration file, and lines for the log.

    Words before the marker `--overrides` belong to the row of a launch script; without the marker the row is the
    configuration file alone.

    Raises:
        UserError: for anything that is not offered or does not go together.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "-h" in words or "--help" in words:
        build_parser(LRAOptions, "main.py CONFIG.json [--set key=value ...] [flags]").parse_args(["--help"])
    path, words = split_path(words)
    content = read_configuration(path)
    filed = _resolve(content, [])
    has_row = OVERRIDES_MARKER in words
    row_words, words = part_row(words)
    row = _resolve(content, row_words) if has_row else filed
    asked = _resolve(content, words)
    config = check(smoke_form(asked) if asked.smoke else asked)
    given = {*content, *split_settings(words)[1], *_differences(filed, asked)}
    return config, _differences(row, config), ignored_keys(config, given)


def split_path(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Take the configuration file out of a command line: the first word that is no flag and no flag's value.

    Raises:
        UserError: if there is none.
    """
    kinds, is_value = typing.get_type_hints(LRAOptions) | {"set": str}, False
    for place, word in enumerate(words):
        if not word.startswith("-") and not is_value:
            return Path(word), [*words[:place], *words[place + 1 :]]
        name = word.removeprefix("--").replace("-", "_")
        is_value = not is_value and kinds.get(name, bool) is not bool  # a switch, and --flag=value, take no next word
    raise UserError("a configuration file is expected, e.g. ./configs/Ours-2.json")


def _differences(one: LRAOptions, other: LRAOptions) -> dict[str, list[Any]]:
    """{key: [value in the first, value in the second]} of what differs and is no `machine_option`."""
    pairs = zip(as_dict(one).items(), as_dict(other).values(), strict=True)
    return {
        name: [old, new] for (name, old), new in pairs if new != old and not is_machine_option(LRAOptions, name)
    }


def _resolve(content: dict[str, Any], words: Sequence[str]) -> LRAOptions:
    """Defaults, then the file, then `--set`, then flags."""
    words, settings = split_settings(words)
    parser = build_parser(LRAOptions)
    values = parser.parse_object(content | settings)
    parser.set_defaults({name: getattr(values, name) for name in LRAOptions.__dataclass_fields__})
    parsed = vars(parser.parse_args(list(words)))
    return LRAOptions(**{name: parsed[name] for name in LRAOptions.__dataclass_fields__})


def _check_keys(content: dict[str, Any], place: str) -> None:
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        raise UserError(f"{place}: unknown key {unknown[0]!r}; known: {', '.join(sorted(KEYS))}")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run one configuration; returns the metrics."""
    return run_experiment(*get_config(argv))


if __name__ == "__main__":
    command_line(main)()
