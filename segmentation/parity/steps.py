"""Adapters: whole training steps, pseudo-labels and the rarer options, all through SegLearner."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.parity import Fixture, disturbed, reproduces
from common.training.options import parse_config
from segmentation.configuration import with_preset
from segmentation.network import IncrementalSegmentationModule, copies_balanced_bias
from segmentation.options import SegmentationOptions
from segmentation.parity.building import (
    described_body,
    described_head,
    described_stride,
    filled_state,
    preset_mixes,
)
from segmentation.start import start_step
from segmentation.step import SegLearner
from segmentation.tasks import CLASSES, DOMAIN_DATASETS

_CPU = torch.device("cpu")
_COMPONENTS = ("ce", "lkd", "lde", "lreg", "pod", "entmin")


def stated_config(args: dict[str, Any], **more: Any) -> SegmentationOptions:
    """The recording's flags with the method's preset applied."""
    config = parse_config(SegmentationOptions, args["flags"].split())
    if "pod_options" in args:
        more["pod_options"] = args["pod_options"]
    return with_preset(dataclasses.replace(config, **more))


def recorded_batches(fixture: Fixture, images: str) -> list[tuple[Tensor, Tensor]]:
    """Images and labels, batch by batch."""
    count = sum(name.startswith("labels") for name in fixture.inputs)
    return [(fixture.inputs[f"{images}{k}"], fixture.inputs[f"labels{k}"]) for k in range(count)]


def run_steps(
    learner: SegLearner, batches: list[tuple[Tensor, Tensor]], before: Callable[[int], None] | None = None
) -> dict[str, Tensor]:
    """Thresholds, then one step per batch; what the original logs."""
    learner.begin(batches)
    learner.train_mode()
    seen: list[Tensor] = []
    learner.objective.criterion = recording(learner.objective.criterion, seen)
    history = []
    for number, (images, labels) in enumerate(batches):
        if before is not None:
            before(number)
        history.append(learner.step(images, labels))
    terms = {name: torch.stack([one[name].double() for one in history]) for name in history[0]}
    outputs = {
        "out.loss_total": terms["loss"],
        "out.components": torch.stack([terms[name] for name in _COMPONENTS], dim=1),
        "out.pod": terms["pod"],
        "out.epoch_class_loss": terms["ce"].mean(),
        "out.epoch_reg_loss": sum(terms[name] for name in ("lkd", "lde", "lreg", "icarl")).mean(),
    }
    if learner.objective.thresholds is not None:
        outputs["out.thresholds"] = learner.objective.thresholds
    for number, labels in enumerate(seen):
        outputs[f"out.criterion_labels{number}"] = outputs[f"out.train_labels{number}"] = labels.to(torch.uint8)
    return outputs


def recording(criterion: Callable[..., Tensor], seen: list[Tensor]) -> Callable[..., Tensor]:
    """The criterion, which also keeps the labels that reach it."""

    @functools.wraps(criterion)
    def recorded(logits: Tensor, labels: Tensor, **keywords: Any) -> Tensor:
        seen.append(labels.clone())
        return criterion(logits, labels, **keywords)

    return recorded


def largest_uncertainty(learner: SegLearner) -> Tensor:
    """What the original returns beside the thresholds: ln of the class count."""
    return torch.tensor(float(learner.objective.classes)).log()


# --- a linear network on recorded logits ------------------------------------------------------------------------------


class RecordedLogits(nn.Module):
    """An old network whose logits are its input."""

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The images as logits."""
        return images, {}


