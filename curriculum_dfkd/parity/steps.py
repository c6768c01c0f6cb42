"""Adapters: single steps of every method, and whole short runs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from common.data.images import ImageSet
from common.parity import Fixture, reproduces
from common.seeded_fill import fill_seeded
from common.training.options import parse_config
from curriculum_dfkd.data import DATASETS, loader_for
from curriculum_dfkd.evaluation import Evaluator
from curriculum_dfkd.images import draw_jitter
from curriculum_dfkd.learner import StudentReport
from curriculum_dfkd.networks import build_network
from curriculum_dfkd.objectives import CrossEntropy, RealDataDistillation
from curriculum_dfkd.options import DataFreeOptions, check, translate
from curriculum_dfkd.parity.building import (
    CPU,
    build_student,
    build_teacher,
    built_loop,
    built_supervised,
    filled_generator,
    flags,
    gradients,
    networks_of,
    numbered,
    state_after,
    synthesiser_of,
)
from curriculum_dfkd.parity.networks import statistics
from curriculum_dfkd.supervised import SupervisedTraining
from curriculum_dfkd.synthesis.base import Networks, Report
from curriculum_dfkd.synthesis.cmi import ContrastiveInversion, Inspector, uses_stage_inputs
from curriculum_dfkd.synthesis.contrast import PADDING, ContrastiveHead, FeatureBank, Places, Views
from curriculum_dfkd.synthesis.deepinversion import DeepInversion
from curriculum_dfkd.synthesis.generative import BETAS
from curriculum_dfkd.synthesis.pool import ImagePool

FIRST = 2
"""Images recorded of a batch."""


@reproduces("cudfkd.step.cudfkd_synth", "cudfkd.step.cudfkd_synth_noadv", "cudfkd.step.cudfkd_synth_js")
def curriculum_synthesis(fixture: Fixture) -> dict[str, Tensor]:
    options = flags(fixture, "cudfkd", curr_option="curr_log")
    networks = networks_of(fixture, options, fixture.inputs["z"])
    synthesiser = synthesiser_of(fixture, options, networks)
    outputs: dict[str, Tensor] = {}
    for step in range(len(fixture.inputs["z"])):
        report = synthesiser.step()
        outputs |= numbered(report.terms, step, ("ent", "oh", "act", "bn", "adv", "loss"))
        outputs[f"out.t_out_{step}"] = report.logits
        if step == 0:
            outputs |= {"out.images_0": report.images[:FIRST].clone()}
            outputs |= gradients("generator", synthesiser.generator, sums_of_large=True)
            outputs |= state_after("generator", synthesiser.generator)
    return outputs | {"out.student_running_mean_sum": statistics(networks.student, "running_mean")}


@reproduces(*(f"cudfkd.step.cudfkd_kd_{kind}" for kind in ("kl", "l1", "none", "hard", "soft")))
def curriculum_distillation(fixture: Fixture) -> dict[str, Any]:
    args = fixture.args
    options = check(flags(fixture, "cudfkd", ep_steps=args["steps"], kd_steps_interval=str(args["steps"]), oh=1.0))
    networks = networks_of(fixture, options, fixture.inputs["z"])
    outputs: dict[str, Any] = {}
    with built_loop(options, networks, synthesiser_of(fixture, options, networks)) as loop:
        pace = loop.objective.pace
        pace.iteration = args["global_iter_start"]
        for step in range(args["steps"]):
            threshold = pace.threshold()
            report = loop.student_step()
            outputs |= {f"out.lambda_{step}": threshold} | _student_outputs(report, step, "loss")
            if "v" in report.terms:
                outputs[f"out.v_{step}"] = report.terms["v"]
        outputs |= {"out.avg_difficulty": report.terms["difficulty"], "out.global_iter": pace.iteration}
    return outputs | gradients("student", networks.student) | state_after("student", networks.student)


@reproduces(*(f"cudfkd.step.{name}" for name in ("dafl", "zskt", "dfq", "dfad", "dafl_cmi", "dfq_cmi")))
def generative(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    betas = next(name for name, pair in BETAS.items() if list(pair) == args["betas"])
    without_betas = replace(fixture, args={name: value for name, value in args.items() if name != "betas"})
    options = check(flags(without_betas, args["method"], betas=betas, ep_steps=args["kd_steps"]))
    networks = networks_of(fixture, options, fixture.inputs["z_synth"], fixture.inputs["z_kd"])
    synthesiser = synthesiser_of(fixture, options, networks)
    outputs: dict[str, Tensor] = {}
    with built_loop(options, networks, synthesiser) as loop:
        for step in range(synthesiser.steps):
            report = synthesiser.step()
            outputs |= numbered(report.terms, step, ("balance", "oh", "act", "bn", "adv", "loss"))
            outputs[f"out.t_logits_synth_{step}"] = report.logits
        outputs |= gradients("generator", synthesiser.generator, sums_of_large=True)
        outputs |= state_after("generator", synthesiser.generator)
        for step in range(loop.student_steps):
            outputs |= _student_outputs(loop.student_step(), step, "kd_loss")
    return outputs | state_after("student", networks.student)


def _student_outputs(report: StudentReport, step: int, name: str) -> dict[str, Tensor]:
    outputs = {
        f"out.{name}_{step}": report.terms["loss"],
        f"out.s_logits_{step}": report.student,
        f"out.t_logits_{step}": report.teacher,
    }
    return outputs | ({"out.images_0": report.images[:FIRST]} if step == 0 else {})


def _pool(networks: Networks, args: dict[str, Any]) -> ImagePool:
    shape = networks.channels, networks.img_size, networks.img_size
    return ImagePool(DATASETS[args["normalise"]].transform, args["batch"], CPU, shape)


@reproduces("cudfkd.step.deepinv")
def deep_inversion(fixture: Fixture) -> dict[str, Tensor]:
    args = fixture.args
    networks = networks_of(fixture, flags(fixture, "deepinv"), img_size=fixture.inputs["x0"].shape[2])
    weights = {name: args[name] for name in ("bn", "oh", "adv", "tv", "l2")}
    synthesiser = DeepInversion(
        networks, _pool(networks, args), lr=args["lr_g"], steps=args["iterations"], batch=args["batch"],
        weights=weights, all_terms=True,
    )
    synthesiser.begin()
    synthesiser.restart(fixture.inputs["x0"], fixture.inputs["targets"])
    outputs: dict[str, Tensor] = {}
    with _recorded_jitter(fixture):
        for step in range(synthesiser.steps):
            report = synthesiser.step()
            outputs |= numbered(report.terms, step, ("bn", "oh", "adv", "tv", "l2", "loss"))
    synthesiser.finish()
    stored = synthesiser.pool.images[0].permute(1, 2, 0)
    return outputs | {"out.synthetic": synthesiser.newest, "out.pool_u8_first": stored}


@contextlib.contextmanager
def _recorded_jitter(fixture: Fixture) -> Iterator[None]:
    """Python's generator at the recorded seed; the recorded jitters must be what it draws."""
    state, seed = random.getstate(), fixture.args["python_random_seed"]
    random.seed(seed)
    sides = fixture.inputs["x0"].shape[2:]
    for rows, columns, flip in fixture.inputs["jitter"].tolist():
        if draw_jitter(*sides) != (rows, columns, bool(flip)):
            raise ValueError("the recorded jitters are not those of the recorded seed")
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@reproduces("cudfkd.step.cmi", "cudfkd.step.cmi_nobank")
def contrastive_inversion(fixture: Fixture) -> dict[str, Any]:
    args, inputs = fixture.args, fixture.inputs
    options = flags(fixture, "cmi", cr=args["cr"], cr_T=args["cr_T"])
    networks = networks_of(fixture, options, inputs["z0"][None])
    width = args["feature_dim"]
    head = ContrastiveHead(width, args["head_dim"])
    fill_seeded(fixture, head, args["head_seed"])
    bank = FeatureBank(2 * width, args["bank_max"], CPU)
    rows = inputs.get("bank", torch.zeros(0, 2 * width))
    bank.load_state_dict({"rows": rows, "pointer": len(rows) % args["bank_max"], "additions": len(rows)})
    synthesiser = ContrastiveInversion(
        networks, filled_generator(fixture, options), _pool(networks, args), bank, head,
        Inspector(networks.teacher, uses_stage_inputs(args["teacher"])), lr=args["lr_g"], steps=args["iterations"],
        batch=args["batch"], weights={name: args[name] for name in ("cr", "bn", "oh", "adv")},
        temperature=args["cr_T"], negatives=args["n_neg"],
    )  # fmt: skip
    synthesiser.begin()
    fill_seeded(fixture, synthesiser.generator, args["generator_seed"])
    synthesiser.restart(inputs["z0"], inputs["targets"])
    synthesiser.draw_views = lambda count, size, device: recorded_views(count)
    drawn = iter(inputs.get("bank_index", torch.zeros(args["iterations"], 0, dtype=torch.int64)))
    bank.draw = lambda count: next(drawn)
    outputs: dict[str, Any] = {}
    for step in range(synthesiser.steps):
        report = synthesiser.step()
        outputs |= numbered(report.terms, step, ("bn", "oh", "adv", "cr", "loss"))
        outputs[f"out.local_feature_{step}"] = report.extra["local"]
        outputs[f"out.global_feature_{step}"] = report.extra["wide"]
    place = bank.pointer
    synthesiser.finish()
    outputs |= {"out.best_images": synthesiser.newest[:FIRST], "out.bank_row_added": bank.rows[place],
                "out.ptr": bank.pointer}
    for prefix, module in (("head", head), ("generator", synthesiser.generator)):
        outputs |= gradients(prefix, module) | state_after(prefix, module)
    return outputs


