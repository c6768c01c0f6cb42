"""Speed of the segmentation steps, as ratios against the literal way.

    python -m benchmarks.segmentation                            # minutes on two CPU cores
    python -m benchmarks.segmentation --backbone resnet14 --crop 64 --rounds 2
    python -m benchmarks.segmentation --device cuda --backbone resnet101 --crop 512 --batch 12
    python -m benchmarks.segmentation --save                     # keeps the result for the README

Both ways run in the same process, in turns; medians. Equality of the two is a test (tests/benchmarks), not a matter of
this program. A step begins with the raw label images of its batch and ends after the optimiser. Each step is shown
twice: with our norms on both sides, and with the norms' formula left to autograd on the literal side.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.literal_segmentation import LiteralStep, literal_label_map, literal_network, literal_penalty
from benchmarks.reporting import SaveOptions, report, start
from benchmarks.timing import time_in_turns
from common.training.options import parse_config
from repro.speed import Figure, Row
from segmentation.configuration import with_preset
from segmentation.data.label_maps import positions, voc_training_map
from segmentation.network import build_network
from segmentation.options import SegmentationOptions
from segmentation.start import start_step
from segmentation.step import SegLearner
from segmentation.vdfd import Functional, SavedStep, VdfdRegularizer, compress, prototypes_of, regularised_names

OLD, NEW = list(range(16)), [16]
"""Classes of VOC 15-5s, step 1."""


@dataclass(frozen=True)
class BenchmarkOptions(SaveOptions):
    """benchmark"""

    rounds: int = 3
    """timed rounds of each pair"""
    backbone: str = "resnet26"
    """body of the network"""
    width: int = 64
    """channels of its stem"""
    crop: int = 128
    """pixels of a side of the images"""
    batch: int = 4
    """images per batch"""
    label_side: int = 512
    """pixels of a side of the label image whose mapping is timed"""
    old_steps: int = 1
    """earlier domains in VDFD's penalty"""
    kept_backbone: str = "resnet101"
    """body of the network whose memory is measured"""
    kept_crop: int = 128
    """pixels of a side of its images; what is kept grows with their area"""
    threads: int = 2
    """CPU threads"""
    device: str = "cpu"
    """cpu or cuda"""


def build_config(options: BenchmarkOptions, method: str, **changes: Any) -> SegmentationOptions:
    """Flags of a method on the benchmark's network."""
    config = dataclasses.replace(
        SegmentationOptions(), method=method, backbone=options.backbone, width=options.width, no_pretrained=True,
        task="15-5s", **changes,
    )  # fmt: skip
    return with_preset(config)


def build_steps(options: BenchmarkOptions, method: str, plain_norms: bool = False) -> tuple[SegLearner, LiteralStep]:
    """Both ways, with equal weights and modes.

    Args:
        options: the network's size.
        method: PLOP or RCIL.
        plain_norms: leave the literal networks' norms to autograd.
    """
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = build_config(options, method)
    counts = [len(OLD), len(NEW)]
    old = build_network(config, counts[:1]).to(device)
    network = build_network(config, counts).to(device)
    start_step(config, network, old.state_dict())
    learner = SegLearner(config, network, old, counts, device, iterations=10**6, lr=0.001)
    # why: an untrained network is nearly uniform, with an entropy of 1 / (16 ln 17) = 0.022; one class in two is valid
    learner.objective.thresholds = torch.tensor([0.01, 0.03], device=device).repeat(sum(counts))[: sum(counts)]
    learner.train_mode()
    networks = [literal_network(copy.deepcopy(one), plain_norms) for one in (network, old)]
    literal = LiteralStep(
        method, *networks, (counts[0], sum(counts), counts[1]),
        learner.objective.thresholds, learner.objective.cubes, 0.001,
    )  # fmt: skip
    return learner, literal


def random_images(options: BenchmarkOptions) -> tuple[Tensor, Tensor]:
    """Normalised images, and raw label images with values of VOC."""
    images = torch.randn(options.batch, 3, options.crop, options.crop)
    return images.to(options.device), torch.randint(0, 21, (options.batch, options.crop, options.crop)).byte()


def our_labels(raw: Tensor, device: str) -> Tensor:
    """Through the table of 256 entries, on the device."""
    table = torch.from_numpy(voc_training_map(NEW, OLD, "current")).to(device)
    return table[raw.to(device).int()]


def our_step(learner: SegLearner, images: Tensor, raw: Tensor) -> dict[str, Tensor]:
    """One iteration, from raw label images on."""
    return learner.step(images, our_labels(raw, str(learner.device)))