class LinearNetwork(nn.Module):
    """A network that is one 1 x 1 convolution of its input."""

    def __init__(self, params: dict[str, Tensor]) -> None:
        super().__init__()
        outputs, inputs = params["conv.weight"].shape[:2]
        self.conv = nn.Conv2d(inputs, outputs, 1)
        self.load_state_dict(params)
        self.body, self.head, self.cls, self.scalar = nn.Identity(), nn.Identity(), nn.ModuleList([self.conv]), None

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Logits."""
        return self.conv(images), {}


_PSEUDO_IDS = [
    f"seg.pseudo.{name}"
    for name in (
        "entropy", "entropy_min_factor", "entropy_bins", "entropy_ce_on_pseudo", "entropy_soft_certain",
        "entropy_soft_uncertain", "entropy_corrected", "entropy_removed", "median", "naive", "threshold", "confidence",
    )
]  # fmt: skip
_TRAINER_IDS = [
    f"seg.trainer.{name}"
    for name in (
        "mib", "rcil_like", "kd_mask_old", "kd_mask_new", "temperature_old", "temperature_new", "ce_on_new",
        "entropy_min", "kd_scheduling", "sample_weights_new", "exkd_sum", "exkd_gt",
    )
]  # fmt: skip


@reproduces(*_PSEUDO_IDS, *_TRAINER_IDS)
def linear_trainer(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    config = stated_config(args)
    network = LinearNetwork(fixture.params)
    learner = SegLearner(
        config, network, RecordedLogits(), args["classes"], _CPU, iterations=args["max_iters"], lr=args["lr"]
    )
    outputs = run_steps(learner, recorded_batches(fixture, "logits_old"))
    if config.pseudo == "entropy":
        outputs["out.max_entropy"] = largest_uncertainty(learner)
    not_recorded = ("out.components", "out.pod", "out.train_labels")
    outputs = {name: value for name, value in outputs.items() if not name.startswith(not_recorded)}
    after = {f"after.conv.{name}": value for name, value in network.conv.state_dict().items()}
    return outputs | after


# --- small networks ---------------------------------------------------------------------------------------------------


def described_network(args: dict[str, Any], config: Any, counts: list[int]) -> IncrementalSegmentationModule:
    """The small network of the recording; RCIL's norms have slope 1 there, whatever --norm_act says."""
    rcil = args["body"].startswith("RCIL")
    slope = 1.0 if rcil else 0.01
    body = described_body(args["body"], slope)
    head = described_head(args["head"], slope, rcil, described_stride(args["body"]))
    sizes = [CLASSES[config.dataset]] if config.dataset in DOMAIN_DATASETS else counts
    return IncrementalSegmentationModule(body, head, head.red_bn.num_features, sizes)


def fill_network(network: IncrementalSegmentationModule, fixture: Fixture) -> None:
    """By the recording's rule; the classifiers scaled as it says."""
    network.load_state_dict(filled_state(network.state_dict(), fixture.args["init"]))
    scale = fixture.args.get("cls_scale", 1.0)
    with torch.no_grad():
        for parameter in network.cls.parameters():
            parameter.mul_(scale)


def disturb_network(network: nn.Module, size: float) -> None:
    """For the self-test of the comparison: noise on all weights."""
    if size:
        state = {k: disturbed(v, size, seed=n) for n, (k, v) in enumerate(network.state_dict().items())}
        network.load_state_dict(state)


def small_learner(fixture: Fixture, trainer_state: dict[str, Any] | None = None) -> SegLearner:
    """The learner at the recording's step."""
    args = fixture.args
    rcil = args["body"].startswith("RCIL")
    config = stated_config(args, codebase="rcil" if rcil else None)
    network = described_network(args, config, args["classes"])
    fill_network(network, fixture)
    old_network = None
    if args["step"] > 0:
        old_network = described_network(args, config, args["classes"][:-1])
        fill_network(old_network, fixture)
        if rcil:
            start_step(config, network, old_network.state_dict())
        elif config.init_balanced:
            network.start_balanced(copies_balanced_bias(config))
    disturb_network(network, fixture.disturbance)
    return SegLearner(
        config, network, old_network, args["classes"], _CPU, iterations=args["max_iters"], lr=args["lr"],
        trainer_state=trainer_state,
    )  # fmt: skip