def recorded_views(count: int) -> Views:
    """The fixed views of the recordings.

    Wide: odd samples mirrored, then rows 2:34 and columns 5:37 of the padded image. Local: rows 4:26 and columns 3:29
    stretched to 32 pixels, nothing mirrored.
    """
    odd = (torch.arange(count) % 2 == 1)[:, None]
    steps, fractions = torch.arange(32, dtype=torch.float32), torch.linspace(0, 1, 32)
    columns = (5 - PADDING + steps)[None]
    wide = Places((2 - PADDING + steps).expand(count, -1), torch.where(odd, 31 - columns, columns))
    local = Places((4 + 21 * fractions).expand(count, -1), (3 + 25 * fractions).expand(count, -1))
    return Views(wide, local)


@reproduces("cudfkd.step.train_scratch")
def scratch(fixture: Fixture) -> dict[str, Tensor]:
    model = build_network(fixture.args["model"], fixture.args["num_classes"])
    fill_seeded(fixture, model, fixture.args["model_seed"])
    with built_supervised(fixture, model, CrossEntropy(), None) as training:
        _recorded_steps(training, fixture)
    return gradients("model", model) | state_after("model", model)


@reproduces("cudfkd.step.vanilla_kd", "cudfkd.step.vanilla_kd_soft")
def vanilla(fixture: Fixture) -> dict[str, Tensor]:
    args, student = fixture.args, build_student(fixture)
    objective = RealDataDistillation(args["T"], args["alpha"], args["beta"], args["curr_option"], args["lambda_0"])
    with built_supervised(fixture, student, objective, build_teacher(fixture)) as training:
        training.run.step = args["epoch"] * args["batches_per_epoch"]
        _recorded_steps(training, fixture)
    return gradients("student", student) | state_after("student", student)


