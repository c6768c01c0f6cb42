"""RFD, R-DFCIL and the R-DFCIL authors' port of ABD: what each adds to a step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfd.factors import abd_port_factors, rdfcil_factors, rfd_factors
from rfd.inversion import Replay
from rfd.learning.dynamic import DynamicHeadLearner
from rfd.losses import (
    balanced_cross_entropy,
    feature_distillation_loss,
    hard_distillation_loss,
    local_cross_entropy,
    relation_distillation_loss,
)
from rfd.relation import RelationEmbeddings


class RFD(DynamicHeadLearner):
    """Image-centric dual distillation: relations of old-class probabilities (WRD) and low-level features (LFD).

    In a step the new network's norm layers see the real batch, the synthetic batch and, from stage 2 on, the hybrid
    pass, in this order: three updates of their statistics. So they do in a finetuning step where the trainer's quirk
    has put them into training mode (`--model.lightning_val_quirk`).
    """

    name = "RFD"
    classifier, bias = "two_linear", False
    dropped_in_finetuning = "sm"
    factors_of = staticmethod(rfd_factors)

    def learning_losses(self, images: Tensor, target: Tensor, replay: Replay) -> dict[str, Tensor]:
        """LCE on real images, WRD on synthetic and on real images, LFD. A weight of 0 saves the passes it needs."""
        teacher, network, weights = self.frozen_network(), self.network, self.recipe.lambdas
        found: dict[str, Tensor] = {}
        with self.precision.autocast():
            features = network.features(images)  # statistics: first update
            logits = network.head.classify(features).float()
            if weights.distkd_old:
                synthetic_logits = network(replay.images).float()  # second update
                found["distkd_old"] = self._relation(synthetic_logits, replay.logits)
            with torch.no_grad():
                if weights.distkd_new or weights.kd:
                    first = teacher.backbone.first_stage(images)
                if weights.distkd_new:
                    old_logits = teacher.head(teacher.backbone.from_first_stage(first)).float()
            if weights.kd:
                hybrid = network.backbone.from_first_stage(first)  # third update
                found["sm"] = feature_distillation_loss(hybrid.float(), features.float())
        if weights.distkd_new:
            found["distkd_new"] = self._relation(logits, old_logits)
        return found | {"ce": local_cross_entropy(logits, target, self.n_old)}

    def finetuning_losses(self, images: Tensor, target: Tensor, replay: Replay) -> dict[str, Tensor]:
        """Class-weighted CE over all logits of real and synthetic images, and both WRD terms."""
        weights = self.recipe.lambdas
        with self.precision.autocast():
            logits = self.head_alone(images).float()
            synthetic_logits = self.head_alone(replay.images).float()
        both, labels = torch.cat([logits, synthetic_logits]), torch.cat([target, replay.labels])
        found = {"ce": balanced_cross_entropy(both, labels, self.weights)}
        if weights.distkd_old:
            found["distkd_old"] = self._relation(synthetic_logits, replay.logits)
        if weights.distkd_new:
            with torch.no_grad(), self.precision.autocast():
                old_logits = self.frozen_network()(images).float()
            found["distkd_new"] = self._relation(logits, old_logits)
        if weights.kd and self.network.backbone.training:
            # original: LFD's passes go on in this phase, unused; in training mode they still move the statistics
            with torch.no_grad(), self.precision.autocast():
                first = self.frozen_network().backbone.first_stage(images)
                self.network.backbone.from_first_stage(first)
        return found

    def _relation(self, logits: Tensor, old_logits: Tensor) -> Tensor:
        recipe = self.recipe
        return relation_distillation_loss(
            logits[:, : self.n_old], old_logits, inter=recipe.wrd_inter, intra=recipe.wrd_intra
        )


class RDFCIL(DynamicHeadLearner):
    """Relation-guided representation learning: logits on synthetic images (HKD), angles on real ones (RKD)."""

    name = "R-DFCIL"
    classifier, bias = "linear", False
    dropped_in_finetuning = "rkd"
    factors_of = staticmethod(rdfcil_factors)
    embeddings: RelationEmbeddings | None = None

    def make_extras(self) -> None:
        """Fresh relation embeddings. # rng: their weights"""
        self.embeddings = RelationEmbeddings(self.network.backbone.num_features).to(self.device)

    def all_parameters(self) -> list[nn.Parameter]:
        """The network and the embeddings."""
        own = [] if self.embeddings is None else list(self.embeddings.parameters())
        return super().all_parameters() + own

    def learning_losses(self, images: Tensor, target: Tensor, replay: Replay) -> dict[str, Tensor]:
        """LCE on real images, HKD on synthetic, RKD between the networks' features of real images."""
        weights = self.recipe.lambdas
        found: dict[str, Tensor] = {}
        with self.precision.autocast():
            features = self.network.features(images)
            logits = self.network.head.classify(features).float()
            if weights.hkd:
                synthetic_logits = self.network(replay.images).float()
            if weights.rkd:
                assert self.embeddings is not None
                with torch.no_grad():
                    old_features = self.frozen_network().features(images)
        if weights.hkd:
            found["hkd"] = hard_distillation_loss(synthetic_logits[:, : self.n_old], replay.logits)
        if weights.rkd:
            found["rkd"] = self.embeddings(features.float(), old_features.float())
        return found | {"ce": local_cross_entropy(logits, target, self.n_old)}

    def finetuning_losses(self, images: Tensor, target: Tensor, replay: Replay) -> dict[str, Tensor]:
        """Class-weighted CE over all logits of real and synthetic images, and HKD."""
        with self.precision.autocast():
            logits = self.head_alone(images).float()
            synthetic_logits = self.head_alone(replay.images).float()
        both, labels = torch.cat([logits, synthetic_logits]), torch.cat([target, replay.labels])
        found = {"ce": balanced_cross_entropy(both, labels, self.weights)}
        if self.recipe.lambdas.hkd:
            found["hkd"] = hard_distillation_loss(synthetic_logits[:, : self.n_old], replay.logits)
        return found

    def begin_epoch(self) -> None:
        """The embeddings rest with the relation loss: without a gradient the optimiser leaves them as they are."""
        super().begin_epoch()
        if self.embeddings is not None:
            self.embeddings.requires_grad_(not self.finetuning)

    def state_dict(self) -> dict[str, Any]:
        """With the embeddings."""
        state = super().state_dict()
        return state if self.embeddings is None else state | {"embeddings": self.embeddings.state_dict()}

    def rebuild(self, state: dict[str, Any]) -> None:
        """With the embeddings."""
        super().rebuild(state)
        if self.embeddings is not None:
            self.embeddings.load_state_dict(state["embeddings"])


