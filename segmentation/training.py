"""One step of a protocol: networks from the step before, epochs, validation, checkpoint, test.

Source: arthurdouillard/CVPR2021_PLOP@4b4a060 run.py `run_step`; zhangchbin/RCIL@b9aad58 run.py. The iteration itself is
`segmentation/step.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.metrics.segmentation import SegmentationScores
from common.training.errors import UserError
from common.training.journal import progress_bar
from common.training.parallel import Processes, SharedRun
from common.training.precision import Precision
from common.training.seeding import seed_generators
from segmentation.checkpoints import checkpoint_path, read_step, write_step
from segmentation.configuration import epochs_of, learning_rate, seed_of
from segmentation.data.loader import FirstEpoch, PairLoader, make_loader
from segmentation.data.protocol import Protocol, Selection, StepData
from segmentation.evaluation import TestResult, evaluate, validate
from segmentation.network import IncrementalSegmentationModule, build_network, load_pretrained
from segmentation.options import SegmentationOptions
from segmentation.start import load_weights, start_step
from segmentation.step import Regularizer, SegLearner
from segmentation.tasks import Task
from segmentation.vdfd import SavedStep, VdfdRegularizer


class StepTraining:
    """Builds, trains and tests the network of one step.

    Args:
        config: flags, the method's preset applied.
        task: protocol.
        protocol: its images.
        step: number of the step.
        run: log, checkpoints, time budget.
        processes: that share each batch.
        checkpoints: folder of the per-step checkpoints.

    Attributes:
        epoch, position: finished epochs, and finished batches of the running one.
        learner: the training iteration.
    """

    def __init__(
        self,
        config: SegmentationOptions,
        task: Task,
        protocol: Protocol,
        step: int,
        run: SharedRun,
        processes: Processes,
        checkpoints: Path,
    ) -> None:
        self.config, self.task, self.step = config, task, step
        self.run, self.processes, self.device = run, processes, run.device
        self.checkpoints = checkpoints
        self.epoch = self.position = 0
        self.epochs = epochs_of(config, step)
        seed_generators(seed_of(config))  # original: at the start of every step
        self.data: StepData = protocol.step(step)
        self.loader = self._loader(self.data.train, augment=True)
        self.is_trained = config.test or (step == 0 and config.step0_ckpt is not None)
        if self.is_trained:
            return
        if not len(self.loader):
            count = len(self.data.train)
            raise UserError(f"step {step} has {count} training images, fewer than --batch_size {config.batch_size}")
        self.learner = self._build()

    # --- building -----------------------------------------------------------------------------------------------

    def _build(self) -> SegLearner:
        config, step = self.config, self.step
        network = build_network(config, self.task.classes_per_step(step))
        old_network, trainer_state = None, None
        old = self._read_earlier() if step > 0 else None
        if old is not None:
            old_network = build_network(config, self.task.classes_per_step(step - 1))
            load_weights(old_network, old["model_state"])
            start_step(config, network, old["model_state"])
            trainer_state = (old.get("trainer_state") or {}).get("regularizer")
            old_network.to(self.device)
        elif not config.no_pretrained:
            self.run.note(f"pretrained body: {load_pretrained(network, config)}")
        network.to(self.device)
        iterations = self.epochs * len(self.loader)
        regularizer = None
        if config.regularizer == "vdfd":
            if old is not None and not (isinstance(trainer_state, list) and trainer_state):
                raise UserError("the previous step's checkpoint holds no VDFD importance; train it with --method VDFD")
            saved = [SavedStep.from_state(state, self.device) for state in trainer_state or []]
            regularizer = VdfdRegularizer(config, network, saved, iterations)
        learner = SegLearner(
            config,
            network,
            old_network,
            self.task.sizes(step),
            self.device,
            iterations=iterations,
            lr=learning_rate(config, step),
            precision=Precision(config, self.device),
            processes=self.processes,
            regularizer=regularizer,
            trainer_state=trainer_state,
        )
        if config.ckpt is not None and step == config.step[0]:
            self._go_on_from(learner, Path(config.ckpt))
        return learner

    def _read_earlier(self) -> dict[str, Any] | None:
        """The previous step's checkpoint; None, with a warning, where --debug allows it to be missing."""
        config = self.config
        first = self.step == config.step[0]
        path = Path(config.step_ckpt) if config.step_ckpt and first else self.path(self.step - 1)
        if not path.is_file() and config.debug:
            self.run.note(f"warning: {path} not found; step {self.step} starts without an old network (--debug)")
            return None
        if not path.is_file():
            raise UserError(f"step {self.step} needs {path}; train step {self.step - 1} first, or give --step_ckpt")
        return read_step(path)

    def _go_on_from(self, learner: SegLearner, path: Path) -> None:
        """--ckpt: weights, optimiser, schedule and penalty of a checkpoint, and the epochs after its own (D9)."""
        state = read_step(path)
        if learner.regularizer is not None:
            progress = (state.get("trainer_state") or {}).get("progress", {})
            if not _is_progress_of(learner.regularizer, progress):
                raise UserError(
                    f"--ckpt {path} holds nothing that --regularizer {self.config.regularizer} could go on from; give "
                    "a checkpoint that it wrote in this step, or leave --ckpt out"
                )
            learner.regularizer.load_state_dict(progress)
        load_weights(learner.network, state["model_state"], self.config.strict_weights)
        learner.optimizer.load_state_dict(state["optimizer_state"])
        for parameter, own in learner.optimizer.state.items():  # a run with --fast has another layout than one without
            if own.get("momentum_buffer") is not None:
                own["momentum_buffer"] = torch.empty_like(parameter).copy_(own["momentum_buffer"])
        learner.scheduler.load_state_dict(state["scheduler_state"])
        self.epoch = state["epoch"] + 1

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return checkpoint_path(self.checkpoints, self.config.task, self.config.dataset, self.config.name, step)

    def _loader(self, selection: Selection, augment: bool) -> PairLoader:
        return make_loader(
            self.config,
            selection,
            augment,
            device=self.device,
            seed=seed_of(self.config),
            step=self.step,
            rank=self.processes.rank,
            processes=self.processes.count,
        )

    # --- training -----------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """All epochs that are left; then the importance of VDFD, and the step's checkpoint."""
        if self.is_trained:
            return
        run, learner, task = self.run, self.learner, self.step + 1
        if learner.objective.thresholds is None and self.epoch < self.epochs:
            learner.begin(FirstEpoch(self.loader))
        while self.epoch < self.epochs:
            learner.train_mode()
            batches = self.loader.epoch(self.epoch, start=self.position)
            title = f"step {self.step} epoch {self.epoch + 1}/{self.epochs}"
            for images, labels in progress_bar(batches, title, len(self.loader), self.position):
                terms = learner.step(images, labels)
                run.step += 1
                self.position += 1
                run.log(task=task, epoch=self.epoch, **terms)
                run.tick()
            self.end_epoch()
            run.save()
        self.write_checkpoint(self.finish_importance())

    def end_epoch(self) -> None:
        """Learning rate to the series; every --val_interval epochs a validation and a checkpoint."""
        config, task = self.config, self.step + 1
        self.run.log_value("lr/head", self.learner.optimizer.param_groups[-1]["lr"], task=task, epoch=self.epoch)
        finished, self.position = self.epoch, 0
        self.epoch += 1
        if self.epoch % config.val_interval or not len(self.data.validation):
            return
        self.align("epoch", self.learner.network)
        loader = self._loader(self.data.validation, augment=self.data.validation_augmented)
        loss, scores = validate(self.learner, loader, self.task.seen_classes(self.step), self.processes, config)
        self.run.log_value("val/loss", loss, task=task, epoch=finished)
        for name in ("overall_accuracy", "mean_accuracy"):
            self.run.log_value(f"val/{name}", 100 * getattr(scores, name), task=task, epoch=finished)
        self.run.log_value("val/miou", 100 * scores.mean_iou, task=task, epoch=finished)
        self.run.note(f"step {self.step} epoch {self.epoch}: val loss {loss:.4f}, mIoU {100 * scores.mean_iou:.2f}")
        if self.epoch < self.epochs:
            self.write_checkpoint(self._trainer_state())

    def align(self, when: str, network: IncrementalSegmentationModule) -> None:
        """--align_weight, at validations or before the test."""
        config = self.config
        if config.align_weight and config.align_weight_frequency == when and len(network.cls) > 1:
            network.align_weight(config.align_weight)

    def finish_importance(self) -> dict[str, Any]:
        """What the step's last checkpoint keeps: importances for later steps, and what --ckpt goes on from."""
        regularizer = self.learner.regularizer
        if not isinstance(regularizer, VdfdRegularizer):
            return self._trainer_state()

        def images() -> Iterator[Tensor]:
            # original: one pass over the training loader after the last epoch, in its order
            for batch, _ in self.loader.epoch(self.epochs - 1, draws=self.epochs):
                yield batch

        saved = regularizer.finish(self.learner.network, images())
        self.run.note(f"step {self.step}: importance stored as {saved.storage()} numbers")
        return {"regularizer": regularizer.saved_state(), **self._trainer_state()}

    def _trainer_state(self) -> dict[str, Any]:
        """Importances as they are now (VDFD measures its own at the end), and the state of every regulariser."""
        learner = self.learner
        if learner.regularizer is None:
            return {}
        importances = learner.trainer_state()
        return {**({"regularizer": importances} if importances else {}), "progress": learner.regularizer.state_dict()}

    def write_checkpoint(self, trainer_state: dict[str, Any]) -> None:
        """The step's file, by the first process; the others wait."""
        if self.processes.rank == 0:
            learner = self.learner
            write_step(
                self.path(self.step),
                epoch=self.epoch - 1,
                model=learner.network.state_dict(),
                optimizer=learner.optimizer.state_dict(),
                scheduler=learner.scheduler.state_dict(),
                trainer=trainer_state,
            )
        self.processes.wait()

    # --- test ---------------------------------------------------------------------------------------------------

    def test(self) -> TestResult:
        """Rebuild the network from the step's file, as the original does, and test it on everything seen so far."""
        config = self.config
        path = self._tested_file()
        state = read_step(path)
        if self.is_trained and path != self.path(self.step) and self.processes.rank == 0 and not config.test:
            self._adopt(state)
        self.processes.wait()
        network = build_network(config, self.task.classes_per_step(self.step))
        load_weights(network, state["model_state"], config.strict_weights)
        network.to(self.device).eval()
        self.align("task", network)
        return evaluate(
            network,
            self._loader(self.data.test, augment=False),
            self.data.unseen,
            self.task,
            self.step,
            self.processes,
            config,
        )

    def _tested_file(self) -> Path:
        config = self.config
        if config.test and config.ckpt is not None:
            return Path(config.ckpt)
        if self.step == 0 and config.step0_ckpt is not None:
            return Path(config.step0_ckpt)
        return self.path(self.step)

    def _adopt(self, state: dict[str, Any]) -> None:
        """Write another run's step 0 under this run's name."""
        write_step(
            self.path(self.step),
            epoch=state["epoch"],
            model=state["model_state"],
            optimizer=state["optimizer_state"],
            scheduler=state["scheduler_state"],
            trainer=state["trainer_state"],
        )

    # --- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a resume in the middle of the step."""
        learner = None if self.is_trained else self.learner.state_dict()
        return {"step": self.step, "epoch": self.epoch, "position": self.position, "learner": learner}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.epoch, self.position = state["epoch"], state["position"]
        if state["learner"] is not None:
            self.learner.load_state_dict(state["learner"])


def _is_progress_of(regularizer: Regularizer, progress: Any) -> bool:
    """Whether a state was taken from the same kind of regulariser, in a step of the same kind."""
    own = regularizer.state_dict()
    if not isinstance(progress, dict) or progress.keys() != own.keys():
        return False
    return progress.get("running", {}).keys() == own.get("running", {}).keys()


def note_scores(run: SharedRun, step: int, epochs: int, scores: SegmentationScores) -> None:
    """The test's scores to log and series."""
    where = {"task": step + 1, "epoch": epochs}
    run.log_value("test/miou", 100 * scores.mean_iou, **where)
    for name in ("overall_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        run.log_value(f"test/{name}", 100 * getattr(scores, name), **where)
    for number, values in enumerate(zip(scores.class_iou, scores.class_accuracy, strict=True)):
        for name, value in zip(("iou", "accuracy"), values, strict=True):
            if value is not None:
                run.log_value(f"test/{name}_class_{number}", 100 * value, **where)
    run.note(
        f"step {step}: test mIoU {100 * scores.mean_iou:.2f}, accuracy {100 * scores.overall_accuracy:.2f} "
        f"({scores.images} images)"
    )
