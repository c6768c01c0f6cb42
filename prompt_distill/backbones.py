"""Pretrained backbones by name: the original's through timm, the small shipped pair, and random ones for smoke runs.

The original asked timm 0.4.12 for `vit_base_patch16_224`; newer versions answer the same name with another checkpoint.
Names are therefore completed by a tag (`--weights_tag`); its default is what timm 0.4.12 loaded for all four sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import huggingface_hub
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from common.training.checkpoint import load_weights, read_checkpoint
from common.training.errors import UserError
from prompt_distill.vit import ViTSize, build_vit

ORIGINAL_TAG = "augreg_in21k_ft_in1k"
INSTALLED = "timm"
"""Value of --weights_tag that takes whatever checkpoint the installed timm gives for the bare name."""

TIMM_SIZES = {
    "vit_tiny_patch16_224": ViTSize(192, 12, 3),
    "vit_small_patch16_224": ViTSize(384, 12, 6),
    "vit_base_patch16_224": ViTSize(768, 12, 12),
    "vit_large_patch16_224": ViTSize(1024, 24, 16),
}
PAIR_SIZES = {
    "vit_pair_teacher": ViTSize(128, 6, 4, image=32, patch=8),
    "vit_pair_student": ViTSize(64, 6, 2, image=32, patch=8),
}
"""The pair for desks; weights and cards lie in `pair/` once `python -m prompt_distill.pretrain` has made them."""

RANDOM_SIZES = {
    "vit_random_teacher": ViTSize(32, 12, 2, image=32, patch=16, mlp_ratio=2.0),
    "vit_random_student": ViTSize(24, 12, 2, image=32, patch=16, mlp_ratio=2.0),
}
"""Never trained: for smoke runs and tests; their accuracies mean nothing, and records say so."""

SIZES = {**TIMM_SIZES, **PAIR_SIZES, **RANDOM_SIZES}
PAIR_FOLDER = Path(__file__).parent / "pair"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
CONNECTION_SECONDS = 5.0
SUFFIXES = (".safetensors", ".npz", ".bin", ".pth", ".pt")


class Backbone:
    """A loaded backbone and where its weights came from.

    Attributes:
        vit: the network, without a head.
        source: one line for the run record.
        sha256: over the loaded weights, hex.
    """

    def __init__(self, vit: VisionTransformer, source: str) -> None:
        self.vit, self.source, self.sha256 = vit, source, state_sha256(vit.state_dict())


def size_of(name: str) -> ViTSize:
    """Size of a named backbone.

    Raises:
        UserError: for an unknown name.
    """
    if name not in SIZES:
        raise UserError(f"unknown backbone {name!r}; expected one of {', '.join(SIZES)}")
    return SIZES[name]


def load_backbone(name: str, tag: str = ORIGINAL_TAG, weights: Path | None = None) -> Backbone:
    """A backbone with its pretrained weights.

    Args:
        name: one of `SIZES`.
        tag: timm tag of the checkpoint, or "timm".
        weights: a file, or a folder that holds `<name>.<tag>` or `<name>` with one of `SUFFIXES`; None: the shipped
            pair's own files, or timm's cache or download.

    Raises:
        UserError: if the weights are not there and cannot be fetched (says which and from where), or do not fit.
    """
    size = size_of(name)
    vit = build_vit(size)
    if name in RANDOM_SIZES:
        if weights is not None:
            raise UserError(f"{name} is random by definition; leave --weights out or name another backbone")
        return Backbone(vit, f"{name}: random, never trained")
    if weights is not None:
        path = find_file(weights, name, tag)
        load_weights(vit, without_head(read_weights(path, size)), str(path))
        return Backbone(vit, f"{name}: {path.name}")
    if name in PAIR_SIZES:
        path = PAIR_FOLDER / f"{name}.safetensors"
        if not path.is_file():
            raise UserError(
                f"needs weights: {name} is not in {PAIR_FOLDER.name}/; make the pair with "
                f"`python -m prompt_distill.pretrain` (hours on a CPU) or give --weights FOLDER with {name}.safetensors"
            )
        load_weights(vit, without_head(read_weights(path, size)), path.name)
        return Backbone(vit, f"{name}: {path.name}, {read_card(path)['trained_on']}")
    full = f"{name}.{tag}" if tag != INSTALLED else f"{name}{_installed_tag(name)}"
    load_weights(vit, fetch(name, full), full)
    return Backbone(vit, full)


def fetch(name: str, full: str) -> dict[str, Tensor]:
    """Weights of a timm checkpoint from the cache, else from its publisher.

    Args:
        name: one of `TIMM_SIZES`.
        full: the same with its tag.

    Raises:
        UserError: if they are in neither place.
    """
    if full not in timm.list_pretrained():
        raise UserError(missing_line(name, full, "unknown tag"))
    cached = _cached_file(full)
    if cached is None and not _hub_answers():  # why: the download itself tries for a minute before it gives up
        raise UserError(missing_line(name, full, "no connection"))
    overlay = {} if cached is None else {"pretrained_cfg_overlay": {"file": cached}}
    try:
        model = timm.create_model(full, pretrained=True, num_classes=0, global_pool="", **overlay)
    except Exception as error:  # why any: a lost connection, a full disk and a damaged cache look all different
        raise UserError(missing_line(name, full, " ".join(str(error).split())[:80])) from error
    return model.state_dict()


def missing_line(name: str, full: str, reason: str) -> str:
    """What is missing and where to get it."""
    config = timm.get_pretrained_cfg(full) if full in timm.list_pretrained() else None
    places = [place for place in (config.url, config.hf_hub_id) if place] if config is not None else []
    known = ", ".join(tag for tag in timm.list_pretrained(f"{name}.*"))
    where = f"get {' or model '.join(places)} elsewhere" if places else f"timm knows {known}"
    return (
        f"needs weights: {full} is not in timm's cache and could not be fetched ({reason}); {where}, and give "
        f"--weights FOLDER that holds {full}.npz or .safetensors"
    )


def find_file(weights: Path, name: str, tag: str) -> Path:
    """The weights of a backbone: the file itself, or the one in a folder that has its name.

    Raises:
        UserError: if there is none.
    """
    if weights.is_file():
        return weights
    stems = [f"{name}.{tag}", name, *_original_stems(name, tag)]
    for path in (weights / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES):
        if path.is_file():
            return path
    raise UserError(
        f"--weights {weights}: expected a file, or a folder with {name}.{tag} or {name} and one of {' '.join(SUFFIXES)}"
    )


def read_weights(path: Path, size: ViTSize) -> dict[str, Tensor]:
    """A state dict in timm's names, float32.

    Raises:
        UserError: if the file cannot be read.
    """
    if path.suffix == ".npz":  # the published form of the augreg checkpoints; timm knows how to read it
        vit = build_vit(size)
        try:
            vit.load_pretrained(str(path))
        except Exception as error:  # why any: a foreign archive lacks arrays, has other shapes or is no archive at all
            raise UserError(f"{path} is no ViT checkpoint of this size ({error}); get it again") from error
        return vit.state_dict()
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read ({error}); get it again") from error
    else:
        state = read_checkpoint(path)
        state = state.get("model", state) if isinstance(state, dict) else state
        check_state(path, state)
    return {key: value.float() for key, value in state.items()}


def check_state(path: Path, state: Any) -> None:
    """Refuse a file of another layout.

    Raises:
        UserError: if it is no dictionary of tensors.
    """
    if not isinstance(state, dict):
        raise UserError(f"{path}: expected a state dict, bare or under 'model'; found {type(state).__name__}")
    foreign = [key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if foreign:
        raise UserError(
            f"{path}: expected a state dict of tensors, bare or under 'model'; found {foreign[0]!r} with "
            f"{type(state[foreign[0]]).__name__}; save the state dict alone"
        )


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a classifier's state dict."""
    return {key: value for key, value in state.items() if not key.startswith(("head.", "pre_logits."))}


