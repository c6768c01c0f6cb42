"""Teacher and student through a sequence of tasks.

One batch on its way: loader -> query (once, student's backbone, no gradient) -> teacher with its prompts -> cross-
entropy on the current classes + prompt loss -> Adam; the same query and the teacher's logits (or prompts) -> student ->
weighted cross-entropy + distillation + prompt loss -> Adam. CDL-Prompt does both for every batch; all later methods
train the teacher for all epochs first.

Source: IRVLUTD/CDL@d980577 learners/default.py `learn_batch`, learners/prompt.py; July 2024: learners at 908e314.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from common.metrics.accuracy import RunningMean, count_correct
from common.training.journal import progress_bar
from prompt_distill.losses import current_cross_entropy
from prompt_distill.network import Extras, Output
from prompt_distill.task_state import JOINT, STUDENT, TEACHER, TaskState
from prompt_distill.vit import Prefix, query_of


class PromptLearner(TaskState):
    """Learns one task after the other; see `TaskState` for what it is built from."""

    # --- the algorithm ------------------------------------------------------------------------------------------

    def fit_task(self, task: int) -> None:
        """Learn a task, or what is left of it after a resume."""
        if task != self.task:
            self.run.note(f"=== task {task} of {len(self.data.tasks)} ===")
            self.start_task(task)
        while self.phase < len(self.phases):
            while self.epoch < len(self.rates):
                self.set_rates()
                title = f"task {task} {self.phases[self.phase]} epoch {self.epoch}"
                for images, target in progress_bar(self.loader, title, len(self.loader), self.loader.position):
                    self.train_step(images, target)
                    self.run.tick()
                self.close_epoch()
            self.close_phase()
        if not self.task_is_done:
            self.task_is_done = True
            self.run.save()

    def train_step(self, images: Tensor, target: Tensor) -> None:
        """What the current phase does with a batch."""
        share = len(images)
        images, target = self.processes.part(images, target)
        share = len(images) / share
        query = self.query(images)
        phase = self.phases[self.phase]
        if phase == STUDENT:
            self.student_step(images, target, query, self.infer_teacher(images, query), share)
            return
        taught = self.teacher_step(images, target, query, share)
        if phase == JOINT:
            self.student_step(images, target, query, taught, share)

    def teacher_step(self, images: Tensor, target: Tensor, query: Tensor, share: float = 1.0) -> Output:
        """One optimiser step of the teacher; returns its training-mode output.

        Args:
            images: (B, 3, H, W).
            target: (B,) labels.
            query: (B, key_dim).
            share: of the whole batch that this process has.
        """
        assert self.teacher is not None
        with self.precision.autocast():
            out = self.teacher(images, query, True)
        ce = current_cross_entropy(out.logits.float(), target, self.old, self.seen)
        loss = share * ce + out.prompt_loss
        if self.distillation.reads_prompts:
            copies = {layer: Prefix(*(part.detach().clone() for part in each)) for layer, each in out.prefixes.items()}
            out = replace(out, prefixes=copies)  # why copies: DualPrompt's are views, which the step would change
        self._descend(loss, self.teacher_optimizer, self.teacher.trainable())
        self.run.log(task=self.task, epoch=self.epoch, teacher_loss=loss, teacher_prompt=out.prompt_loss)
        self._count(TEACHER, loss, out.logits[:, : self.seen], target)
        return out

    def student_step(
        self, images: Tensor, target: Tensor, query: Tensor, taught: Output | None, share: float = 1.0
    ) -> Output:
        """One optimiser step of the student; returns its training-mode output."""
        extras = self.distillation.extras(len(images), self.teacher_prefixes(query, taught, train=True))
        with self.precision.autocast():
            out = self.student(images, query, True, extras)
            columns = slice(self.old, self.seen)
            terms = self.distillation.terms(out, _constant(taught), target - self.old, columns)
        ce = current_cross_entropy(out.logits.float(), target, self.old, self.seen)
        parts = {"ce": share * self.distillation.cross_entropy_weight * ce, "prompt": out.prompt_loss}
        if terms.soft is not None:
            parts["soft"] = share * terms.soft
        if terms.feature is not None:
            parts["feature"] = terms.feature
        loss = torch.stack([part.float() for part in parts.values()]).sum()
        self._descend(loss, self.student_optimizer, self.student_parameters())
        self.run.log(task=self.task, epoch=self.epoch, **parts, loss=loss)
        self._count(STUDENT, loss, out.logits, target)
        return out

    def infer_teacher(self, images: Tensor, query: Tensor) -> Output | None:
        """The teacher in inference mode, as it distils after its own phase; no gradient."""
        if self.teacher is None:
            return None
        with torch.no_grad(), self.precision.autocast():
            return self.teacher(images, query, False, Extras(keep_blocks=self.distillation.keeps_blocks))

    def teacher_prefixes(self, query: Tensor, taught: Output | None, train: bool) -> dict[int, Prefix]:
        """The teacher's prefixes for a batch, constant; empty unless the method reads them.

        # original: (D24) on one device DualPrompt's prefixes are views of the parameters, so the student reads them
        after the teacher's update; with several devices, and for the other methods, they are those of the forward pass.
        """
        if not self.distillation.reads_prompts or taught is None:
            return {}
        if train and self.teacher.prompt.follows_update and self.devices == 1:
            return self.teacher.prefixes(query, train)
        return taught.prefixes

    def query(self, images: Tensor) -> Tensor:
        """(B, key_dim) # original: (D6) from the student's backbone, for the teacher too."""
        with self.precision.autocast():
            return query_of(self.student.feat, images).float()

    def infer(self, images: Tensor, query: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """(B, classes) inference logits of teacher (None without one) and student."""
        with torch.no_grad():
            query = self.query(images) if query is None else query
            taught = self.infer_teacher(images, query)
            extras = self.distillation.extras(len(images), self.teacher_prefixes(query, taught, train=False))
            with self.precision.autocast():
                logits = self.distillation.predict(self.student(images, query, False, extras))
        return (None if taught is None else taught.logits), logits

    def evaluate(self, task: int, seen: int) -> dict[str, float]:
        """Accuracies on one task's test images after `seen` tasks, percent.

        Returns:
            "student" and "teacher" over all classes seen so far; "student_local" among the task's own classes.
        """
        bounds = [0, *accumulate(map(len, self.data.tasks))]
        own, columns = slice(bounds[task - 1], bounds[task]), slice(0, bounds[seen])
        meters = {name: RunningMean(self.device) for name in ("student", "student_local", "teacher")}
        cached = self._test_queries.setdefault(task, [])
        for number, (images, target) in enumerate(self.data.test_loader(task)):
            if number == len(cached):
                cached.append(
                    self.query(images)
                )  # why: test images are never augmented, and the backbone never changes
            teacher, student = self.infer(images, cached[number])
            meters["student"].add_sum(100 * count_correct(student[:, columns], target), len(target))
            meters["student_local"].add_sum(100 * count_correct(student[:, own], target - own.start), len(target))
            if teacher is not None:
                meters["teacher"].add_sum(100 * count_correct(teacher[:, columns], target), len(target))
        return {name: meter.value() for name, meter in meters.items() if meter.count}

    def _descend(self, loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.precision.backward(loss, [optimizer])
        self.processes.add_gradients(parameters)
        self.precision.step(optimizer)
        self.precision.update()
        self.run.step += 1

    def _count(self, name: str, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        with torch.no_grad():
            self.meters[name][0].add(loss, len(target))
            self.meters[name][1].add_sum(100 * count_correct(logits, target), len(target))


def _constant(taught: Output | None) -> Output | None:
    """The teacher's output without gradient."""
    if taught is None:
        return None
    return replace(taught, logits=taught.logits.detach(), blocks=[tokens.detach() for tokens in taught.blocks])
