"""One training iteration of every method: labels, losses, backward, regulariser, optimiser, schedule.

Source: arthurdouillard/CVPR2021_PLOP (commit 4b4a060) run.py and train.py; zhangchbin/RCIL (commit b9aad58). No files
and no data sets here; a step never waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from common.backbones.deeplab import DeepLabV3
from common.training.errors import UserError
from common.training.options import RunOptions
from common.training.parallel import Processes
from common.training.precision import Precision
from segmentation.network import IncrementalSegmentationModule, uses_rcil_network
from segmentation.objective import Objective
from segmentation.options import SYNCHRONISED_NORMS
from segmentation.pseudo import find_thresholds
from segmentation.rcil.merging import freeze_merged
from segmentation.regularizers import REGULARIZERS, ImportanceRegularizer
from segmentation.schedule import make_schedule

MOMENTUM = 0.9
"""original: fixed, whatever --momentum says."""


class Regularizer(Protocol):
    """What a penalty on weights has to offer."""

    def penalty(self, network: torch.nn.Module) -> Tensor:
        """() without its weight --reg_importance."""

    def after_step(self) -> None:
        """Step of its own optimiser, if it has one; the penalty's gradients are there."""

    def state_dict(self) -> dict[str, Any]:
        """For a resume in the middle of a step."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""


class SegLearner:
    """Trains the network of one step.

    Args:
        config: flags (segmentation/options.py), the method's preset applied.
        network: of this step, its starting weights loaded (see segmentation/start.py), on the device.
        old_network: of the step before, trained; None in the first step.
        class_counts: classes of every step so far (not looked at in domain protocols).
        device: where everything lies.
        iterations: of the whole step, for the schedule.
        lr: learning rate at its start.
        precision: number format; None: fp32.
        processes: that share each batch; None: this one alone.
        regularizer: VDFD's; the others are built here.
        trainer_state: what the regulariser of the step before left (`trainer_state()`).

    Attributes:
        objective: the losses.
        optimizer, scheduler: of the network.
        regularizer: penalty on weights, or None.
    """

    def __init__(
        self,
        config: Any,
        network: IncrementalSegmentationModule,
        old_network: IncrementalSegmentationModule | None,
        class_counts: Sequence[int],
        device: torch.device,
        *,
        iterations: int,
        lr: float,
        precision: Precision | None = None,
        processes: Processes | None = None,
        regularizer: Regularizer | None = None,
        trainer_state: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.network, self.old_network, self.device = config, network, old_network, device
        self.precision = precision or Precision(RunOptions(), device)
        self._layout = torch.channels_last if config.fast else torch.contiguous_format
        for one in (network, old_network) if config.fast else ():
            if one is not None:
                one.to(memory_format=self._layout)
        self.processes = processes or Processes()
        self._pools = isinstance(network.head, DeepLabV3)
        outputs = sum(classifier.out_channels for classifier in network.cls)
        self.objective = Objective(config, class_counts, outputs, old_network is not None)
        self._keeps_merged = uses_rcil_network(config) and old_network is not None
        if old_network is not None:
            old_network.eval().requires_grad_(False)
        if config.fix_bn:
            network.freeze_norms()
        if config.freeze:
            network.body.requires_grad_(False)
        if self._keeps_merged:
            freeze_merged(network)
        self.optimizer = make_optimizer(config, network, lr)
        self.scheduler = make_schedule(
            self.optimizer, config.lr_policy, iterations, config.lr_power, config.lr_decay_step,
            config.lr_decay_factor,
        )  # fmt: skip
        self.regularizer = regularizer or self._build_regularizer(trainer_state)

    def _build_regularizer(self, trainer_state: Mapping[str, Any] | None) -> ImportanceRegularizer | None:
        config = self.config
        if config.regularizer not in REGULARIZERS:
            return None
        old_weights = None if self.old_network is None else self.old_network.state_dict()
        return REGULARIZERS[config.regularizer](
            self.network, old_weights, trainer_state, config.reg_alpha, not config.reg_no_normalize,
            config.reg_iterations,
        )  # fmt: skip

    def begin(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Once per step, before training: thresholds of the pseudo-labels, in one pass over the training batches."""
        if self.old_network is None or self.config.pseudo not in ("median", "entropy"):
            return
        self.objective.thresholds = find_thresholds(
            batches, self.old_network, self.config, self.objective.classes, self.device, self._sum
        )

    def _sum(self, values: Tensor) -> None:
        if self.processes.count > 1:
            torch.distributed.all_reduce(values)

    def train_mode(self) -> None:
        """At the start of every epoch. original: undoes what --fix_bn set for the statistics (D9)."""
        self.network.train()
        if self._keeps_merged:
            freeze_merged(self.network)

    def step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One iteration.

        Args:
            images: (B, 3, H, W) normalised, on the device; this process's part of the batch.
            labels: (B, H, W) integers, 255 = ignored.

        Returns:
            Scalars on the device: "loss" (their sum), "ce", "lkd", "lde", "lreg", "pod", "entmin", "icarl".
        """
        sharing = self.processes.count if self.config.norm_act in SYNCHRONISED_NORMS else 1
        if self._pools and len(images) * sharing < 2:
            raise UserError("--batch_size 1: the norm of the pooled branch needs two images per iteration; give 2")
        terms = self.losses(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        # why divided: each process averages over its part of the batch, and the parts' gradients are added up
        self.precision.backward(terms["loss"] / self.processes.count, [self.optimizer])
        self.processes.add_gradients(self.network.parameters())
        if self.regularizer is not None:
            terms = self._regularise(terms)
        self.precision.step(self.optimizer)
        self.precision.update()
        self.scheduler.step()
        return {name: value.detach() for name, value in terms.items()}

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """All terms of a batch, with graph, without the regulariser."""
        images, labels = images.contiguous(memory_format=self._layout), labels.long()
        with self.precision.autocast():
            old = None
            if self.objective.needs_old:
                assert self.old_network is not None
                with torch.no_grad():
                    old = self.old_network(images)
            logits, features = self.network(images)
            return self.objective(logits, features, labels, old)

    def _regularise(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the penalty's gradient to the others'."""
        assert self.regularizer is not None
        self.precision.unscale(self.optimizer)
        if isinstance(self.regularizer, ImportanceRegularizer):
            self.regularizer.update()
        penalty = self.config.reg_importance * self.regularizer.penalty(self.network)
        if penalty.requires_grad:
            penalty.backward()
        self.regularizer.after_step()
        return {**terms, "lreg": penalty, "loss": terms["loss"] + penalty.to(terms["loss"].dtype)}

    def trainer_state(self) -> dict[str, Any]:
        """What the checkpoint keeps of EWC, PI and RW for the next step; empty for other methods."""
        return self.regularizer.trainer_state() if isinstance(self.regularizer, ImportanceRegularizer) else {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a bit-exact resume in the middle of the step needs, but data order and random states."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "precision": self.precision.state_dict(),
            "thresholds": self.objective.thresholds,
            "regularizer": None if self.regularizer is None else self.regularizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.precision.load_state_dict(state["precision"])
        thresholds = state["thresholds"]
        self.objective.thresholds = None if thresholds is None else thresholds.to(self.device)
        if self.regularizer is not None:
            self.regularizer.load_state_dict(state["regularizer"])


def make_optimizer(config: Any, network: IncrementalSegmentationModule, lr: float) -> torch.optim.SGD:
    """Nesterov SGD with weight decay on everything; groups body (absent with --freeze), head, classifiers, scalar.

    With --lr_old the old classifiers form a group of their own, at that factor of the learning rate.
    """
    groups: list[dict[str, Any]] = [] if config.freeze else [{"params": list(network.body.parameters())}]
    groups.append({"params": list(network.head.parameters())})
    if config.lr_old is not None and len(network.cls) > 1:
        groups.append({"params": list(network.cls[:-1].parameters()), "lr": config.lr_old * lr})
        groups.append({"params": list(network.cls[-1].parameters())})
    else:
        groups.append({"params": list(network.cls.parameters())})
    if network.scalar is not None:
        groups.append({"params": [network.scalar]})
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
    groups = [group for group in groups if group["params"]]
    # why fused: one pass over the weights in place of five; the same formula
    return torch.optim.SGD(
        groups, lr=lr, momentum=MOMENTUM, nesterov=True, weight_decay=config.weight_decay, fused=True
    )