_STEP_IDS = [
    f"seg.step.{name}"
    for name in (
        "ft_voc0", "ft_domain0", "plop_voc1", "plop_voc3", "mib_voc1", "lwf_voc1", "ilt_voc1", "lwfmc_voc1",
        "mib_domain1", "plop_domain1", "plop_ade1", "ewc_voc0", "pi_voc0", "rw_voc0",
    )
]  # fmt: skip
_KEPT = ("out.thresholds", "out.loss_total", "out.components", "out.epoch_class_loss", "out.epoch_reg_loss")


@reproduces(*_STEP_IDS, *(f"seg.step.rcil_{name}" for name in ("voc0", "voc1", "domain1")))
def whole_step(fixture: Fixture) -> dict[str, Any]:
    return outputs_of(fixture, small_learner(fixture))


def _second_step(fixture: Fixture) -> dict[str, Any]:
    """With the regulariser's state that the first step left."""
    first = fixture.base
    assert first is not None
    learner = small_learner(first)
    run_steps(learner, recorded_batches(first, "images"))
    return outputs_of(fixture, small_learner(fixture, learner.trainer_state()))


for _name in ("ewc", "pi", "rw"):
    reproduces(f"seg.step.{_name}_voc1", base=f"seg.step.{_name}_voc0")(_second_step)


def outputs_of(fixture: Fixture, learner: SegLearner) -> dict[str, Any]:
    """Run the recorded batches; what the recording holds of the log and of the weights."""
    args, network = fixture.args, learner.network
    start = {name: value.detach().clone() for name, value in network.named_parameters()}
    outputs = run_steps(learner, recorded_batches(fixture, "images"), recorded_draws(fixture, learner))
    kept = {name: value for name, value in outputs.items() if name in _KEPT}
    if learner.config.pseudo:
        kept |= {name: value for name, value in outputs.items() if name.startswith("out.train_labels")}
        kept |= {"out.max_entropy": largest_uncertainty(learner)}
    if "RCIL" not in args["body"]:
        kept["out.lr_after"] = [group["lr"] for group in learner.optimizer.param_groups]
        if learner.config.pod and learner.old_network is not None:
            kept["out.pod"] = outputs["out.pod"]
    named = dict(network.named_parameters())
    changes = [(value.double() - start[name].double()).norm() for name, value in named.items()]
    kept["out.delta_l2"] = torch.stack(changes).detach()
    kept["out.after_sum"] = torch.stack([value.detach().double().sum() for value in named.values()])
    return kept | recorded_weights(network, args["body"]) | {"args.param_names": list(named)}


def recorded_weights(network: nn.Module, body: str) -> dict[str, Tensor]:
    """The entries that the recordings keep: some norms, the end of the head, the classifiers."""
    prefixes = ["body.mod1.bn1.", "head.pool_red_conv.", "head.red_bn.", "cls."]
    if "RCIL" in body:
        prefixes += [f"body.mod2.block1.convs.{name}." for name in ("bn2", "bn2_new")]
        prefixes += ["body.mod2.block1.convs.conv2.bias"]
    else:
        prefixes += ["body.mod5.block1.convs.bn2.", "head.global_pooling_bn."]
    state = network.state_dict().items()
    return {f"after.{key}": value for key, value in state if key.startswith(tuple(prefixes))}


def recorded_draws(fixture: Fixture, learner: SegLearner) -> Callable[[int], None] | None:
    """RCIL: hands the recorded random numbers of an iteration to the mixes; the old network needs none."""
    numbers = sorted((int(name[1:]), name) for name in fixture.inputs if name.startswith("r") and name[1:].isdigit())
    draws = [fixture.inputs[name] for _, name in numbers]
    if not draws:
        return None
    forwards = 1 if learner.old_network is None else 2
    iterations = sum(name.startswith("labels") for name in fixture.inputs)
    size = len(draws) // (forwards * iterations)

    def hand_over(iteration: int) -> None:
        begin = (iteration * forwards + forwards - 1) * size
        preset_mixes(learner.network, draws[begin : begin + size])

    return hand_over
