"""The loop that all methods share: tasks, epochs, steps, tests, files of each task, exact resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.backbones.staged import folded
from common.metrics.accuracy import RunningMean
from common.training.checkpoint import load_weights
from common.training.journal import progress_bar
from common.training.precision import Precision, evaluating
from common.training.run import Run
from common.training.seeding import seed_generators
from rfd.evaluation import Evaluation, confusion_matrix
from rfd.factors import is_finetuning, learning_rate
from rfd.inversion import GenerativeInversion, Replay
from rfd.learning.dump import dump_batch
from rfd.networks import frozen
from rfd.recipe import Recipe

SAVED = "the saved state"
"""What errors call the weights of a checkpoint."""


class BatchSource(Protocol):
    """A loader of one task: iterating goes on where an interrupted pass stood, or starts a new one."""

    position: int

    def __iter__(self) -> Any: ...

    def __len__(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TaskData(Protocol):
    """Loaders of each task, counted from 1; labels are positions in the class order."""

    sizes: list[int]
    boundaries: tuple[int, ...]

    def train_loader(self, task: int) -> BatchSource: ...

    def joint_loader(self, task: int) -> BatchSource: ...

    def test_loader(self, task: int) -> BatchSource: ...


class TaskFiles(Protocol):
    """Where the files of each task are put (`rfd/task_files.py`)."""

    def save(self, name: str, learner: IncrementalLearner) -> None: ...

    def save_inversion(self, task: int, inversion: GenerativeInversion) -> None: ...


class IncrementalLearner:
    """One method: learns task after task and keeps no image.

    Args:
        recipe: numbers of the experiment.
        network: on its device.
        data: loaders of each task.
        run: where steps are counted, logged and saved; the learner registers itself there.
        precision: number format.
        files: where checkpoints of each task go; None: nowhere.

    Attributes:
        task: being learned or learned last, counted from 1; 0 before the first.
        epoch: epochs of that task that are done.
        best: best tested accuracy while this task was learned; None before its first test.
    """

    name = ""

    def __init__(
        self, recipe: Recipe, network: nn.Module, data: TaskData, run: Run, precision: Precision,
        files: TaskFiles | None = None,
    ) -> None:  # fmt: skip
        self.recipe, self.network, self.data, self.run, self.precision = recipe, network, data, run, precision
        self.files = files
        self.device = next(network.parameters()).device
        self.task = self.epoch = 0
        self.task_is_done = True
        self.best: float | None = None
        self.latest: Evaluation | None = None
        self.inversion: GenerativeInversion | None = None
        self.teacher: nn.Module | None = None
        self._folded_teacher: nn.Module | None = None
        self.loader: BatchSource
        self.optimizer: torch.optim.Optimizer
        self.loss_meter = RunningMean(self.device)
        run.register("learner", self)

    # --- the loop -----------------------------------------------------------------------------------------------

    def fit_task(self, task: int) -> None:
        """Learn a task, or what is left of it after a resume."""
        if task != self.task:
            self.run.note(f"=== task {task} of {len(self.data.sizes)}: {self.data.sizes[task - 1]} new classes ===")
            if self.recipe.seed_per_task is not None:
                seed_generators(100 * self.recipe.seed_per_task + task - 1)
            self.start_task(task)
        self.before_epochs()
        while self.epoch < self.recipe.epochs:
            self.begin_epoch()
            if self.is_learning:
                where = f"task {task} epoch {self.epoch}"
                for images, target in progress_bar(self.loader, where, len(self.loader), self.loader.position):
                    self.train_step(images, target)
                    self.run.tick()
            self.close_epoch()
        if not self.task_is_done:
            self.finish_task()
            self.task_is_done = True
            self.run.save()

    def train_step(self, images: Tensor, target: Tensor, replay: Replay | None = None) -> dict[str, Tensor]:
        """One optimiser step on a batch; returns the weighted terms of the loss and their sum `loss`.

        Args:
            images, target: (N, 3, H, W) normalised and (N,) positions in the class order.
            replay: synthetic images for it; None: drawn from the generator, where the method uses one.
        """
        if replay is None and self.needs_replay:
            replay = self.synthesise(len(images))
        terms = self.terms(images, target, replay)
        terms["loss"] = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.backward(terms["loss"], [self.optimizer])
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.trained_parameters(), self.recipe.clip)
        self.precision.step(self.optimizer)
        self.precision.update()
        self.after_step(target, replay)
        if self.recipe.dump_every and self.run.step % self.recipe.dump_every == 0:
            dump_batch(Path(self.run.folder), self.task, self.run.step, images, replay)
        self.run.step += 1
        self.run.log(task=self.task, epoch=self.epoch, **terms)
        self.loss_meter.add(terms["loss"], len(target))
        return terms

    def train_generator(self) -> None:
        """What is left of the generator's training."""
        inversion = self.inversion
        if inversion is None or inversion.is_trained:
            return
        self.run.note(f"training the generator: {inversion.recipe.iterations - inversion.iteration} steps")
        left = range(inversion.iteration, inversion.recipe.iterations)
        for _ in progress_bar(left, f"task {self.task} generator", inversion.recipe.iterations, inversion.iteration):
            terms = inversion.train_step(inversion.draw_noise(self.batch_size))
            self.run.step += 1
            self.run.log(
                task=self.task, epoch=self.epoch, **{f"generator_{name}": term for name, term in terms.items()}
            )
            self.run.tick()
        if self.files is not None:
            self.files.save_inversion(self.task, inversion)
        self.run.save()

    def keep_teacher(self, network: nn.Module) -> None:
        """Freeze a network, and ask it from now on."""
        self.teacher, self._folded_teacher = frozen(network), None

    def frozen_network(self) -> Any:
        """The teacher as a step asks it: with --fast its norm layers, and the generator's, are folded into the
        convolutions; to be asked only once the generator is trained."""
        assert self.teacher is not None
        if not self.recipe.fast:
            return self.teacher
        if self._folded_teacher is None:
            self._folded_teacher = frozen(folded(self.teacher))
            if self.inversion is not None:
                maker = frozen(folded(self.inversion.generator))
                self.inversion.sample_with(maker, self.logits_of(self._folded_teacher))
        return self._folded_teacher

    def synthesise(self, count: int) -> Replay:
        """Synthetic images of old classes with the frozen network's opinion."""
        assert self.inversion is not None
        return self.inversion.sample(self.inversion.draw_noise(count))

    # --- what a method says -------------------------------------------------------------------------------------

    needs_replay = False
    """Whether the current step wants synthetic images."""
    is_learning = True
    """Whether anything is trained in the current epoch."""
    batch_size = 0
    """Synthetic images per generator step."""

    def check_ahead(self) -> None:
        """Refuse, before anything is learned, what a later task could not use; draws no random numbers.

        Raises:
            UserError: saying what.
        """

    def start_task(self, task: int) -> None:
        """Open a task: networks, loader, optimiser."""
        self.task, self.epoch, self.task_is_done = task, 0, False
        self.best = None
        self.loss_meter = RunningMean(self.device)

    def before_epochs(self) -> None:
        """Work between the start of a task and its first epoch (resumable)."""

    def begin_epoch(self) -> None:
        """Set modes and learning rate of an epoch; done anew after a resume."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.network.train()
        if self.teacher is not None:
            self.frozen_network()  # why here: all steps of an epoch ask the same form, also after a resume

    def terms(self, images: Tensor, target: Tensor, replay: Replay | None) -> dict[str, Tensor]:
        """Weighted terms of the loss, () tensors in float32."""
        raise NotImplementedError

    def after_step(self, target: Tensor, replay: Replay | None) -> None:
        """Bookkeeping after an optimiser step."""

    def finish_task(self) -> None:
        """Work after the last epoch (resumable)."""

    def logits_of(self, teacher: nn.Module) -> Callable[[Tensor], Tensor]:
        """Images -> (N, classes that the teacher knows) logits."""
        return teacher

    def seen_logits(self, images: Tensor) -> Tensor:
        """(N, classes seen so far) logits of a test batch."""
        raise NotImplementedError

    def trained_parameters(self) -> list[nn.Parameter]:
        """Everything that the optimiser holds."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    # --- tests and bookkeeping ----------------------------------------------------------------------------------

    @property
    def seen(self) -> int:
        """Classes of the tasks up to the current one."""
        return self.data.boundaries[self.task]

    @property
    def n_old(self) -> int:
        """Classes of the tasks before the current one."""
        return self.data.boundaries[self.task - 1]

    @property
    def finetuning(self) -> bool:
        """Whether the current epoch belongs to the finetuning phase."""
        return is_finetuning(self.epoch, self.recipe.epochs, self.recipe.finetuning_epochs)

    def learning_rate(self) -> float:
        """Learning rate of the current epoch."""
        recipe = self.recipe
        return learning_rate(
            self.epoch, base_lr=recipe.base_lr, lr_factor=recipe.lr_factor, milestones=recipe.milestones,
            epochs=recipe.epochs, finetuning_epochs=recipe.finetuning_epochs, finetuning_lr=recipe.finetuning_lr,
        )  # fmt: skip

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.SGD:
        """SGD over one group, momentum at zero."""
        recipe = self.recipe
        kernel = {"fused": True} if recipe.fast else {"foreach": True}
        return torch.optim.SGD(
            parameters, lr=recipe.base_lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, **kernel
        )

    def evaluate(self, current_only: bool = False) -> Evaluation:
        """Test on all classes seen so far (or on the newest task): largest of all logits seen."""
        confusion = torch.zeros(self.seen, self.seen, dtype=torch.int64, device=self.device)
        with evaluating(self.network):
            for task in range(self.task if current_only else 1, self.task + 1):
                for images, target in self.data.test_loader(task):
                    with self.precision.autocast():
                        logits = self.seen_logits(images)
                    confusion += confusion_matrix(logits.argmax(dim=1), target, self.seen)
        return Evaluation(confusion.cpu(), tuple(self.data.boundaries[: self.task + 1]))

    def close_epoch(self) -> None:
        """Log the epoch; test, and save, where it is due."""
        where = {"task": self.task, "epoch": self.epoch}
        if self.is_learning:
            self.run.log_value("train/epoch_loss", self.loss_meter.value(), **where)
            self.run.log_value("lr/network", self.learning_rate(), **where)
        is_test_due = (self.epoch + 1) % self.recipe.check_every == 0
        if is_test_due:
            self.test()
        self.end_epoch()
        self.epoch += 1
        self.loss_meter = RunningMean(self.device)
        if is_test_due:
            if self.files is not None:
                self.save_files()
            self.run.save()

    def end_epoch(self) -> None:
        """Work after the test at the end of an epoch."""

    def test(self) -> Evaluation:
        """Evaluate now, and write the result to the log and the series."""
        where = {"task": self.task, "epoch": self.epoch}
        self.latest = found = self.evaluate(self.recipe.current_only)
        if self.recipe.current_only:
            self.run.log_value("val/accuracy_new", found.new, **where)
            self.run.note(f"task {self.task} epoch {self.epoch}: accuracy of this task {found.new:.2f} %")
            return found
        for name, value in {
            "val/accuracy": found.all,
            "val/accuracy_new": found.new,
            "val/accuracy_old": found.old,
        }.items():
            self.run.log_value(name, value, **where)
        self.run.note(f"=> Evaluation result (task {self.task}) {self.epoch}\n\n{found.text()}")
        return found

    def save_files(self) -> None:
        """`last.ckpt`, and `best.ckpt` if the accuracy just tested is the best of this task."""
        assert self.latest is not None and self.files is not None
        accuracy = self.latest.new if self.recipe.current_only else self.latest.all
        is_best = self.best is None or accuracy > self.best
        self.best = accuracy if is_best else self.best
        self.files.save("last", self)
        if is_best:
            self.files.save("best", self)

    # --- resume -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs."""
        state: dict[str, Any] = {
            "task": self.task, "epoch": self.epoch, "task_is_done": self.task_is_done, "best": self.best,
            "network": self.network.state_dict(), "precision": self.precision.state_dict(),
        }  # fmt: skip
        if self.task:
            state |= {
                "loader": self.loader.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "loss_meter": self.loss_meter.state_dict(),
            }
            if self.inversion is not None:
                state["inversion"] = self.inversion.state_dict(self.keeps_inversion_optimizer())
        return state

    def keeps_inversion_optimizer(self) -> bool:
        """Whether the generator's optimiser will be used again."""
        return self.inversion is not None and not self.inversion.is_trained

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a saved learner stood, inside an epoch if need be."""
        if state["task"]:
            self.rebuild(state)
            self.loader.load_state_dict(state["loader"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.loss_meter = RunningMean(self.device)
            self.loss_meter.load_state_dict(state["loss_meter"])
            if "inversion" in state and self.inversion is not None:
                self.inversion.load_state_dict(state["inversion"])
        else:
            load_weights(self.network, state["network"], SAVED)
        self.precision.load_state_dict(state["precision"])
        self.task, self.epoch, self.task_is_done = state["task"], state["epoch"], state["task_is_done"]
        self.best = state["best"]

    def rebuild(self, state: dict[str, Any]) -> None:
        """Make networks, loader and optimiser of the saved task, and load the networks' weights."""
        raise NotImplementedError
