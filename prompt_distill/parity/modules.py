"""Adapters: attention, prompt modules, mapping, fusion units, losses."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from common.parity import Fixture, reproduces
from prompt_distill.distillation import DistillationSetting, FitNets
from prompt_distill.losses import (
    current_cross_entropy,
    decoupled_distillation_loss,
    distillation_loss,
    hierarchical_loss,
)
from prompt_distill.network import classify
from prompt_distill.parity.building import load_recorded, size_from
from prompt_distill.prompts import APT, PROMPTS, PromptMethod
from prompt_distill.prompts.apt import merged
from prompt_distill.prompts.base import PromptSetting
from prompt_distill.prompts.coda import LAYERS, gram_schmidt, orthogonality_penalty
from prompt_distill.review import FusionStack, FusionUnit
from prompt_distill.second_head import CDLPrompt, KDPrompts
from prompt_distill.vit import Injection, Prefix, attend, build_vit, forward_tokens, query_of

ATTENTION = ("plain", "prefix", "prefix_kd_prefix", "additive_cls", "prefix_mapped_teacher")
CODA = ("train_task1", "train_task2", "eval_task2", "train_task2_ortho")
DUAL = ("train_task1_key_mean", "train_task2_key_mean", "train_task1_key_sum", "eval")
L2P_IDS = ("train_key_mean", "train_key_sum", "train_deep", "eval")


@reproduces(*(f"prompt_distill.module.attention.{name}" for name in ATTENTION))
def attention(fixture: Fixture) -> dict[str, Tensor]:
    args, given = fixture.args, dict(fixture.inputs)
    module = Attention(args["dim"], args["num_heads"], qkv_bias=args["qkv_bias"])
    module.load_state_dict(fixture.params)
    cotangent = given.pop("cotangent")
    leaves = {name: value.requires_grad_() for name, value in given.items()}

    def pair(name: str) -> Prefix | None:
        return Prefix(leaves[f"{name}_k"], leaves[f"{name}_v"]) if f"{name}_k" in leaves else None

    injection = Injection(mapped=pair("t"), own=pair("prompt"), kd=pair("kd"), added=pair("root"))
    y = attend(module, leaves["x"], injection)
    (y * cotangent).sum().backward()
    return {"out.y": y.detach(), **{f"grad.{name}": leaf.grad for name, leaf in leaves.items()}}


@reproduces("prompt_distill.module.vit_query")
def vit_query(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    vit = build_vit(size_from(args, [args["dim"], args["depth"], args["heads"]]))
    vit.load_state_dict(fixture.params)
    images = fixture.inputs["x"]
    with torch.no_grad():
        return {"out.tokens": forward_tokens(vit, images).last, "out.query": query_of(vit, images)}


@reproduces(*(f"prompt_distill.module.coda.{name}" for name in CODA))
def coda(fixture: Fixture) -> dict[str, Tensor]:
    return _prompts("CODAPrompt", fixture)


@reproduces(*(f"prompt_distill.module.dual.{name}" for name in DUAL))
def dual(fixture: Fixture) -> dict[str, Tensor]:
    return _prompts("DualPrompt", fixture)


@reproduces(*(f"prompt_distill.module.l2p.{name}" for name in L2P_IDS))
def l2p(fixture: Fixture) -> dict[str, Tensor]:
    return _prompts("L2P", fixture)


def _prompts(name: str, fixture: Fixture) -> dict[str, Tensor]:
    """Prefixes and losses of all recorded layers, and in training the gradients."""
    args = fixture.args
    setting = PromptSetting(
        dim=args["emb_d"],
        key_dim=args["key_d"],
        depth=LAYERS,
        heads=1,
        tasks=args["n_tasks"],
        param=tuple(args["prompt_param"]),
        key_loss="sum"
        if fixture.id.endswith("_key_sum") or str(args.get("key_loss", "")).startswith("sum")
        else "mean",
    )
    method: PromptMethod = PROMPTS[name](setting)
    load_recorded(method, {f"{key}": value for key, value in _with_pools(fixture.params, name).items()})
    method.task = args["task_id"] if name == "DualPrompt" else args["task_count"]
    layers = _layers(name, fixture)
    outputs, total = {}, torch.zeros(())
    for layer in range(layers):
        injection, loss = method.inject(layer, fixture.inputs["q"], args["train"])
        outputs[f"out.has_prompt_{layer}"] = torch.tensor(int(injection is not None))
        outputs[f"out.loss_{layer}"] = torch.zeros(()) if loss is None else loss.detach()
        total = total if loss is None else total + loss
        if injection is not None:
            for part, value in zip("kv", injection.own, strict=True):
                outputs[f"out.{part}_{layer}"] = value.detach()
                total = total + (value * fixture.inputs[f"cot_{part}_{layer}"]).sum()
    if args["train"]:
        total.backward()
        for key, parameter in method.named_parameters():
            outputs[f"grad.{key.removeprefix('pools.')}"] = parameter.grad
    return outputs


def _with_pools(params: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {f"pools.{key}": value for key, value in params.items()} if name == "CODAPrompt" else params


def _layers(name: str, fixture: Fixture) -> int:
    """How many layers were recorded: five for the penalty, two more than have prompts for shallow L2P, else six."""
    if fixture.id.endswith("_ortho"):
        return LAYERS
    return 3 if name == "L2P" and fixture.args["prompt_param"][2] <= 0 else LAYERS + 1


@reproduces("prompt_distill.module.kd_prompt")
def kd_prompt(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    module = KDPrompts(args["emb_d"], args["kd_layers"], args["kd_length"])
    module.load_state_dict(fixture.params)
    outputs: dict[str, Tensor] = {"out.token_0": module.token(args["batch"]).detach()}
    prefixes = module.prefixes(args["batch"])
    for layer in range(LAYERS + 1):
        outputs[f"out.has_token_{layer}"] = torch.tensor(int(layer == 0))
        outputs[f"out.has_prefix_{layer}"] = torch.tensor(int(layer in prefixes))
        if layer in prefixes:
            outputs[f"out.k_{layer}"], outputs[f"out.v_{layer}"] = (part.detach() for part in prefixes[layer])
    return outputs


@reproduces("prompt_distill.module.apt")
def apt(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    setting = PromptSetting(
        args["emb_d"], args["emb_d"], args["depth"], args["num_heads"], 2, (), ema=args["ema_coeff"]
    )
    method = APT(setting)
    method.load_state_dict(fixture.params)
    tokens = int(fixture.inputs["x_tokens"])
    outputs: dict[str, Tensor] = {}
    for train in (1, 0):
        for layer in range(args["depth"]):
            injection, _ = method.inject(layer, torch.zeros(args["batch"], 1), bool(train))
            for part, value in zip("kv", injection.added, strict=True):  # the original pads it to all tokens
                padded = F.pad(value.detach(), (0, 0, 0, tokens - 1)).expand(args["batch"], -1, -1, -1)
                outputs[f"out.{part}_{layer}_train{train}"] = padded
    outputs["out.merged"] = merged(method.global_merged_prompt, method.prompt_tokens, args["ema_coeff"]).detach()
    return outputs


@reproduces("prompt_distill.module.apt_head")
def apt_head(fixture: Fixture) -> dict[str, Tensor]:
    norm = nn.LayerNorm(fixture.inputs["x"].shape[1], eps=fixture.args["layernorm_eps"])
    norm.load_state_dict(fixture.under("clf_norm."))
    weights = fixture.under("last.")
    head = nn.Linear(*reversed(weights["weight"].shape))
    head.load_state_dict(weights)
    return {"out.y": classify(fixture.inputs["x"], head, norm).detach()}


@reproduces("prompt_distill.module.prompt_mapping")
def prompt_mapping(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    setting = DistillationSetting(
        args["emb_d"], args["key_d"], 1, args["n_tasks"], prompt_param=tuple(args["prompt_param"])
    )
    module = CDLPrompt(setting)
    module.project_fc_layers.load_state_dict(fixture.params)
    query = fixture.inputs["teacher_query"].requires_grad_()
    outputs: dict[str, Tensor] = {f"out.has_{LAYERS}": torch.tensor(0)}
    total = torch.zeros(())
    for layer in range(LAYERS):
        outputs[f"out.has_{layer}"] = torch.tensor(1)
        for part, value in zip("kv", module.mapped_from(layer, query), strict=True):
            outputs[f"out.{part}_{layer}"] = value.detach()
            total = total + (value * fixture.inputs[f"cot_{part}_{layer}"]).sum()
    total.backward()
    gradients = {f"grad.{key}": p.grad for key, p in module.project_fc_layers.named_parameters()}
    return outputs | gradients | {"grad.teacher_query": query.grad}


@reproduces(*(f"prompt_distill.module.gram_schmidt.{name}" for name in ("task1_2d", "task2_2d", "task2_3d")))
def orthogonal_rows(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    per_task, draws = args["pool"] // args["n_tasks"], iter(fixture.inputs["draws"])
    start = args["task_count"] * per_task
    return {"out.uu": gram_schmidt(fixture.inputs["vv"], start, start + per_task, lambda length: next(draws))}


@reproduces("prompt_distill.module.reviewkd.abf_fuse", "prompt_distill.module.reviewkd.abf_first")
def fusion_unit(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    unit = FusionUnit(args["student_dim"], args["teacher_dim"], args["fuse"])
    unit.load_state_dict(fixture.params)
    leaves = {name: inputs[name].requires_grad_() for name in ("x", "res") if name in inputs}
    out, residual = unit(leaves["x"], leaves.get("res"))
    outputs = {"out.out": out.detach(), "out.res": residual.detach()}
    if "cotangent" in inputs:
        (out * inputs["cotangent"]).sum().backward()
        outputs |= {f"grad.{name}": leaf.grad for name, leaf in leaves.items()}
        outputs |= {f"grad.{name}": parameter.grad for name, parameter in unit.named_parameters()}
    return outputs


@reproduces("prompt_distill.module.reviewkd.stack")
def fusion_stack(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    # why double: twelve norms in a row carry rounding on; the recording's own error uses up most of its tolerance, and
    # what single precision adds here differs from processor to processor
    stack = FusionStack(args["student_dim"], args["teacher_dim"], args["blocks"]).double()
    stack.load_state_dict(fixture.params)
    with torch.no_grad():
        fused = stack(list(fixture.inputs["student"].double()))
        return {
            "out.features": torch.stack(fused).float(),
            "out.loss": hierarchical_loss(fused, list(fixture.inputs["teacher"].double())).float(),
        }


# --- losses -----------------------------------------------------------------------------------------------------------


def _with_gradient(loss: Tensor, **leaves: Tensor) -> dict[str, Any]:
    loss.backward()
    return {"out.loss": loss.detach(), **{f"grad.{name}": leaf.grad for name, leaf in leaves.items()}}


@reproduces("prompt_distill.loss.kd")
def kd(fixture: Fixture) -> dict[str, Tensor]:
    student = fixture.inputs["student"].requires_grad_()
    loss = distillation_loss(student, fixture.inputs["teacher"], fixture.args["T"], fixture.args["alpha"])
    return _with_gradient(loss, student=student)


@reproduces("prompt_distill.loss.dkd")
def dkd(fixture: Fixture) -> dict[str, Tensor]:
    args, inputs = fixture.args, fixture.inputs
    student = inputs["student"].requires_grad_()
    weights = (args["alpha"], args["beta"], args["T"])
    loss = decoupled_distillation_loss(student, inputs["teacher"], inputs["target"], *weights)
    return _with_gradient(loss, student=student)


@reproduces("prompt_distill.loss.fitnets")
def fitnets(fixture: Fixture) -> dict[str, Tensor]:
    student, teacher = fixture.inputs["student"].requires_grad_(), fixture.inputs["teacher"]
    module = FitNets(DistillationSetting(student.shape[-1], teacher.shape[-1], 1, 1))
    module.project_t_s.load_state_dict(fixture.params)
    outputs = _with_gradient(module.feature_loss(student, teacher), student=student)
    return outputs | {f"grad.{name}": parameter.grad for name, parameter in module.project_t_s.named_parameters()}


@reproduces("prompt_distill.loss.ortho")
def ortho(fixture: Fixture) -> dict[str, Tensor]:
    rows = fixture.inputs["t"].requires_grad_()
    return _with_gradient(orthogonality_penalty(rows), t=rows)


@reproduces("prompt_distill.loss.masked_ce")
def masked_cross_entropy(fixture: Fixture) -> dict[str, Tensor]:
    logits, args = fixture.inputs["logits"].requires_grad_(), fixture.args
    bounds = (args["last_valid_out_dim"], args["valid_out_dim"])
    return _with_gradient(current_cross_entropy(logits, fixture.inputs["target"], *bounds), logits=logits)
