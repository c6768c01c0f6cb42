"""Replays recorded fixtures of the originals through our code.

An adapter sees inputs, weights and arguments of a fixture, never its outputs. Arguments that the original computed
(names and counts of parameters, the optimiser's groups, ...) are outputs too: they are taken out, and the adapter has
to return them as "args.<key>".
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import fnmatch
import importlib
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from common.parity import ADAPTERS, Adapter, Fixture
from common.training.errors import UserError
from repro.comparison import Comparison, as_tensor, compare_args, compare_tensors
from repro.recorded import MANIFEST, Entry, MalformedFixture, Recording, find_folders, read_manifest, read_recording
from repro.registry import Subproject

NEXT_ISSUE: dict[str, str] = {}
"""Patterns of fixtures that may lack a counterpart for now -> what they wait for. One with an adapter is compared."""

ANSWER_ARGS = {
    "vdfd.*": (
        "keys",
        "n_params",
        "hyper_params",
        "n_reg_params",
        "reg_params",
        "names",
        "storage",
        "groups",
        "out_space",
    ),
    "prompt_distill.*": ("grad_elements",),
    "cudfkd.*": ("n_params",),
    "lra.*": ("parameters", "buffers", "state_dict_entries", "feature_shapes", "out_shape", "noise_draws"),
    "rfd.*": (
        "keys",
        "n_params",
        "n_state",
        "shape",
        "zero_initialised",
        "summary_text",
        *(f"factors.{name}" for name in ("ce", "ft", "fkd", "hkd", "rkd", "distkd_old", "distkd_new", "sm")),
    ),
    "rfd.abd.step.shared_weights": ("out_dim", "batch_size"),
    "seg.step.*": ("param_names",),
    "seg.rcil.merge.*": ("bn2_eps_after", "map_bn_eps_after", "requires_grad_false"),
    "seg.tasks.*": ("path",),
}
"""Pattern of fixtures -> keys of `args` that the original computed; hidden from adapters and compared."""

PARTLY_ANSWERS = {"groups": "names"}
"""Answer key -> field of its list items that is hidden; the rest stays visible in `args` (a recipe's learning rates
and weight decays are inputs, which parameters they belong to is the answer)."""

PASSED, FAILED, MISSING, WAITING = "pass", "FAIL", "no counterpart", "next issue"


@dataclass(frozen=True)
class Outcome:
    """What the replay (or the self-test) of one fixture found.

    Attributes:
        id: of the fixture.
        status: PASSED, FAILED, MISSING or WAITING (of a self-test: see `repro.self_test`).
        compared, max_abs, max_rel: see `repro.comparison.Comparison`.
        seconds: wall time.
        reasons: why it failed, most important first.
        trace: traceback of an adapter that raised.
    """

    id: str
    status: str
    compared: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    trace: str = ""


# --- choosing fixtures and adapters -----------------------------------------------------------------------------------


def select_entries(
    subprojects: Sequence[Subproject], root: Path, name: str | None = None, folder: Path | None = None
) -> list[Entry]:
    """The fixtures to replay.

    Args:
        subprojects: of the registry.
        root: repository root.
        name: paper, beginning of an id, or shell pattern; None takes all.
        folder: a folder with a manifest, or a folder of such folders; None takes the registered ones.

    Raises:
        UserError: if no fixture matches, or a manifest cannot be read.
    """
    if folder is not None:
        folders = find_folders(folder)
    else:
        folders = [root / subproject.fixtures for subproject in subprojects]
    entries = [entry for one in folders for entry in read_manifest(one)]
    name = next((one.paper for one in subprojects if name in one.aliases), name)
    chosen = [entry for entry in entries if name is None or _matches(entry.id, name)]
    if not chosen:
        where = ", ".join(str(one) for one in folders) or "any registered folder"
        raise UserError(f"no fixture matches {name or 'anything'!r} in {where}; give a paper or the beginning of an id")
    return chosen


def read_entries(subproject: Subproject, root: Path) -> list[Entry]:
    """All registered fixtures of a paper; empty where none was recorded."""
    folder = root / subproject.fixtures
    return read_manifest(folder) if (folder / MANIFEST).is_file() else []


def load_adapters(subprojects: Iterable[Subproject], entries: Iterable[Entry]) -> Mapping[str, Adapter]:
    """Import the adapters of the papers that the fixtures belong to.

    Raises:
        UserError: if a registered module does not exist.
    """
    papers = {entry.id.split(".")[0] for entry in entries}
    for subproject in subprojects:
        if subproject.paper not in papers:
            continue
        try:
            importlib.import_module(subproject.parity)
        except ModuleNotFoundError as error:
            if error.name and (subproject.parity == error.name or subproject.parity.startswith(f"{error.name}.")):
                raise UserError(
                    f"paper {subproject.paper!r}: its parity adapters, module {subproject.parity!r}, do not exist; "
                    "correct `parity` in its experiments.toml"
                ) from error
            raise
    return ADAPTERS


def next_issue(id: str) -> str | None:
    """What the fixture waits for, if it may lack a counterpart."""
    return next((reason for pattern, reason in NEXT_ISSUE.items() if fnmatch.fnmatchcase(id, pattern)), None)


def open_recording(entry: Entry, adapter: Adapter | None = None) -> Recording:
    """Read a fixture, its answers taken out, and the fixture that its adapter builds on.

    Raises:
        MalformedFixture: if its file and its manifest entry contradict each other, or the other fixture is missing.
    """
    answers = [key for pattern, keys in ANSWER_ARGS.items() if fnmatch.fnmatchcase(entry.id, pattern) for key in keys]
    recording = read_recording(entry, answers, PARTLY_ANSWERS)
    if adapter is not None and adapter.base is not None:
        base = next((other for other in read_manifest(entry.path.parent) if other.id == adapter.base), None)
        if base is not None:
            recording.fixture.base = open_recording(base).fixture
        elif adapter.needs_base:
            raise MalformedFixture(f"{adapter.base}, which {entry.id} builds on, is not in the same folder")
    return recording


# --- comparing --------------------------------------------------------------------------------------------------------


def replay(entry: Entry, adapters: Mapping[str, Adapter]) -> Outcome:
    """Compare one fixture with what its adapter computes."""
    adapter = adapters.get(entry.id)
    if adapter is None:
        reason = next_issue(entry.id)
        return Outcome(entry.id, WAITING if reason else MISSING, reasons=(reason or "no adapter is registered for it",))
    start = time.perf_counter()
    try:
        comparison = compare(entry, open_recording(entry, adapter), adapter)
    except Exception as error:  # an adapter may raise anything; the other fixtures still have to be compared
        return Outcome(
            entry.id,
            FAILED,
            seconds=time.perf_counter() - start,
            reasons=(_one_line(error),),
            trace=traceback.format_exc(),
        )
    return Outcome(
        entry.id,
        PASSED if comparison.passed else FAILED,
        comparison.compared,
        comparison.max_abs,
        comparison.max_rel,
        time.perf_counter() - start,
        tuple(comparison.problems) or (() if comparison.passed else ("nothing was compared",)),
    )


def compare(entry: Entry, recording: Recording, adapter: Adapter, fixture: Fixture | None = None) -> Comparison:
    """Run an adapter and compare what it returns with the recording.

    Args:
        entry: for the tolerances.
        recording: the recorded answers.
        adapter: our counterpart.
        fixture: what the adapter sees; None takes the recorded one.
    """
    with deterministic():
        returned = dict(adapter.compute(_copy(fixture or recording.fixture)))
        ours = {name: as_tensor(value) for name, value in returned.items() if not name.startswith("args.")}
        recorded = recording.tensors
        if adapter.derive is not None and ours.keys() == recorded.keys():
            ours, recorded = adapter.derive(ours), adapter.derive(recorded)
    result = compare_tensors(ours, recorded, entry.rtol, entry.atol)
    compare_args({name: value for name, value in returned.items() if name.startswith("args.")}, recording.args, result)
    return result


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """One thread, deterministic algorithms and a fixed random state, as in the recording; restored afterwards."""
    threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(was_deterministic, warn_only=warned_only)


def _copy(fixture: Fixture) -> Fixture:
    """why: an adapter may train the weights that it gets in place."""
    return dataclasses.replace(
        fixture,
        args=copy.deepcopy(fixture.args),
        inputs={name: value.clone() for name, value in fixture.inputs.items()},
        params={name: value.clone() for name, value in fixture.params.items()},
        base=None if fixture.base is None else _copy(fixture.base),
    )


def _matches(id: str, name: str) -> bool:
    return fnmatch.fnmatchcase(id, name) if any(sign in name for sign in "*?[") else id.startswith(name)


def _one_line(error: BaseException) -> str:
    kind = "malformed fixture" if isinstance(error, MalformedFixture) else type(error).__name__
    return f"{kind}: {' '.join(str(error).split())}"