def _recorded_steps(training: SupervisedTraining, fixture: Fixture) -> None:
    for images, target in zip(fixture.inputs["x"], fixture.inputs["y"], strict=True):
        training.train_step(images, target)


@reproduces("cudfkd.loop.cudfkd")
def whole_run(fixture: Fixture) -> dict[str, Any]:
    args = fixture.args
    options = check(parse_config(DataFreeOptions, translate(args["flags"])))
    options = replace(options, nz=args["nz"], ngf=args["ngf"])
    networks = networks_of(fixture, options, fixture.inputs["z"])
    synthesiser = synthesiser_of(fixture, options, networks)
    evaluator = Evaluator(_validation(fixture, options.batch_size), networks.precision, CPU)
    made: list[tuple[float, dict[str, Tensor]]] = []
    learned: list[tuple[float, float, dict[str, Tensor]]] = []
    weights: list[float] = []
    with built_loop(options, networks, synthesiser, evaluator) as loop:
        synthesis_step, student_step = synthesiser.step, loop.student_step

        def watched_synthesis() -> Report:
            weight, report = synthesiser.weights["adv"], synthesis_step()
            made.append((weight, report.terms))
            return report

        def watched_student() -> StudentReport:
            threshold, rate = loop.objective.pace.threshold(), loop.optimizer.param_groups[0]["lr"]
            report = student_step()
            learned.append((threshold, rate, report.terms))
            return report

        synthesiser.step, loop.student_step = watched_synthesis, watched_student
        loop.on_epoch = lambda _: weights.append(synthesiser.weights["adv"])
        loop.fit()
        rates = [loop.rate(epoch) for epoch in range(loop.epochs)]
    outputs: dict[str, Any] = {
        f"out.g_{name}": torch.stack([terms[name] for _, terms in made]) for name in ("ent", "oh", "bn", "adv", "loss")
    }
    outputs |= {
        "out.g_w_adv": [weight for weight, _ in made],
        "out.kd_loss": torch.stack([terms["loss"] for _, _, terms in learned]),
        "out.kd_v": torch.stack([terms["v"] for _, _, terms in learned]),
        "out.kd_lambda": [threshold for threshold, _, _ in learned],
        "out.kd_lr": [rate for _, rate, _ in learned],
        "out.epoch_adv_after": weights,
        "out.epoch_lr": rates,
    }
    outputs |= {f"out.epoch_{name}": loop.history[name] for name in ("acc1", "acc5", "ce")}
    return outputs | state_after("student", networks.student)


def _validation(fixture: Fixture, batch_size: int) -> Any:
    facts = DATASETS[fixture.args["dataset"]]
    images = fixture.inputs["val_x"].permute(0, 3, 1, 2).contiguous()
    test = ImageSet(facts.name, "test", images, fixture.inputs["val_y"], [str(n) for n in range(facts.classes)])
    return loader_for(test, facts.transform, train=False, batch_size=batch_size, device=CPU, seed=0)
