"""What a batch is trained on: criterion, distillation of logits and features, and their sum.

Source: arthurdouillard/CVPR2021_PLOP (commit 4b4a060) train.py, Trainer.train; zhangchbin/RCIL (commit b9aad58) for the
pooled-cube form. Everything stays on the device; nothing waits for it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import segmentation.losses as losses
from common.training.errors import UserError
from segmentation.network import follows_rcil
from segmentation.pckd import cube_factors, cube_loss
from segmentation.pod import pod_loss, pod_options
from segmentation.pseudo import PseudoLabels, confidence_threshold, pseudo_label
from segmentation.tasks import DOMAIN_DATASETS

Features = dict[str, Any]
TERMS = ("ce", "lkd", "lde", "lreg", "pod", "entmin")
"""Names of the components, in the order of the original's log; "icarl" and "loss" (the sum) come beside them."""


class Objective:
    """The losses of one step's batches.

    Args:
        config: flags, the method's preset applied.
        class_counts: classes of every step so far (not looked at in domain protocols).
        classes: channels of the logits.
        has_old: whether there is an old network.

    Attributes:
        old_classes, classes, new_classes: C_o, C, C_n; in domain protocols all of them are the number of classes.
        criterion: (logits, labels) -> map or scalar: the supervised loss.
        thresholds: of the pseudo-labels, once they are found.
    """

    def __init__(self, config: Any, class_counts: Sequence[int], classes: int, has_old: bool) -> None:
        self.config, self.has_old = config, has_old
        if config.dataset in DOMAIN_DATASETS:
            self.old_classes = self.classes = self.new_classes = classes
        else:
            self.classes, self.new_classes = sum(class_counts), class_counts[-1]
            self.old_classes = self.classes - self.new_classes
        self.first_classes = self.classes if config.dataset in DOMAIN_DATASETS else class_counts[0]
        self.thresholds: Tensor | None = None
        self.criterion = self._choose_criterion()
        self.rcil = follows_rcil(config)
        self.pod = pod_options(config) if config.pod and not self.rcil else None
        self.cubes = cube_factors(config) if config.pod and self.rcil else None
        if config.pseudo:
            confidence_threshold(config.pseudo)
        if config.nca or config.kd_new:
            raise UserError("--nca and --kd_new: the original raises on label maps; leave them out")

    @property
    def needs_old(self) -> bool:
        """Whether any term looks at the old network."""
        config = self.config
        flags = (config.loss_kd, config.loss_de, config.icarl, config.pod, config.pseudo)
        return self.has_old and any(bool(flag) for flag in flags)

    def _choose_criterion(self) -> Callable[..., Tensor]:
        config, old = self.config, self.old_classes
        if config.bce or config.icarl:
            return losses.binary_cross_entropy
        if config.unce and old:
            return functools.partial(losses.unbiased_cross_entropy, old_classes=old)
        if config.focal_loss:
            return functools.partial(losses.focal, gamma=config.focal_loss_gamma)
        if config.focal_loss_new:
            return functools.partial(losses.focal_on_new, gamma=config.focal_loss_gamma, old_classes=old)
        return losses.cross_entropy

    def __call__(
        self, logits: Tensor, features: Features, labels: Tensor, old: tuple[Tensor, Features] | None
    ) -> dict[str, Tensor]:
        """All terms of a batch, weighted as they enter the sum, under the names of TERMS, "icarl" and "loss".

        Args:
            logits, features: of the network (see `IncrementalSegmentationModule.forward`).
            labels: (B, H, W) int64.
            old: the same of the old network, without graph; None if it is not needed.
        """
        config = self.config
        zero = logits.new_zeros((), dtype=torch.float32)
        logits = logits.float()
        old_logits = old[0].float() if old is not None else None
        pseudo = None
        if old_logits is not None and config.pseudo:
            pseudo = pseudo_label(labels, old_logits, config, self.thresholds, self.classes)
        seen = labels if pseudo is None else pseudo.labels
        terms = {name: zero for name in (*TERMS, "icarl")}
        terms["ce"] = self.supervised(logits, seen, old_logits, pseudo)
        if config.entropy_min and self.old_classes:
            terms["entmin"] = self.background_entropy(logits, seen)
        if old_logits is not None:
            assert old is not None
            if config.icarl and not config.icarl_disjoint:
                terms["icarl"] = config.icarl_importance * losses.icarl_combined(logits, old_logits)
            if config.loss_de:
                terms["lde"] = config.loss_de * F.mse_loss(features["body"].float(), old[1]["body"].float())
            if config.loss_kd:
                terms["lkd"] = self.distilled(logits, old_logits, seen)
            if config.pod:
                terms["pod"] = self.distilled_maps((logits, features), (old_logits, old[1]), seen)
        return terms | {"loss": torch.stack(list(terms.values())).sum()}

    def supervised(
        self, logits: Tensor, labels: Tensor, old_logits: Tensor | None, pseudo: PseudoLabels | None
    ) -> Tensor:
        """The cross-entropy or what stands in its place, averaged over all pixels."""
        config = self.config
        if config.ce_on_new:
            labels = labels.masked_fill(labels == 0, losses.IGNORE)
        if old_logits is not None and config.icarl and config.icarl_disjoint:
            loss = losses.icarl_disjoint(logits, labels, old_logits.sigmoid(), config.icarl_bkg).mean()
        elif pseudo is not None and pseudo.valid is not None and config.ce_on_pseudo:
            loss = self.split_cross_entropy(logits, labels, pseudo)
        elif pseudo is not None and pseudo.valid is not None and config.pseudo_soft:
            assert old_logits is not None
            certain = ~pseudo.background
            if config.pseudo_soft == "soft_uncertain":
                certain = certain | pseudo.valid
            loss = losses.soft_cross_entropy(logits, labels, old_logits, certain, config.pseudo_soft_factor)
        else:
            loss = self.criterion(logits, labels)
        if pseudo is not None:
            loss = loss if pseudo.weight is None else loss * pseudo.weight
            loss = loss if pseudo.factor is None else loss * pseudo.factor
        if config.sample_weights_new is not None:
            loss = loss * config.sample_weights_new  # original: the mask labels >= 0 is true everywhere
        return loss.mean()

    def split_cross_entropy(self, logits: Tensor, labels: Tensor, pseudo: PseudoLabels) -> Tensor:
        """--ce_on_pseudo: the criterion on labels, plain cross-entropy on pseudo-labels; each pixel has one of them."""
        chosen = pseudo.background & pseudo.valid
        if self.config.unce and self.old_classes:
            on_labels = self.criterion(logits, labels, ignored=chosen)
        else:
            on_labels = self.criterion(logits, labels.masked_fill(chosen, losses.IGNORE))
        return on_labels + losses.cross_entropy(logits, pseudo.predicted.masked_fill(~chosen, losses.IGNORE))

    def distilled(self, logits: Tensor, old_logits: Tensor, labels: Tensor) -> Tensor:
        """Distillation of logits, weighted."""
        config = self.config
        if config.temperature_apply:
            divisor = self._temperatures(labels)
            logits, old_logits = logits / divisor, old_logits / divisor
        if config.unkd:
            values = losses.unbiased_distillation(logits, old_logits, config.alpha)
        elif config.kd_bce_sig:
            values = losses.sigmoid_distillation(logits, old_logits, config.kd_bce_sig_shape, config.alpha).mean(dim=1)
        elif config.exkd_gt or config.exkd_sum:
            values = losses.excluded_distillation(
                logits, old_logits, labels, self.first_classes, config.temperature_semiold,
                "gt" if config.exkd_gt else "sum",
            )  # fmt: skip
        else:
            values = losses.distillation(logits, old_logits, config.alpha)
        if config.kd_mask:
            mask = labels < self.old_classes if config.kd_mask == "oldbackground" else labels >= self.old_classes
            values = values * mask
            if config.kd_mask_adaptative_factor:
                values = values.mean(dim=(1, 2)) * mask.float().mean(dim=(1, 2))
        weight = config.loss_kd
        if config.kd_scheduling:
            weight = weight * math.sqrt(self.classes / self.new_classes)
        return weight * values.mean()

    def _temperatures(self, labels: Tensor) -> Tensor:
        """(B, 1, H, W): divisor of the logits."""
        everywhere = torch.ones_like(labels, dtype=torch.bool)
        chosen = {
            "all": everywhere, "old": labels < self.old_classes, "new": labels >= self.old_classes,
        }[self.config.temperature_apply]  # fmt: skip
        return torch.where(chosen, self.config.temperature, 1.0).unsqueeze(1)

    def distilled_maps(
        self, new: tuple[Tensor, Features], old: tuple[Tensor, Features], labels: Tensor
    ) -> Tensor:
        """Distillation of feature maps, weighted."""
        config = self.config
        new_maps, old_maps = ([*side[1]["attentions"]] for side in (new, old))
        if config.pod_logits:
            new_maps.append(new[1]["sem_logits_small"])
            old_maps.append(old[1]["sem_logits_small"])
        if config.pod_large_logits:
            new_maps.append(new[0])
            old_maps.append(old[0])
        counts = (self.old_classes, self.classes, self.new_classes)
        with torch.autocast(labels.device.type, enabled=False):
            if self.cubes is not None:
                return sum(cube_loss(old_maps, new_maps, self.cubes, *counts, not config.no_pod_schedule))
            assert self.pod is not None
            return pod_loss(old_maps, new_maps, self.pod, *counts, labels)

    def background_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the images of the mean entropy of their background pixels, 0 for an image without any (D37).

        original: its weight is not applied.
        """
        background = (labels < self.old_classes).float()
        entropy = losses.pixel_entropy(logits.softmax(dim=1), self.config.entropy_reduction) * background
        return (entropy.flatten(1).sum(dim=1) / background.flatten(1).sum(dim=1).clamp(min=1)).mean()
