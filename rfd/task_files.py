"""Files of each task, in the originals' layout: task_<t>/last.ckpt, best.ckpt, inversion.ckpt (t from 0).

`last.ckpt` is the state at the latest test, `best.ckpt` at the test with the best accuracy of the task (over all
seen classes). Both hold everything: a run can go on from them (`--trainer.resume_from_checkpoint`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from common.data.splits import ClassSplit
from common.training.checkpoint import read_checkpoint
from common.training.errors import UserError
from common.training.files import write_atomically
from common.training.seeding import GlobalGenerators
from rfd.evaluation import History
from rfd.inversion import GenerativeInversion

if TYPE_CHECKING:
    from rfd.learning.base import IncrementalLearner

KEEP = ("all", "last", "none")


class TaskFolders:
    """Writes the files of each task below a run's folder.

    Args:
        folder: of the run.
        split: its class order and tasks, saved along.
        history: accuracies of the tasks before, saved along.
        keep: "all"; "last": no best.ckpt; "none": nothing.
    """

    def __init__(self, folder: Path, split: ClassSplit, history: History, keep: str = "all") -> None:
        self.folder, self.split, self.history, self.keep = folder, split, history, keep

    def save(self, name: str, learner: IncrementalLearner) -> None:
        """`last` or `best` of the current task."""
        if self.keep == "none" or (self.keep == "last" and name != "last"):
            return
        evaluation = learner.latest
        state = {
            "method": learner.name,
            "order": list(self.split.order),
            "boundaries": list(self.split.boundaries),
            "learner": learner.state_dict(),
            "history": self.history.state_dict(),
            "generators": GlobalGenerators().state_dict(),
            "step": learner.run.step,
            "accuracy": None if evaluation is None else evaluation.all,
        }
        self._write(learner.task, f"{name}.ckpt", state)

    def save_inversion(self, task: int, inversion: GenerativeInversion) -> None:
        """The trained generator and the network that it was trained against."""
        if self.keep != "none":
            state = inversion.state_dict(with_optimizer=False) | {"classifier": inversion.classifier.state_dict()}
            self._write(task, "inversion.ckpt", state)

    def _write(self, task: int, name: str, state: dict[str, Any]) -> None:
        write_atomically(self.folder / f"task_{task - 1}" / name, lambda file: torch.save(state, file))


def restore_from_file(path: Path, task: int, learner: IncrementalLearner, split: ClassSplit, history: History) -> None:
    """Go on from a `last.ckpt` or `best.ckpt` of another run.

    Args:
        path: of the file.
        task: the task, counted from 0, that the command line says it belongs to.
        split: class order and tasks of this run.
        learner, history: are set.

    Raises:
        UserError: if the file belongs to another method, task, class order, split or network.
    """
    state = read_checkpoint(path)
    if not isinstance(state, dict) or not {"method", "order", "boundaries", "learner", "history"} <= state.keys():
        raise UserError(f"{path} is no task checkpoint of this program; expected task_<t>/last.ckpt of a run")
    if state["method"] != learner.name:
        raise UserError(f"{path} was written by {state['method']}, this run is {learner.name}; give its own checkpoint")
    found = state["learner"]["task"] - 1
    if found != task:
        raise UserError(f"{path} belongs to task {found}, but --data.current_task is {task}; make them agree")
    if state["boundaries"] != list(split.boundaries):
        raise UserError(
            f"{path} belongs to tasks that begin and end at classes {_shown(state['boundaries'])}, those of this run "
            f"at {_shown(split.boundaries)}; give its --data.num_tasks and --data.init_task_splits"
        )
    if state["order"] != list(split.order):
        raise UserError(
            f"{path} belongs to the class order {_shown(state['order'])}, this run has {_shown(split.order)}; give its "
            "--seed, or its --data.class_order and --data.task_seed"
        )
    try:
        learner.load_state_dict(state["learner"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    history.load_state_dict(state["history"])
    learner.run.step = state["step"]
    GlobalGenerators().load_state_dict(state["generators"])
    learner.run.note(f"goes on from {path}: task {found}, {learner.epoch} epochs done")


def _shown(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "")
