"""From flags to a record: one or all steps of a protocol, resumed where the last call stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from common.training.device import choose_device
from common.training.errors import RunStopped, UserError
from common.training.files import write_atomically
from common.training.parallel import Processes, SharedRun
from common.training.precision import set_backend_flags
from segmentation.configuration import epochs_of, labels_of, run_folder, seed_of, shared_folder
from segmentation.data.protocol import Protocol
from segmentation.evaluation import TestResult
from segmentation.metrics import average_rows, read_rows, results_row, summary_text
from segmentation.options import SegmentationOptions
from segmentation.pictures import write_pictures
from segmentation.tasks import Task, find_task
from segmentation.training import StepTraining, note_scores

PAPER = "seg"


def run_experiment(config: SegmentationOptions, changed: dict[str, list[Any]]) -> dict[str, Any]:
    """Train and test the steps of `--step`; returns the metrics of the record."""
    processes = Processes()
    device, notice = choose_device(processes.device_number(config.gpuid))
    set_backend_flags(config.fast)
    processes.start(device)
    try:
        with SharedRun(
            config,
            processes=processes,
            folder=run_folder(config),
            method=config.method or "FT",
            paper=PAPER,
            device=device,
            seed=seed_of(config),
            changed=changed,
            quiet=False,
        ) as run:
            if notice:
                run.note(notice)
            if run.finished:
                run.note(f"finished already: {run_folder(config)}")
                return run.read_record()["metrics"] if processes.rank == 0 else {}
            return Experiment(config, run, processes).go()
    finally:
        processes.stop()


class Experiment:
    """The steps of one command.

    Args:
        config: flags, the method's preset applied.
        run: log, checkpoints, record.
        processes: that share each batch.

    Attributes:
        done: results of the finished steps, plain values.
    """

    def __init__(self, config: SegmentationOptions, run: SharedRun, processes: Processes) -> None:
        self.config, self.run, self.processes = config, run, processes
        self.folder, shared = run_folder(config), shared_folder(config)
        self.checkpoints = Path(config.checkpoint) if config.checkpoint else shared / "checkpoints" / "step"
        self.results = results_file(config, Path(config.results) if config.results else shared / "results")
        self.task: Task = find_task(config.dataset, config.task)
        self.protocol = Protocol(
            self.task,
            Path(config.data_root),
            overlap=config.overlap,
            masking=config.data_masking,
            test_on_val=config.test_on_val,
            val_on_trainset=config.val_on_trainset,
            cross_val=config.cross_val,
            ignore_test_bg=config.ignore_test_bg,
            domain_split=config.domain_split,
            seed=seed_of(config),
        )
        self.done: list[dict[str, Any]] = []
        self.data: dict[str, Any] = {"copy": "original"}
        self._training: StepTraining | None = None

    def go(self) -> dict[str, Any]:
        """Every step that is left; returns the metrics."""
        run, config = self.run, self.config
        run.register("steps", self)
        run.restore()
        try:
            for step in config.step[len(self.done) :]:
                if self._training is None:
                    self._training = self._start(step)
                self.data = self._training.data.describe(config.dataset, self.task.seen_classes(step))
                self._training.fit()
                self._finish(step, self._training.test())
                self._training = None
                run.save()
        except RunStopped:
            self._record(finished=False)
            raise
        metrics = self._record(finished=True)
        run.note(f"finished in {run.seconds() / 3600:.2f} h; record: {self.folder / 'record.json'}")
        return metrics

    def _start(self, step: int) -> StepTraining:
        return StepTraining(
            self.config, self.task, self.protocol, step, self.run, self.processes, self.checkpoints
        )

    def _finish(self, step: int, result: TestResult) -> None:
        """Write down what the test of a step found."""
        epochs = epochs_of(self.config, step)
        note_scores(self.run, step, epochs, result.scores)
        classes = self.config.num_classes
        row = results_row(step, result.scores, classes)
        self.done.append(
            {
                "step": step,
                "row": row,
                "miou": 100 * result.scores.mean_iou,
                "overall_accuracy": 100 * result.scores.overall_accuracy,
                "class_iou": [None if iou is None else 100 * iou for iou in result.scores.class_iou],
                "unseen_miou": 100 * result.unseen.mean_iou,
                "unseen_images": result.unseen.images,
                "images": result.scores.images,
            }
        )
        if self.task.is_domain:
            unseen = 100 * result.unseen.mean_iou
            self.run.log_value("test/miou_unseen", unseen, task=step + 1, epoch=epochs)
        if self.processes.rank == 0:
            write_row(self.results, step, row, keep_later=self.config.test)
            write_confusion(self.folder, step, result.matrix)
            write_pictures(self.folder, step, result.samples, self.config.dataset)

    def _record(self, finished: bool) -> dict[str, Any]:
        metrics = self.metrics()
        labels = labels_of(self.config, self.run.changed, self.data.get("copy", "original"))
        self.run.write_record(metrics, self.data, labels, finished=finished)
        if finished and self.done and self.processes.rank == 0:
            self.run.note(summary_text(average_rows(self._rows())))
        return metrics

    def _rows(self) -> list[str]:
        """Lines of the results file up to the last step of this run."""
        return [row for row in read_rows(self.results) if _step_of(row) <= self.done[-1]["step"]]

    def metrics(self) -> dict[str, Any]:
        """Percent: final, average, old and new mean IoU over the steps in the results file; histories of this run."""
        if not self.done:
            return {}
        rows = self._rows() if self.processes.rank == 0 else [done["row"] for done in self.done]
        summary = average_rows(rows)
        last = self.done[-1]
        metrics: dict[str, Any] = {
            "miou": last["miou"],
            "miou_avg": summary.average,
            "miou_old": summary.first,
            "miou_new": summary.last,
            "overall_accuracy": last["overall_accuracy"],
            "class_iou": last["class_iou"],
            "miou_history": [done["miou"] for done in self.done],
            "steps": [done["step"] for done in self.done],
            "test_images": last["images"],
        }
        if self.task.is_domain:
            metrics |= {
                "miou_unseen": last["unseen_miou"],
                "unseen_images": last["unseen_images"],
                "miou_unseen_history": [done["unseen_miou"] for done in self.done],
            }
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Finished steps, the running one, and what the record says of the data."""
        training = None if self._training is None else self._training.state_dict()
        return {"done": self.done, "training": training, "data": self.data}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; builds the running step anew."""
        self.done = state["done"]
        self.data = state.get("data", self.data)
        if state["training"] is not None:
            self._training = self._start(state["training"]["step"])
            self._training.load_state_dict(state["training"])


def results_file(config: SegmentationOptions, folder: Path) -> Path:
    """`<date>_<dataset>_<task>_<name>.csv`; without a date its part is left out."""
    parts = [config.date, config.dataset, config.task, config.name]
    return folder / ("_".join(part for part in parts if part) + ".csv")


def _step_of(row: str) -> int:
    """Number of the step whose line of a results file this is."""
    return int(row.split(",")[0])


def write_row(path: Path, step: int, row: str, keep_later: bool = False) -> None:
    """Add a step's row to a results file; rows of this and later steps, of an earlier attempt, give way.

    Args:
        path: the file.
        step: number of the step.
        row: its line.
        keep_later: only the row of this step gives way: it was tested again, not trained.

    Raises:
        UserError: if the file holds something else.
    """
    rows = read_rows(path) if path.is_file() else []
    try:
        kept = [one for one in rows if _step_of(one) < step or (keep_later and _step_of(one) > step)]
    except ValueError as error:
        raise UserError(f"{path} is no results file ({error}); move it away") from error
    lines = sorted([*kept, row], key=_step_of)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))


def write_confusion(folder: Path, step: int, matrix: Tensor) -> None:
    """Write a test's confusion matrix to `confusion/step_<k>.csv`: pixels, a row for each true class."""
    path = folder / "confusion" / f"step_{step}.csv"
    lines = [",".join(map(str, row)) for row in matrix.tolist()]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))
