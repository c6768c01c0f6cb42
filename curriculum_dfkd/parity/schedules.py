"""Adapters: learning rates, thresholds and adversarial weights over the epochs."""

from __future__ import annotations

from common.parity import Fixture, reproduces
from curriculum_dfkd.curriculum import Pace, adversarial_weight
from curriculum_dfkd.options import DataFreeOptions, rounds_of
from curriculum_dfkd.training import cosine_rate, multistep_rate

SCRIPTS = (
    "cifar10_resnet34_resnet18", "cifar10_wrn402_wrn161", "cifar100_resnet34_resnet18", "cifar100_wrn402_wrn161",
    "cifar10_resnet34_resnet18_agg", "cifar10_resnet34_resnet18_mem",
)  # fmt: skip
MULTISTEP_EPOCHS = 200


@reproduces("cudfkd.schedule.lr")
def rates(fixture: Fixture) -> dict[str, list[float]]:
    args = fixture.args
    cosine = cosine_rate(args["lr"], args["epochs"])
    steps = multistep_rate(args["lr"], args["milestones"])
    return {
        "out.cosine": [cosine(epoch) for epoch in range(args["epochs"])],
        "out.multistep": [steps(epoch) for epoch in range(MULTISTEP_EPOCHS)],
    }


@reproduces(*(f"cudfkd.schedule.{script}" for script in SCRIPTS))
def curriculum(fixture: Fixture) -> dict[str, list]:
    args = fixture.args
    epochs = args["epochs"]
    config = DataFreeOptions(
        method="cudfkd", epochs=epochs, ep_steps=args["ep_steps"], kd_steps_interval=str(args["kd_steps"])
    )
    rounds, _, per_round = rounds_of(config)
    pace, rate = Pace(args["lambda_0"], args["alpha"]), cosine_rate(args["lr"], epochs)
    growth = args["grad_adv"] if args["curr_option"] != "none" else 0.0
    window = args["begin_fraction"], args["end_fraction"]
    starts = [epoch * rounds * per_round for epoch in range(epochs)]
    return {
        "out.adv_after_epoch": [
            adversarial_weight(args["adv"], growth, epochs, *window, epoch=epoch + 1) for epoch in range(epochs)
        ],
        "out.lr_epoch": [rate(epoch) for epoch in range(epochs)],
        "out.global_iter_epoch_start": starts,
        "out.lambda_epoch_start": [pace.at(start) for start in starts],
    }
