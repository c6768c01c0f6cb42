"""From a step fixture's arguments to the objects that training uses."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from adversarial_dfkd.evaluation import TestImages
from adversarial_dfkd.learner import AdversarialDistillation
from adversarial_dfkd.networks import build_memory_generator, build_novel_generator
from adversarial_dfkd.options import LRAOptions
from adversarial_dfkd.parity.networks import NETWORKS
from adversarial_dfkd.replay import GenerativeReplay, MemoryBank
from common.parity import Fixture
from common.seeded_fill import fill_seeded
from common.training.precision import Precision
from common.training.run import Run

CPU = torch.device("cpu")
STEP_LIMIT = 96
"""Entries up to which a tensor was recorded in full."""

GRADIENTS = {"none": "detached", "detached (as released)": "detached", "second_order": "second_order"}
"""Recorded name of the meta gradient -> ours."""


class RecordedNoise:
    """Hands out recorded noise, draw by draw, in place of the generator."""

    def __init__(self, *recorded: Tensor) -> None:
        self.draws = list(recorded)
        self.used = 0

    def __call__(self, count: int) -> Tensor:
        drawn = self.draws[self.used]
        if len(drawn) != count:
            raise ValueError(f"draw {self.used} was recorded with {len(drawn)} rows, {count} are asked for")
        self.used += 1
        return drawn.clone()


def in_recorded_format(fixture: Fixture, value: Any) -> Any:
    """A tensor or module in the number format of the recording."""
    return value.double() if fixture.args.get("dtype") == "float64" else value


def named_network(fixture: Fixture, part: str) -> nn.Module:
    """Student or teacher, from its recorded description, filled."""
    found = re.search(r"(\w+)(?:\(([^()]*)\))?(?:, |$)", fixture.args[part])
    name = found.group(1).lower().replace("wrn_", "wrn", 1)
    keywords = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found.group(2) or "")}
    return filled(fixture, NETWORKS[name](**keywords), part)


def filled(fixture: Fixture, module: nn.Module, part: str) -> nn.Module:
    """A part of the recording with its weights, in its number format."""
    fill_seeded(fixture, module, fixture.args["init_seeds"][part])
    in_recorded_format(fixture, module)
    scale = fixture.args.get("encoder_fc_var_weight_scale")
    if part == "encoder" and scale is not None:
        with torch.no_grad():
            module.fc_var.weight.mul_(scale)
    return module


def options_of(fixture: Fixture, agent: str, **more: Any) -> LRAOptions:
    """Options from a fixture's arguments, by equal names."""
    args = fixture.args
    names = ("img_size", "latent_dim", "batch_size", "lr_S", "lr_S_in", "lr_G", "oh", "ie", "a", "max_epoch",
             "kd_iter", "gen_iter", "memory_capacity")  # fmt: skip
    given = {name: args[name] for name in names if name in args}
    gradient = GRADIENTS[args.get("meta_gradient", "none")]
    return LRAOptions(**given | {"agent": agent, "meta_gradient": gradient, "log_meta_loss": "step"} | more)


@contextlib.contextmanager
def built_loop(
    fixture: Fixture, options: LRAOptions, noise: RecordedNoise, test: TestImages | None = None
) -> Iterator[AdversarialDistillation]:
    """The training loop with the recorded networks, in a run of its own in a temporary folder."""
    teacher = named_network(fixture, "teacher").eval().requires_grad_(False)
    student = named_network(fixture, "student")
    shape = options.latent_dim, options.img_size, next(student.parameters()).shape[1]
    generator = filled(fixture, build_novel_generator(*shape), "novel_generator")
    replay: MemoryBank | GenerativeReplay = MemoryBank(options.memory_capacity)
    if not options.has_bank:
        decoder, encoder = build_memory_generator(*shape)
        replay = GenerativeReplay(
            filled(fixture, decoder, "mem_generator"), filled(fixture, encoder, "encoder"), teacher,
            count=fixture.args["num_mem_samples"], lr=options.lr_G, weights=options.weights, noise=noise,
        )  # fmt: skip
    test = test or TestImages(torch.zeros(0, 3, 1, 1), torch.zeros(0, dtype=torch.int64), 1)
    with tempfile.TemporaryDirectory() as folder:
        config = LRAOptions(**vars(options) | {"output_dir": folder})
        with Run(config, method=config.agent, paper="lra", device=CPU, seed=0, write_every=1, quiet=True) as run:
            yield AdversarialDistillation(
                config, teacher, student, generator, replay, noise, test, Precision(config, CPU), run
            )


def strided(value: Tensor) -> Tensor:
    """Flattened, every ceil(n / 96)-th entry."""
    return value.detach().flatten()[:: max(1, -(-value.numel() // STEP_LIMIT))].clone()


def gradients(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"grad.{prefix}.{name}": strided(parameter.grad) for name, parameter in module.named_parameters()}


def state_after(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Sampled entries, and the norms of all of them in the order of the state dict."""
    state = module.state_dict()
    return {f"after.{prefix}.{key}": strided(value) for key, value in state.items()} | norms_after(prefix, module)


def norms_after(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"out.l2.{prefix}": torch.stack([value.double().norm() for value in module.state_dict().values()])}