def read_card(path: Path) -> dict[str, Any]:
    """The card beside a file of the pair: what it was trained on, how, and how good it is.

    Raises:
        UserError: if it is missing or belongs to other weights.
    """
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{card_path} is missing or damaged ({error}); make the pair again") from error
    if card.get("sha256") != hashlib.sha256(path.read_bytes()).hexdigest():
        raise UserError(f"{card_path.name} belongs to other weights than {path.name}; make the pair again")
    return card


def state_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 over names and values of a state dict."""
    digest = hashlib.sha256()
    for key, value in state.items():
        digest.update(key.encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def _cached_file(full: str) -> str | None:
    """The checkpoint in the hub's cache on this machine."""
    model = timm.get_pretrained_cfg(full).hf_hub_id
    found = [huggingface_hub.try_to_load_from_cache(model, file) for file in HUB_FILES] if model else []
    return next((path for path in found if isinstance(path, str)), None)


def _hub_answers() -> bool:
    """Whether the hub can be reached at all; with a proxy that cannot be told in advance."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        host = urlparse(huggingface_hub.constants.ENDPOINT).hostname
        with socket.create_connection((host, 443), timeout=CONNECTION_SECONDS):
            return True
    except OSError:
        return False


def _installed_tag(name: str) -> str:
    tag = timm.get_pretrained_cfg(name).tag
    return f".{tag}" if tag else ""


def _original_stems(name: str, tag: str) -> list[str]:
    """Name of the published file, e.g. Ti_16-i21k-300ep-..., as timm's table has it."""
    full = f"{name}.{tag}"
    url = timm.get_pretrained_cfg(full).url if full in timm.list_pretrained() else None
    return [Path(url).stem] if url else []
