"""Self-test of the tables: wrong numbers are planted in a copy of the repository's numbers, and must be caught."""

from __future__ import annotations

import copy
import csv
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.training.errors import UserError
from repro.published import Published
from repro.readme import find_readmes, update_readmes
from repro.records import find_problem, load_record, load_records
from repro.registry import Subproject, read_registry
from repro.speed import FOLDER
from repro.status import OUTSIDE, WITHIN, status_of
from repro.tables import collect, full_runs

COPIED = ("*/experiments.toml", "results/**/*", "repro/paper/**/*", "repro/discrepancies/*", "repro/claims/*")
COPIED += ("repro/fixtures/*/manifest.json", "repro/artefacts.*", "**/REPRODUCTION.md")
_RESULT = re.compile(r"(?<![\w.])-?\d+\.\d+(?![\w.])")


@dataclass(frozen=True)
class Planted:
    """One planted error: what it was, and whether it was caught."""

    what: str
    caught: bool


def plant_everything(root: Path) -> list[Planted]:
    """Plant one error of each kind, each in a fresh copy; the originals stay as they are."""
    subprojects = read_registry(root)
    if update_readmes(root, check=True)[0]:
        raise UserError("the generated blocks are out of date; run `repro readme` first")
    found = [*_in_records(root, subprojects), *_in_status()]
    plants: list[tuple[str, Callable[[Path], bool]]] = [
        ("a changed number in a generated table", _change_readme),
        ("a changed published value", _change_published),
        ("a record whose result was changed everywhere", _change_record),
        ("a record that was taken away", _remove_record),
        ("a changed measurement of speed", _change_speed),
    ]
    for what, plant in plants:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            _copy_numbers(root, place)
            if plant(place):
                found.append(Planted(what, bool(update_readmes(place, check=True)[0])))
    return found


def _copy_numbers(root: Path, place: Path) -> None:
    files = {path for pattern in COPIED for path in root.glob(pattern) if path.is_file()}
    for path in sorted({*files, *find_readmes(root)}):
        target = place / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


# --- generated blocks -------------------------------------------------------------------------------------------------


def _change_readme(place: Path) -> bool:
    for path in find_readmes(place):
        text = path.read_text(encoding="utf-8")
        start = text.find("<!-- repro:table")
        match = _RESULT.search(text, start) if start >= 0 else None
        if match and match.start() < text.index("<!-- /repro:table", start):
            path.write_text(text[: match.start()] + _other(match[0]) + text[match.end() :], encoding="utf-8")
            return True
    return False


def _change_published(place: Path) -> bool:
    shown = "".join(path.read_text(encoding="utf-8") for path in find_readmes(place))
    for subproject in read_registry(place):
        if f"repro:table {subproject.paper}" not in shown:
            continue
        for metric in (metric for cell in subproject.cells for metric in cell.metrics):
            for reference in metric.published:
                path = place / "repro" / "paper" / subproject.paper / reference.file
                with path.open(encoding="utf-8", newline="") as file:
                    rows = list(csv.DictReader(file))
                for row in rows:
                    if all(row[key] == value for key, value in reference.where.items()):
                        row[reference.column] = _other(row[reference.column])
                        with path.open("w", encoding="utf-8", newline="") as file:
                            writer = csv.DictWriter(file, list(rows[0]))
                            writer.writeheader()
                            writer.writerows(rows)
                        return True
    return False


def _change_record(place: Path) -> bool:
    """A forger who keeps the record consistent in itself is still caught by the committed table."""
    for path, content in _kept(place):
        for name, value in content["metrics"].items():
            if isinstance(value, float) and name in ("acc", "last", "best_acc"):
                content["metrics"] = {key: one for key, one in content["metrics"].items() if key == name}
                content["metrics"][name] = value + 1
                path.write_text(json.dumps(content), encoding="utf-8")
                return True
    return False


def _remove_record(place: Path) -> bool:
    for path, _ in _kept(place):
        path.unlink()
        return True
    return False


def _change_speed(place: Path) -> bool:
    for path in sorted((place / FOLDER).glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["measurements"][0]["rows"][0]["ratio"] *= 1.5
        path.write_text(json.dumps(content), encoding="utf-8")
        return True
    return False


def _kept(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    cells = {cell.id for subproject in read_registry(place) for cell in subproject.cells}
    for folder in sorted((place / "results").glob("*")):
        for record in load_records([folder])[0] if folder.is_dir() else ():
            if record.finished and record.cell in cells:
                yield record.path, copy.deepcopy(record.content)


def _other(number: str) -> str:
    """The same number with another last digit before any spread ("43.9+-0.9" -> "43.8+-0.9")."""
    match = re.match(r"-?\d+(\.\d+)?", number.strip())
    if match is None:
        return f"1{number}"
    digits = match[0]
    return digits[:-1] + str((int(digits[-1]) + 9) % 10) + number.strip()[match.end() :]


# --- records and status -----------------------------------------------------------------------------------------------


def _in_records(root: Path, subprojects: list[Subproject]) -> Iterator[Planted]:
    for _, content in _kept(root):
        if content["metrics"].get("accuracy_matrix") and content["metrics"].get("acc") is not None:
            content["metrics"]["acc"] += 1
            what = f"{content['run_id']}: an average that its accuracy matrix does not give"
            yield Planted(what, find_problem(content) is not None)
            break
    for path, _ in _kept(root):
        record = load_record(path)
        name = record.run_id
        disguised = {**record.content, "config": {**record.content["config"], "smoke": True}, "labels": []}
        yield Planted(f"{name}: a smoke run without its label", find_problem(disguised) is not None)
        labelled = copy.deepcopy(record.content)
        labelled["labels"] = list(dict.fromkeys([*record.labels, "shortened"]))
        (subproject,) = [one for one in subprojects if one.paper == labelled["paper"]]
        (cell,) = [one for one in subproject.cells if one.id == labelled["cell"]]
        before = [full_runs(collect(subproject, root).records[cell.id], metric).values for metric in cell.metrics]
        with tempfile.TemporaryDirectory() as folder:
            labelled["run_id"] += "-planted"
            Path(folder, "record.json").write_text(json.dumps({**labelled, "series": None}), encoding="utf-8")
            records = collect(subproject, root, [Path(folder)]).records[cell.id]
            after = [full_runs(records, metric).values for metric in cell.metrics]
            is_read = any(one.run_id == labelled["run_id"] for one in records)
        yield Planted(f"{name}: a shortened run among full ones", is_read and after == before)
        return  # one record of each kind shows it


def _in_status() -> Iterator[Planted]:
    values = (79.8, 80.1, 80.3)

    def status(value: float) -> str:
        return status_of(values, [Published(value, f"{value:.2f}", ("planted",), "planted.csv")])

    yield Planted("a published value far above our runs", status(90.0).startswith(OUTSIDE))
    yield Planted("a published value far below our runs", status(70.0).startswith(OUTSIDE))
    yield Planted("a published value amid our runs must stay within", status(80.0) == WITHIN)
