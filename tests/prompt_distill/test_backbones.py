"""Weights of backbones: local files, the pair and its cards, what is said when something is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.training.errors import UserError
from prompt_distill import backbones
from prompt_distill.backbones import PAIR_FOLDER, PAIR_SIZES, TIMM_SIZES, load_backbone, read_card, read_weights
from prompt_distill.pretrain import MAX_BYTES, main
from prompt_distill.vit import ViTSize, build_vit, forward_tokens
from repro.records import load_record

pytestmark = pytest.mark.unit

SMALL = ViTSize(16, 2, 2, image=32, patch=16, mlp_ratio=4.0)


@pytest.fixture
def small(monkeypatch):
    """A small network under a name that timm knows."""
    monkeypatch.setitem(backbones.SIZES, "vit_tiny_patch16_224", SMALL)
    torch.manual_seed(3)
    return build_vit(SMALL)


def published_arrays(vit) -> dict[str, np.ndarray]:
    """A network in the form of the augreg checkpoints."""
    dim, heads = SMALL.dim, SMALL.heads
    state = {key: value.numpy() for key, value in vit.state_dict().items()}
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for layer in range(SMALL.depth):
        block, own = f"Transformer/encoderblock_{layer}/", f"blocks.{layer}."
        for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{block}{theirs}/scale"] = state[f"{own}{ours}.weight"]
            arrays[f"{block}{theirs}/bias"] = state[f"{own}{ours}.bias"]
        mixer = f"{block}MultiHeadDotProductAttention_1/"
        weights, biases = state[f"{own}attn.qkv.weight"], state[f"{own}attn.qkv.bias"]
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * dim, (part + 1) * dim)
            arrays[f"{mixer}{name}/kernel"] = weights[rows].T.reshape(dim, heads, dim // heads)
            arrays[f"{mixer}{name}/bias"] = biases[rows].reshape(heads, dim // heads)
        arrays[f"{mixer}out/kernel"] = state[f"{own}attn.proj.weight"].T.reshape(heads, dim // heads, dim)
        arrays[f"{mixer}out/bias"] = state[f"{own}attn.proj.bias"]
        for part in range(2):
            dense = f"{block}MlpBlock_3/Dense_{part}/"
            arrays[f"{dense}kernel"] = state[f"{own}mlp.fc{part + 1}.weight"].T
            arrays[f"{dense}bias"] = state[f"{own}mlp.fc{part + 1}.bias"]
    return arrays


@pytest.mark.parametrize("kind", ["safetensors", "npz", "pth"])
def test_local_files(kind, small, tmp_path):
    path = tmp_path / f"vit_tiny_patch16_224.augreg_in21k_ft_in1k.{kind}"
    state = small.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "npz":
        np.savez(path, **published_arrays(small))
    else:
        torch.save({"model": {**state, "head.weight": torch.zeros(3, 16), "head.bias": torch.zeros(3)}}, path)
    for weights in (path, tmp_path):
        loaded = load_backbone("vit_tiny_patch16_224", weights=weights)
        for key, value in loaded.vit.state_dict().items():
            torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    assert loaded.source.startswith("vit_tiny_patch16_224: vit_tiny") and len(loaded.sha256) == 64


def test_files_that_are_missing_or_do_not_fit(small, tmp_path):
    with pytest.raises(UserError, match="expected a file, or a folder with vit_tiny"):
        load_backbone("vit_tiny_patch16_224", weights=tmp_path)
    save_file({"cls_token": torch.zeros(1, 1, 16)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="do not fit this network: missing"):
        load_backbone("vit_tiny_patch16_224", weights=tmp_path / "a.safetensors")
    (tmp_path / "b.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no ViT checkpoint"):
        load_backbone("vit_tiny_patch16_224", weights=tmp_path / "b.npz")
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "c.safetensors", SMALL)
    for content in (
        {"state_dict": small.state_dict(), "epoch": 3},
        [torch.zeros(1)],
        {"epoch": 3},
        {0: torch.zeros(1)},
    ):
        torch.save(content, tmp_path / "d.pth")
        with pytest.raises(UserError, match="expected a state dict"):
            read_weights(tmp_path / "d.pth", SMALL)


def test_offline_it_says_what_is_missing_and_where_to_get_it(small, monkeypatch):
    monkeypatch.setattr(backbones, "_cached_file", lambda full: None)
    monkeypatch.setattr(backbones, "_hub_answers", lambda: False)
    with pytest.raises(UserError, match="needs weights: vit_tiny_patch16_224.augreg_in21k_ft_in1k") as missing:
        load_backbone("vit_tiny_patch16_224")
    assert "Ti_16-i21k-300ep" in str(missing.value) and "--weights FOLDER" in str(missing.value)
    with pytest.raises(UserError, match="timm knows .*augreg_in21k_ft_in1k"):
        load_backbone("vit_tiny_patch16_224", tag="nonsense")


def test_the_original_tag_is_published_for_every_size():
    import timm

    assert all(f"{name}.{backbones.ORIGINAL_TAG}" in timm.list_pretrained() for name in TIMM_SIZES)


def test_random_backbones_say_so():
    assert "never trained" in load_backbone("vit_random_student").source


def test_the_pair_is_small_enough_for_the_repository():
    sizes = {name: 2 * sum(p.numel() for p in build_vit(size).parameters()) for name, size in PAIR_SIZES.items()}
    assert all(size < MAX_BYTES for size in sizes.values()) and sum(sizes.values()) < 8e6
    assert all(size.image == 32 for size in PAIR_SIZES.values())


def test_pretraining_writes_weights_and_card_that_load(tmp_path, monkeypatch):
    """In its short form; the desk's networks are not trained here."""
    monkeypatch.setitem(PAIR_SIZES, "vit_pair_student", ViTSize(16, 2, 2, image=32, patch=16))
    monkeypatch.setitem(backbones.SIZES, "vit_pair_student", PAIR_SIZES["vit_pair_student"])
    folder = tmp_path / "pair"
    monkeypatch.setattr(backbones, "PAIR_FOLDER", folder)
    with pytest.raises(UserError, match="prompt_distill.pretrain"):
        load_backbone("vit_pair_student")
    flags = ["--smoke", "--name", "vit_pair_student", "--gpuid", "-1", "--output_dir", str(tmp_path / "out")]
    metrics = main([*flags, "--pair_folder", str(folder)])
    record = load_record(tmp_path / "out/vit_pair_student")
    assert set(record.content["labels"]) == {"smoke", "sub-sampled", "desk-scale"}
    path = folder / "vit_pair_student.safetensors"
    card = read_card(path)
    assert card["trained_on"] == "Sample classes 18 to 19" and card["not_seen"] == "classes 0 to 17"
    assert card["test_accuracy_percent"] == round(metrics["vit_pair_student"]["accuracy"], 2)
    assert str(tmp_path) not in json.dumps(card)
    assert card["command"].startswith("python -m prompt_distill.pretrain --name vit_pair_student --")
    assert all(f" {flag}" in card["command"] for flag in ("--smoke", "--dataset Sample", "--epochs 1", "--warmup 0"))
    assert "--gpuid" not in card["command"] and "--seed" not in card["command"]
    assert "Sample classes 18 to 19" in load_backbone("vit_pair_student").source
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="belongs to other weights"):
        read_card(path)


def test_a_short_pretraining_leaves_the_shipped_pair_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(PAIR_SIZES, "vit_pair_student", ViTSize(16, 2, 2, image=32, patch=16))
    shipped = {path: path.read_bytes() for path in PAIR_FOLDER.iterdir()}
    main(["--smoke", "--name", "vit_pair_student", "--gpuid", "-1", "--output_dir", str(tmp_path)])
    assert {path: path.read_bytes() for path in PAIR_FOLDER.iterdir()} == shipped
    assert read_card(tmp_path / "pair" / "vit_pair_student.safetensors")["name"] == "vit_pair_student"


def test_lower_precision_on_a_cpu_stays_near_the_full_one_forwards_and_backwards(small):
    images = torch.randn(4, 3, 32, 32)
    found = []
    for lower in (False, True):
        small.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            last = forward_tokens(small, images).last
        last.float().square()[:, 0, :4].sum().backward()
        found.append((last.detach().float(), small.blocks[0].attn.qkv.weight.grad.clone()))
    for full, half in zip(*found, strict=True):
        assert 0 < (full - half).norm() < 0.03 * full.norm()
