"""Adapters: whole steps of the original ABD and its baselines."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from common.backbones.generators_dfcil import cifar_generator
from common.parity import Fixture, reproduces
from rfd.inversion import InversionRecipe, Replay
from rfd.learning.fixed import AlwaysBeDreaming, DeepInversionReplay, FineTuning, LwF, LwFMC, LwFSynthetic
from rfd.parity.building import StatedTasks, described_abd_network, flattened, summary, temporary_run
from rfd.parity.losses import norms
from rfd.recipe import Recipe

_SHARED = "rfd.abd.step.shared_weights"
_METHODS: dict[str, type[FineTuning]] = {
    "task1": AlwaysBeDreaming, "abd": AlwaysBeDreaming, "deepinv": DeepInversionReplay, "lwf": LwF, "lwf_mc": LwFMC,
    "lwf_synthetic": LwFSynthetic,
}  # fmt: skip


@reproduces(_SHARED)
def shared_weights(fixture: Fixture) -> dict[str, object]:
    """Nothing was computed in this recording; what can be compared is that the weights fit the network it describes."""
    for prefix in ("model.", "old."):
        state = fixture.under(prefix)
        described_abd_network(fixture.args["backbone"], len(state["last.weight"])).load_state_dict(state)
    return {"args.out_dim": len(fixture.params["model.last.weight"]), "args.batch_size": len(fixture.inputs["x"])}


@reproduces(*(f"rfd.abd.step.{name}" for name in _METHODS), derive=flattened, base=_SHARED)
def step(fixture: Fixture) -> dict[str, object]:
    args, base = fixture.args, fixture.base
    assert base is not None
    name = fixture.id.rpartition(".")[2]
    task = 1 if name == "task1" else 2
    inputs = fixture.inputs if task == 1 else {**base.inputs, **fixture.inputs}
    sizes = [args["n_new"], 1] if task == 1 else [args["n_old"], args["n_new"]]
    recipe = Recipe(
        epochs=1, base_lr=args["lr"], momentum=args["momentum"], weight_decay=args["weight_decay"], milestones=(),
        mu=args["mu"], temperature=args["T"], inversion=InversionRecipe(iterations=0),
    )  # fmt: skip
    network = described_abd_network(args["backbone"], args["out_dim"])
    network.load_state_dict(base.under("model."))
    with temporary_run() as (run, precision):
        learner = _METHODS[name](
            recipe, network, StatedTasks(sizes), run, precision,
            make_network=lambda: network, make_generator=lambda: cifar_generator(4, 8), batch_size=4,
        )  # fmt: skip
        replay = None
        if task == 2:
            teacher = copy.deepcopy(network)
            teacher.load_state_dict(base.under("old."))
            learner.take_teacher(teacher, 1)
        learner.start_task(task)
        learner.begin_epoch()
        if learner.needs_replay:
            assert learner.inversion is not None
            with torch.no_grad():
                replay = Replay(inputs["x_syn"], learner.inversion.logits_of(inputs["x_syn"]), inputs["y_syn"])
        logits = _training_logits(learner, inputs["x"], replay)
        terms = learner.train_step(inputs["x"], inputs["y"], replay)
        parameters, state = dict(network.named_parameters()), network.state_dict()
        selected = args["selected_after"]
        return {
            "out.total": terms["loss"],
            "out.loss_class": terms["class"],
            "out.loss_kd": terms.get("kd", torch.zeros(())),
            "out.logits": logits,
            "out.grad_norms": norms([parameter.grad for parameter in parameters.values()]),
            "out.after_summary": summary(state),
            **{f"grad.{key}": parameters[key].grad for key in selected if key in parameters},
            **{f"after.{key}": state[key] for key in selected},
        }


def _training_logits(learner: FineTuning, images: Tensor, replay: Replay | None) -> Tensor:
    """What the step's forward pass gives, on a copy; ABD uses all outputs, the others those of seen classes."""
    bystander = copy.deepcopy(learner.network).train()
    everything = images if replay is None else torch.cat([images, replay.images])
    with torch.no_grad():
        logits = bystander(everything)
    return logits if isinstance(learner, AlwaysBeDreaming) else logits[:, : learner.seen]