class ABDPort(DynamicHeadLearner):
    """ABD as the R-DFCIL authors ported it: one pass over real and synthetic images together.

    Source: gqk/ABD@53e9b2a module.py. Differs from the original ABD (`rfd/learning/fixed.py`): README, Deviations A3.
    """

    name = "ABD-port"
    classifier, bias = "linear", True
    factors_of = staticmethod(abd_port_factors)

    def learning_losses(self, images: Tensor, target: Tensor, replay: Replay) -> dict[str, Tensor]:
        """Local CE on real images; CE of the head alone, weighted by the share of old classes; old head's outputs.
        A weight of 0 saves the passes that the last one needs."""
        teacher, network, keeps = self.frozen_network(), self.network, self.recipe.lambdas.kd
        share = self.n_old / self.seen
        weight = torch.full((self.seen,), 1 - share, device=self.device)
        weight[: self.n_old] = share
        with self.precision.autocast():
            features = network.features(torch.cat([images, replay.images]))
            logits = network.head.classify(features).float()
            frozen_logits = network.head.classify(features.detach()).float()
            if keeps:
                kept = teacher.head.classify(features).float()
                with torch.no_grad():
                    wanted = torch.cat([teacher(images).float(), replay.logits])
        labels = torch.cat([target, replay.labels])
        found = {
            "ce": local_cross_entropy(logits[: len(target)], target, self.n_old),
            "ft": balanced_cross_entropy(frozen_logits, labels, weight),
        }
        return found | {"fkd": F.mse_loss(kept, wanted)} if keeps else found
