"""DualPrompt and L2P: prompts picked from a pool by the cosine between query and key.

Source: IRVLUTD/CDL@d980577 models/zoo.py `DualPrompt`, `L2P` (after GT-RIPL/CODA-Prompt@6417d4f).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.training.errors import UserError
from prompt_distill.prompts.base import MEAN, PromptMethod, PromptSetting, over_devices, uniform_parameter
from prompt_distill.vit import Injection, Prefix

GENERAL_LAYERS = (0, 1)
EXPERT_LAYERS = (2, 3, 4)
DEEP_LAYERS = (0, 1, 2, 3, 4)
TOP = 5
"""Prompts per sample in L2P."""


class DualPrompt(PromptMethod):
    """General prompts at layers 0-1, one expert prompt per task at layers 2-4.

    --prompt_param: size of the expert pools, expert length, general length.
    """

    name = "DualPrompt"
    follows_update = True

    def __init__(self, setting: PromptSetting) -> None:
        super().__init__(setting)
        pool, expert_length, general_length = self.integers(3)
        if pool < setting.tasks:
            raise UserError(f"--prompt_param: DualPrompt needs one expert per task, {pool} for {setting.tasks} tasks")
        for layer in GENERAL_LAYERS:
            self.register_parameter(f"g_p_{layer}", uniform_parameter(general_length, setting.dim))
        for layer in EXPERT_LAYERS:
            self.register_parameter(f"e_p_{layer}", uniform_parameter(pool, expert_length, setting.dim))
            self.register_parameter(f"e_k_{layer}", uniform_parameter(pool, setting.key_dim))

    def inject(self, layer: int, query: Tensor, train: bool) -> tuple[Injection | None, Tensor | None]:
        """Training takes the current task's expert for the whole batch, inference the nearest one per sample."""
        if layer in GENERAL_LAYERS:
            prompt = getattr(self, f"g_p_{layer}")
            return Injection(own=_halves(prompt.expand(len(query), -1, -1))), None
        if layer not in EXPERT_LAYERS:
            return None, None
        prompts, keys = getattr(self, f"e_p_{layer}"), getattr(self, f"e_k_{layer}")
        if not train:
            nearest = cosines(query, keys).argmax(dim=1)
            return Injection(own=_halves(prompts[nearest])), None
        distance = 1 - cosines(query, keys[self.task : self.task + 1])[:, 0]
        reduce = torch.mean if self.setting.key_loss == MEAN else torch.sum
        loss = over_devices(reduce, self.setting.devices, distance)
        return Injection(own=_halves(prompts[self.task].expand(len(query), -1, -1))), loss


class L2P(PromptMethod):
    """The five nearest prompts of a pool that all tasks share.

    --prompt_param: pool, length, and a switch: layers 0 to 4 if it is above 0, else layer 0 only.
    """

    name = "L2P"

    def __init__(self, setting: PromptSetting) -> None:
        super().__init__(setting)
        pool, length = self.integers(2)
        if pool < TOP:
            raise UserError(f"--prompt_param: L2P takes {TOP} prompts per sample, the pool has {pool}")
        self.layers = DEEP_LAYERS if len(setting.param) > 2 and setting.param[2] > 0 else (0,)
        for layer in self.layers:
            self.register_parameter(f"e_p_{layer}", uniform_parameter(pool, length, setting.dim))
            self.register_parameter(f"e_k_{layer}", uniform_parameter(pool, setting.key_dim))

    def inject(self, layer: int, query: Tensor, train: bool) -> tuple[Injection | None, Tensor | None]:
        """The same selection in training and inference."""
        if layer not in self.layers:
            return None, None
        prompts, keys = getattr(self, f"e_p_{layer}"), getattr(self, f"e_k_{layer}")
        similarity = cosines(query, keys)
        chosen = similarity.topk(TOP, dim=1).indices  # descending similarity
        half = prompts.shape[1] // 2
        picked = prompts[chosen]  # (B, 5, length, dim)
        prefix = Prefix(picked[:, :, :half].flatten(1, 2), picked[:, :, half:].flatten(1, 2))
        if not train:
            return Injection(own=prefix), None
        distance = own_keys_distance if self.setting.key_loss == MEAN else all_pairs_distance
        return Injection(own=prefix), over_devices(distance, self.setting.devices, similarity, chosen)


def own_keys_distance(similarity: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the batch of the sum over a sample's own keys of 1 - cosine; (B, pool) and (B, 5) -> ()."""
    return (1 - similarity.gather(1, chosen)).sum(dim=1).mean()


def all_pairs_distance(similarity: Tensor, chosen: Tensor) -> Tensor:
    """# original: (D4) the sum over every query with the chosen keys of *every* sample; an indexing slip."""
    return (1 - similarity[:, chosen.flatten()]).sum()


def cosines(query: Tensor, keys: Tensor) -> Tensor:
    """(B, d) and (n, d) -> (B, n)."""
    return F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T


def _halves(prompt: Tensor) -> Prefix:
    """(B, length, dim): the first half are keys, the rest values."""
    half = prompt.shape[1] // 2
    return Prefix(prompt[:, :half], prompt[:, half:])
