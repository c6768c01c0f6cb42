"""Adapters: image utilities, the bank, augmentation, metrics."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from common.data.grids import pack_images, quantise
from common.parity import Fixture, reproduces
from curriculum_dfkd.data import DATASETS
from curriculum_dfkd.images import Normaliser, draw_jitter, jitter
from curriculum_dfkd.metrics import ClassificationMeter, FidelityMeter
from curriculum_dfkd.synthesis.contrast import FeatureBank, box_places, crop_places, resample


def normaliser_of(dataset: str) -> Normaliser:
    spec = DATASETS[dataset].transform
    return Normaliser(spec.mean, spec.std)


@reproduces("cudfkd.util.normalize")
def normalisation(fixture: Fixture) -> dict[str, Tensor]:
    outputs = {}
    for dataset in ("cifar10", "cifar100"):
        normalise = normaliser_of(dataset)
        outputs |= {f"out.{dataset}": normalise(fixture.inputs["x"])}
        outputs |= {f"out.{dataset}_reverse": normalise.reverse(fixture.inputs["x"])}
    return outputs


@reproduces("cudfkd.util.clip")
def clip(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.x": Normaliser(fixture.args["mean"], fixture.args["std"]).clip(fixture.inputs["x"])}


@reproduces("cudfkd.util.pool_quantise")
def storage(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.u8": quantise(fixture.inputs["x"]).permute(0, 2, 3, 1)}


@reproduces("cudfkd.util.pack_images")
def grid(fixture: Fixture) -> dict[str, Tensor]:
    return {"out.x": pack_images(fixture.inputs["x"])}


@reproduces("cudfkd.util.jitter_flip")
def jittered(fixture: Fixture) -> dict[str, Tensor]:
    images, outputs = fixture.inputs["x"], {}
    for number, (rows, columns, flip) in enumerate(fixture.inputs["jitter"].tolist()):
        state = random.getstate()
        random.seed(fixture.args["seeds"][number])
        drawn = draw_jitter(*images.shape[2:])
        random.setstate(state)
        if drawn != (rows, columns, bool(flip)):
            raise ValueError(f"seed {fixture.args['seeds'][number]} gives {drawn}, recorded {rows, columns, flip}")
        outputs[f"out.x_{number}"] = jitter(images, rows, columns, bool(flip))
    return outputs


@reproduces("cudfkd.membank.policy")
def bank(fixture: Fixture) -> dict[str, object]:
    additions = fixture.inputs["feats"]
    ring = FeatureBank(additions.shape[2], fixture.args["max_size"], torch.device("cpu"))
    outputs: dict[str, object] = {}
    state = random.getstate()
    random.seed(fixture.args["python_random_seed"])
    for number in range(len(additions) + 1):
        indices = ring.draw(fixture.args["k"])
        outputs |= {f"out.index_{number}": indices, f"out.data_{number}": ring.read(indices)}
        if number < len(additions):
            ring.add(additions[number])
    random.setstate(state)
    return outputs | {"out.ptr": ring.pointer, "out.n_updates": ring.additions}


@reproduces("cudfkd.aug.cmi_views")
def views(fixture: Fixture) -> dict[str, Tensor]:
    inputs, normalise = fixture.inputs, normaliser_of("cifar10")
    size = inputs["x"].shape[2]
    left, top = inputs["crop_xy"].T
    wide = crop_places(left, top, inputs["flip_global"], size)
    local = box_places(inputs["box"], inputs["flip_local"], size)
    return {
        "out.global": normalise(resample(inputs["x"], wide)), "out.local": normalise(resample(inputs["x"], local)),
    }


@reproduces("cudfkd.metric.all")
def metrics(fixture: Fixture) -> dict[str, float]:
    meter, fidelity = ClassificationMeter(), FidelityMeter()
    batches = (fixture.inputs[name] for name in ("student_logits", "teacher_logits", "targets"))
    for student, teacher, target in zip(*batches, strict=True):
        meter.add(student, target)
        fidelity.add(student, teacher)
    accuracy, copied = meter.values(), fidelity.values()
    return {
        "out.acc1": accuracy["acc1"], "out.acc": accuracy["acc1"], "out.acc5": accuracy["acc5"],
        "out.ce": accuracy["ce"], "out.kl": copied["kl"], "out.agreement": copied["agreement"],
        "out.prob_loyalty": copied["loyalty"],
    }
