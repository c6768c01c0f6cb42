"""VDFD for segmentation (derived design): distil old steps through a linear functional of the weights.

The authors released no segmentation code. Known are their poster (objective, averaging, rank) and the appendix of the
paper (C.2: SGD, lambda 10, r 1, a graph network of 2 layers at 0.001); the rest follows their classification code and
is listed in the README under "Derived choices". Mathematics shared with it: `common/continual`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from common.continual.compression import Factors, draw_start, functional, low_rank_factors, row_sums
from common.continual.gradients import output_gradients
from common.continual.hypermodel import GCN, normalised_adjacency
from common.continual.regulariser import class_affinity, precision_matrices, prototypes_of, quadratic_regulariser
from common.training.errors import UserError
from segmentation.rcil.merging import merged_parameters
from segmentation.schedule import make_schedule

PIXELS_AT_ONCE = 6 * 512**2
"""Pixels of images whose importance is measured at once: without autocast it holds all layers' outputs three times."""


@dataclass
class SavedStep:
    """What is kept of a finished step: no network, no image.

    Attributes:
        factors: parameter name -> rank-r factors of its (rows, C) importance.
        features: (F,) mean features, the exact importance of the classifier's rows; None without it.
        prototypes: (C, F) unit rows of the classifier at the end of the step.
        gw_star: (C,) functional at the end of the step.
    """

    factors: dict[str, Factors]
    features: Tensor | None
    prototypes: Tensor
    gw_star: Tensor

    @property
    def classes(self) -> int:
        """Classes that the network distinguished."""
        return len(self.gw_star)

    def storage(self) -> int:
        """Numbers stored for the penalty (stored prototypes not counted)."""
        features = 0 if self.features is None else self.features.numel()
        return sum(factors.count() for factors in self.factors.values()) + features + self.gw_star.numel()

    def state(self) -> dict[str, Any]:
        """Plain tensors for a checkpoint, on the CPU."""
        return {
            "factors": {name: [part.cpu() for part in factors] for name, factors in self.factors.items()},
            "features": None if self.features is None else self.features.cpu(),
            "prototypes": self.prototypes.cpu(),
            "gw_star": self.gw_star.cpu(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> SavedStep:
        """Back from a checkpoint."""
        factors = {name: Factors(*(part.to(device) for part in parts)) for name, parts in state["factors"].items()}
        features = None if state["features"] is None else state["features"].to(device)
        return cls(factors, features, state["prototypes"].to(device), state["gw_star"].to(device))


def classifier_rows(network: nn.Module) -> tuple[Tensor, Tensor]:
    """(C, F) weights and (C,) biases of all classifiers, in the order of the outputs.

    Raises:
        UserError: for cosine classifiers, which have no bias.
    """
    if any(classifier.bias is None for classifier in network.cls):
        raise UserError("VDFD needs linear classifiers; leave --cosine out")
    rows = torch.cat([classifier.weight.flatten(1) for classifier in network.cls])
    return rows, torch.cat([classifier.bias for classifier in network.cls])


def regularised_names(network: nn.Module, head: str) -> list[str]:
    """Trainable parameters whose importance is compressed, in the network's order.

    RCIL's first branches are left out in every step: the merge before the next step rewrites them, which is no change
    that training could undo, and from then on they are frozen.

    Args:
        head: `--vdfd_head`; with rank1 the classifiers are among them.
    """
    parts = ("body.", "head.", "cls.") if head == "rank1" else ("body.", "head.")
    rewritten = {id(parameter) for parameter in merged_parameters(network)}
    return [
        name
        for name, parameter in network.named_parameters()
        if name.startswith(parts) and parameter.requires_grad and id(parameter) not in rewritten
    ]


def importance(
    network: nn.Module, batches: Iterable[Tensor], names: Sequence[str], score: str = "small"
) -> tuple[dict[str, Tensor], Tensor]:
    """Gradient of every class's mean score, averaged over rows and batches; mean features.

    The network must be in evaluation mode.

    Args:
        network: images -> (logits, {"sem_logits_small", "pre_logits"}).
        batches: normalised images.
        names: parameters wanted.
        score: small: mean over images and positions of the logits before they are enlarged; full: after it.

    Returns:
        Name -> (rows, C), and (F,) mean features. With several processes their mean, in each of them.

    Raises:
        UserError: if there is no batch.
    """
    total: dict[str, Tensor] = {}
    features_total, count = torch.zeros(()), 0
    seen: dict[str, Tensor] = {}

    def mean_scores(images: Tensor) -> Tensor:
        logits, maps = network(images)
        features = maps["pre_logits"].detach().clone()
        if score == "full":
            features = F.interpolate(features, size=images.shape[-2:], mode="bilinear", align_corners=False)
        seen["features"] = features.mean((0, 2, 3))
        return (logits if score == "full" else maps["sem_logits_small"]).mean((0, 2, 3))

    for batch in batches:
        count += 1
        for images in batch.split(max(1, PIXELS_AT_ONCE // math.prod(batch.shape[-2:]))):
            share = len(images) / len(batch)  # in evaluation mode a batch's mean is that of its parts
            # why: in-place norms overwrite what a convolution returns
            gradients = output_gradients(network, names, partial(mean_scores, images), copy_outputs=True)
            for name, gradient in gradients.items():
                gradient *= share
                total[name] = total[name] + gradient if name in total else gradient
            features_total = features_total.to(seen["features"]) + share * seen["features"]
    if count == 0:
        raise UserError("VDFD: no batch to measure the importance on; the step has fewer images than --batch_size")
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if processes > 1:
        for value in (*total.values(), features_total):
            dist.all_reduce(value)
    divisor = count * processes
    return {name: value / divisor for name, value in total.items()}, features_total / divisor


def compress(matrix: Tensor, rank: int, svd: str = "exact") -> Factors:
    """Rank-r factors of a (rows, C) importance.

    Args:
        matrix: (rows, C).
        rank: r; matrices with fewer rows or columns keep all they have.
        svd: exact; lowrank: the randomised decomposition of the classification code (D24).
    """
    rank = min(rank, *matrix.shape)
    if svd == "lowrank":
        return low_rank_factors(matrix, rank, draw_start(matrix, rank))
    left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
    return Factors(left[:, :rank], singular[:rank], right[:rank])


class Functional:
    """Linearised class outputs of old steps with equally many classes and the same parameters.

    Args:
        steps: the steps.
    """

    def __init__(self, steps: Sequence[SavedStep]) -> None:
        self.names = list(steps[0].factors)
        self.classes = steps[0].classes
        products = [torch.cat([step.factors[name].product() for name in self.names]) for step in steps]
        self.basis = torch.stack(products, dim=1)  # (R, T, C)
        self.features = None if steps[0].features is None else torch.stack([step.features for step in steps])
        self.gw_star = torch.stack([step.gw_star for step in steps])

    def __call__(self, network: nn.Module) -> Tensor:
        """(T, C) at the network's present weights; differentiable in them."""
        parameters = dict(network.named_parameters())
        gw = functional(row_sums(parameters[name] for name in self.names), self.basis)
        if self.features is not None:
            rows, biases = classifier_rows(network)
            gw = gw + self.features @ rows[: self.classes].T + biases[: self.classes]
        return gw


def grouped(steps: Sequence[SavedStep]) -> list[list[int]]:
    """Positions of the steps that one `Functional` can serve."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for position, step in enumerate(steps):
        groups.setdefault((step.classes, tuple(step.factors)), []).append(position)
    return list(groups.values())


class VdfdRegularizer:
    """The penalty of a step, its graph network, and what is kept of the earlier steps.

    Args:
        config: flags (segmentation/options.py).
        network: at the start of the step.
        saved: earlier steps.
        iterations: of the step, for the schedule of the graph network.

    Attributes:
        steps: earlier steps, this one too after `finish`.
        hypermodel: the graph network; None in the first step.
    """

    def __init__(self, config: Any, network: nn.Module, saved: Sequence[SavedStep], iterations: int) -> None:
        self.config, self.steps = config, list(saved)
        self.hypermodel: GCN | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.schedule: torch.optim.lr_scheduler.LRScheduler | None = None
        self._targets: list[tuple[Functional, Tensor, Tensor]] = []
        if not self.steps:
            return
        rows = prototypes_of(classifier_rows(network)[0])
        width = rows.shape[1]
        self.hypermodel = GCN(
            width,
            config.hypermodel_hid or width,
            config.hypermodel_out or width,
            residual=config.hypermodel_residual == "on",
        ).to(rows.device)
        parameters, decay = self.hypermodel.parameters(), config.hypermodel_weight_decay
        if config.hypermodel_optimizer == "Adam":
            self.optimizer = torch.optim.Adam(parameters, lr=config.hypermodel_lr, weight_decay=decay)
        else:
            self.optimizer = torch.optim.SGD(parameters, lr=config.hypermodel_lr, momentum=0.9, weight_decay=decay)
        self.schedule = make_schedule(self.optimizer, "poly", iterations, config.lr_power, every=1, factor=1.0)
        self.set_targets(rows)

    def set_targets(self, rows: Tensor) -> None:
        """Arrange what the penalty needs of the old steps.

        Args:
            rows: (C, F) unit rows of the classifier at the start of the step.
        """
        last_only = self.config.vdfd_sum == "last_squared"
        chosen = self.steps[-1:] if last_only else self.steps
        self._targets = []
        for positions in grouped(chosen):
            steps = [chosen[position] for position in positions]
            stored = self.config.vdfd_prototype == "stored"
            prototypes = torch.stack([step.prototypes if stored else rows[: step.classes] for step in steps])
            adjacency = normalised_adjacency(class_affinity(prototypes))
            self._targets.append((Functional(steps), adjacency, prototypes))

    def functionals(self, network: nn.Module) -> list[Tensor]:
        """Linearised outputs of the old steps that count: (T, C) for every group of steps with equally many classes."""
        return [target(network) for target, _, _ in self._targets]

    def penalty(self, network: nn.Module) -> Tensor:
        """Sum over the old steps of delta^T P delta - log det(P + eps I); 0 in the first step.

        Without the factor --reg_importance. The part with classes times classes is computed in double precision: the
        determinant of 19 classes underflows in single precision (D23).
        """
        total = next(network.parameters()).new_zeros((), dtype=torch.float64)
        scale = float(len(self.steps)) ** 2 if self.config.vdfd_sum == "last_squared" else 1.0
        with torch.autocast(total.device.type, enabled=False):
            for target, adjacency, prototypes in self._targets:
                precision = precision_matrices(self.hypermodel, adjacency, prototypes, dtype=torch.float64)
                total = total + quadratic_regulariser(
                    target(network).double(),
                    target.gw_star.double(),
                    precision,
                    self.config.epsilons,
                    scale,
                    self.config.vdfd_precision_eps == "both",
                )
        return total

    def after_step(self) -> None:
        """One step of the graph network, with the gradients that the penalty's backward pass left."""
        if self.optimizer is not None:
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad(set_to_none=True)

    def finish(self, network: nn.Module, batches: Iterable[Tensor]) -> SavedStep:
        """After the last epoch: measure this step's importance, compress it, keep it.

        Args:
            network: trained; is put in evaluation mode.
            batches: normalised images, one pass over the training set.
        """
        network.eval()
        config = self.config
        names = regularised_names(network, config.vdfd_head)
        matrices, features = importance(network, batches, names, config.vdfd_score)
        factors = {name: compress(matrices[name], config.singular, config.vdfd_svd) for name in names}
        with torch.no_grad():
            rows, biases = classifier_rows(network)
            step = SavedStep(
                factors,
                features if config.vdfd_head == "exact" else None,
                prototypes_of(rows),
                torch.zeros_like(biases),
            )
            step.gw_star = Functional([step])(network)[0]
        self.steps.append(step)
        return step

    def saved_state(self) -> list[dict[str, Any]]:
        """What a step's checkpoint keeps for later steps, a list over steps."""
        return [step.state() for step in self.steps]

    def state_dict(self) -> dict[str, Any]:
        """For a resume in the middle of a step."""
        if self.hypermodel is None:
            return {}
        return {
            "hypermodel": self.hypermodel.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "prototypes": [prototypes for _, _, prototypes in self._targets],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        if self.hypermodel is None:
            return
        self.hypermodel.load_state_dict(state["hypermodel"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        device = next(self.hypermodel.parameters()).device
        targets = []
        for (target, _, _), prototypes in zip(self._targets, state["prototypes"], strict=True):
            moved = prototypes.to(device)
            targets.append((target, normalised_adjacency(class_affinity(moved)), moved))
        self._targets = targets