def literal_positions() -> dict[int, int]:
    """Raw value -> training label, without the labels that become background."""
    known = positions(OLD, NEW)
    return {0: 0, 255: 255, **{label: known[label] for label in NEW}}


def build_penalties(options: BenchmarkOptions) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Any]:
    """VDFD's penalty on domains both ways, for the same earlier steps, and the network."""
    torch.manual_seed(0)
    config = build_config(options, "VDFD", dataset="cityscapes_domain")
    network = build_network(config, [19]).to(options.device)
    saved = []
    for _ in range(options.old_steps):
        parameters = dict(network.named_parameters())
        names = regularised_names(network, "exact")
        factors = {n: compress(torch.randn(len(parameters[n]), 19, device=options.device) * 1e-3, 1) for n in names}
        rows = prototypes_of(network.cls[0].weight.detach().flatten(1))
        step = SavedStep(factors, torch.rand(rows.shape[1], device=options.device), rows, rows.new_zeros(19))
        with torch.no_grad():
            step.gw_star = Functional([step])(network)[0] + 0.1
        saved.append(step)
    regularizer = VdfdRegularizer(config, network, saved, iterations=10**6)
    wanted = [p for p in network.parameters() if p.requires_grad]

    def differentiate(penalty: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            value = penalty()
            torch.autograd.grad(value, wanted, allow_unused=True)
            return value.detach()

        return run

    ours = differentiate(lambda: regularizer.penalty(network))
    return (
        ours,
        differentiate(lambda: literal_penalty(network, regularizer.hypermodel, saved, config.epsilons)),
        network,
    )


def measure(options: BenchmarkOptions, rows: list[Row]) -> None:
    """Label maps, both steps, the penalty."""
    raw = torch.randint(0, 21, (1, options.label_side, options.label_side)).byte()
    known = literal_positions()
    timed(rows, f"label map, {options.label_side} x {options.label_side}", options,
          lambda: our_labels(raw, options.device), lambda: literal_label_map(raw[0], known, 0))  # fmt: skip
    images, labels = random_images(options)
    for method in ("PLOP", "RCIL"):
        for plain_norms in (False, True):
            learner, literal = build_steps(options, method, plain_norms)
            ours = partial(our_step, learner, images, labels)
            name = f"{method} step" + (", literal norms too" if plain_norms else "")
            timed(rows, name, options, ours, partial(literal, images, labels, known))
    ours, theirs, _ = build_penalties(options)
    timed(rows, f"VDFD penalty, {options.old_steps} domains", options, ours, theirs)


def measure_memory(options: BenchmarkOptions) -> list[Figure]:
    """What a training forward pass keeps for the backward pass, with norms in place and without."""
    images, size = torch.randn(2, 3, options.kept_crop, options.kept_crop), f"{options.kept_crop} x {options.kept_crop}"
    found = []
    for norm, name in (("iabn", "in-place norms"), ("abn", "`--norm_act abn`")):
        config = build_config(dataclasses.replace(options, backbone=options.kept_backbone), "PLOP", norm_act=norm)
        kept = kept_bytes(build_network(config, [len(OLD)]).train(), images) / len(images)
        what = f"kept for the backward pass, {options.kept_backbone}, float32, an image of {size}, {name}, MB"
        found.append(Figure(what, kept / 1e6))
    return found


def kept_bytes(network: torch.nn.Module, images: Tensor) -> int:
    """Bytes of the storages that autograd keeps, each once; parameters, which are there anyway, are left out."""
    known = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = network(images)  # noqa: F841, why: what is kept lives as long as this
    return sum(seen.values())


def timed(
    rows: list[Row], what: str, options: BenchmarkOptions, ours: Callable[[], Any], literal: Callable[[], Any]
) -> None:
    """One row."""

    def waited(action: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> None:
            action()
            if options.device == "cuda":
                torch.cuda.synchronize()

        return run

    rows.append(Row(what, *time_in_turns(waited(ours), waited(literal), rounds=options.rounds)))


def main(argv: list[str] | None = None) -> None:
    """Measure everything, print one table, keep it if asked."""
    options = parse_config(BenchmarkOptions, argv, __doc__.splitlines()[0])
    torch.set_num_threads(options.threads)
    begun, rows = start(), []
    measure(options, rows)
    report(
        "seg", "segmentation", options, begun, rows, device=options.device,
        title=f"segmentation, {options.backbone}, crop {options.crop}, batch {options.batch}, float32",
        method=f"Median wall seconds of {options.rounds} rounds, in turns", figures=measure_memory(options),
    )  # fmt: skip


if __name__ == "__main__":
    main()
