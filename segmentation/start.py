"""How the networks of a step get their first weights from the step before.

Source: arthurdouillard/CVPR2021_PLOP (commit 4b4a060) run.py; zhangchbin/RCIL (commit b9aad58) run.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from common.training.errors import UserError
from segmentation.network import IncrementalSegmentationModule, copies_balanced_bias, uses_rcil_network
from segmentation.rcil.merging import add_merge_biases, has_merge_biases, merge_branches


def load_weights(network: IncrementalSegmentationModule, state: Mapping[str, Tensor], strict: bool = True) -> None:
    """Load a checkpoint's weights; keys of a distributed run and merged RCIL networks are understood.

    Raises:
        UserError: if they do not fit, naming the first entry that does not.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if has_merge_biases(state):
        add_merge_biases(network)
    try:
        found = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise UserError(f"the checkpoint does not fit the network: {line[:300]}") from error
    if strict and (found.missing_keys or found.unexpected_keys):
        missing, unexpected = (", ".join(keys[:1]) or "none" for keys in found)
        raise UserError(
            f"the checkpoint does not fit the network: {len(found.missing_keys)} entries missing (first: {missing}), "
            f"{len(found.unexpected_keys)} unexpected (first: {unexpected}); check --backbone, --task and --codebase"
        )


def start_step(config: Any, network: IncrementalSegmentationModule, old_state: Mapping[str, Tensor]) -> None:
    """Weights for the network of a later step: the old ones, RCIL's merge, the new classes' start.

    Args:
        config: flags, the method's preset applied.
        network: of the step; its new classifier keeps what it has, unless --init_balanced.
        old_state: trained weights of the step before.
    """
    load_weights(network, old_state, strict=False)
    if config.init_balanced:
        network.start_balanced(copies_balanced_bias(config))
    if uses_rcil_network(config):
        merge_branches(network, compensate=config.rcil_start == "compensate")
