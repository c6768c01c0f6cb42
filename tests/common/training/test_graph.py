"""Captured steps: the protocol on a CPU with two stand-ins for a graph, rates, checkpoints; and CUDA itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.training import graph
from common.training.errors import UserError
from common.training.graph import (
    WARM_UP,
    RecorderBackend,
    StepGraph,
    is_capturable,
    load_optimizer_state,
    make_capturable,
    optimizer_state,
    rate_of,
    set_rate,
)
from tests.common.training.operation_recorder import OperationRecorder
from tests.helpers import assert_equal

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")
ROWS, EPOCHS = 4, 3
SIZES = [ROWS, ROWS, ROWS, ROWS, ROWS, 2]
"""Rows of the batches of an epoch."""


class Toy:
    """A network with batch norm and dropout, its optimiser, and a step in the form that `StepGraph` wants."""

    def __init__(self, name: str = "Adam", device: torch.device = CPU, captures: bool = True) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        self.net = self.net.to(device)
        kind, more = {
            "Adam": (torch.optim.Adam, {}),
            "amsgrad": (torch.optim.Adam, {"amsgrad": True}),
            "SGD": (torch.optim.SGD, {"momentum": 0.9}),
        }[name]
        groups = [{"params": list(self.net[0].parameters())}, {"params": list(self.net[1:].parameters()), "lr": 0.02}]
        self.optimizer = kind(groups, lr=0.1, weight_decay=1e-3, fused=True, **more)
        if captures:
            make_capturable(self.optimizer)
        self.notes: list[str] = []
        self.graph = StepGraph(
            self.step, device, enabled=captures, guard=lambda: self.net.training, note=self.notes.append
        )

    def step(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.net(images), target)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach()}

    def train(self, batches: list[tuple[Tensor, Tensor]], epochs: range = range(EPOCHS)) -> list[float]:
        losses = []
        for epoch in epochs:
            for images, target in batches:
                losses.append(float(self.graph(images, target)["loss"]))
                for group, base in zip(self.optimizer.param_groups, (0.1, 0.02), strict=True):
                    set_rate(group, base * 0.3**epoch)  # a new rate in the middle of replays
        return losses


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)) for n in SIZES]


@pytest.fixture(params=[RecorderBackend, OperationRecorder])
def backend(request, monkeypatch):
    """Every `StepGraph` of a test gets one of these."""
    made = []

    def backend_for(device):
        made.append(request.param())
        return made[-1]

    monkeypatch.setattr(graph, "backend_for", backend_for)
    return made


@pytest.mark.parametrize("name", ["Adam", "amsgrad", "SGD"])
def test_replays_train_like_eager_steps_to_the_last_bit(name, backend, batches):
    eager, captured = Toy(name, captures=False), Toy(name)
    torch.manual_seed(2)
    expected = eager.train(batches)
    torch.manual_seed(2)  # dropout draws from the global generator
    assert captured.train(batches) == expected
    assert captured.graph.is_captured and not eager.graph.is_captured
    assert_equal(eager.net.state_dict(), captured.net.state_dict())
    assert_equal(optimizer_state(eager.optimizer), optimizer_state(captured.optimizer))
    if isinstance(backend[-1], OperationRecorder):
        full, small = EPOCHS * SIZES.count(ROWS), EPOCHS
        counts = (backend[-1].captures, backend[-1].runs, backend[-1].replays)
        assert counts == (1, WARM_UP + small, full - WARM_UP)


@pytest.mark.parametrize("saving", [True, False], ids=["saved captured", "saved eager"])
@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_checkpoints_with_and_without_capture_are_the_same(name, saving, backend, batches):
    whole, first, second = Toy(name, captures=False), Toy(name, captures=saving), Toy(name, captures=not saving)
    for toy in (whole, first, second):
        toy.net[3].p = 0.0
    whole.train(batches)
    first.train(batches, range(2))
    state = optimizer_state(first.optimizer)
    assert all(type(group["lr"]) is float and not group.get("capturable") for group in state["param_groups"])
    eager_groups = whole.optimizer.state_dict()["param_groups"]
    assert [sorted(group) for group in state["param_groups"]] == [sorted(group) for group in eager_groups]
    second.net.load_state_dict(first.net.state_dict())
    load_optimizer_state(second.optimizer, state)
    second.graph.reset()
    second.train(batches, range(2, EPOCHS))
    assert_equal(whole.net.state_dict(), second.net.state_dict())
    assert_equal(optimizer_state(whole.optimizer), optimizer_state(second.optimizer))
    assert second.graph.is_captured is not saving


def test_a_guard_a_larger_batch_and_reset_drop_the_capture(backend, batches):
    toy = Toy()
    full = batches[: WARM_UP + 1]
    toy.train(full, range(1))
    assert toy.graph.is_captured
    toy.net.eval()
    toy.train(full[:1], range(1))
    assert not toy.graph.is_captured
    toy.net.train()
    toy.train(full, range(1))
    assert toy.graph.is_captured
    toy.train(batches[-1:], range(1))  # a smaller batch does not
    assert toy.graph.is_captured
    toy.graph(torch.randn(ROWS + 1, 6), torch.zeros(ROWS + 1, dtype=torch.int64))
    assert not toy.graph.is_captured
    toy.train(full, range(1))  # now the smaller ones
    assert not toy.graph.is_captured
    toy.graph.reset()
    toy.train(full, range(1))
    assert toy.graph.is_captured


def test_a_step_that_cannot_be_captured_ends_the_run_in_one_line(monkeypatch, batches):
    class Refuses(RecorderBackend):
        def capture(self, *arguments):
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graph, "backend_for", lambda device: Refuses())
    with pytest.raises(UserError, match=r"operation not permitted when stream is capturing\).* --eager") as refusal:
        Toy().train(batches)
    assert "\n" not in str(refusal.value)


def test_the_recorder_of_these_tests_refuses_a_step_that_waits_for_the_device(monkeypatch):
    monkeypatch.setattr(graph, "backend_for", lambda device: OperationRecorder())
    waiting = StepGraph(lambda x: {"y": x * float(x.sum())}, CPU)
    for _ in range(WARM_UP):
        waiting(torch.ones(2))
    with pytest.raises(UserError, match="_local_scalar_dense"):
        waiting(torch.ones(2))


def test_the_outputs_of_a_replay_are_overwritten_by_the_next(backend):
    doubling = StepGraph(lambda x: {"y": 2 * x}, CPU)
    for _ in range(WARM_UP):
        doubling(torch.ones(2))
    first = doubling(torch.ones(2))["y"]
    assert first.tolist() == [2, 2]
    doubling(torch.full((2,), 5.0))
    assert first.tolist() == [10, 10]


def test_a_static_input_keeps_its_layout(backend):
    strides = []
    wrapped = StepGraph(lambda x: strides.append(x.stride()) or {"y": x.sum()}, CPU)
    images = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    for _ in range(WARM_UP + 1):
        wrapped(images)
    assert strides[-1] == images.stride()


def test_rates_stay_exact_and_are_set_in_place():
    toy = Toy()
    group = toy.optimizer.param_groups[0]
    tensor = group["lr"]
    assert rate_of(group) == 0.1
    set_rate(group, 1e-3)
    assert group["lr"] is tensor and float(tensor) == 1e-3 == rate_of(group)
    make_capturable(toy.optimizer)  # again: nothing happens
    assert group["lr"] is tensor and rate_of(group) == 1e-3
    plain = {"lr": 0.5}
    set_rate(plain, 0.25)
    assert plain == {"lr": 0.25} and rate_of(plain) == 0.25


def test_which_optimisers_can_be_captured():
    weights = [nn.Parameter(torch.ones(1))]
    assert is_capturable(torch.optim.Adam(weights, fused=True)) and is_capturable(torch.optim.SGD(weights, fused=True))
    assert not is_capturable(torch.optim.Adam(weights, foreach=True))
    assert not is_capturable(torch.optim.RMSprop(weights)) and not is_capturable(torch.optim.AdamW(weights, fused=True))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["Adam", "amsgrad", "SGD"])
def test_cuda_graphs_train_like_eager_steps(name, batches):
    """Both sides have their rates on the device; what remains is the order of sums inside kernels."""
    device = torch.device("cuda")
    moved = [(images.to(device), target.to(device)) for images, target in batches]
    eager, captured = Toy(name, device), Toy(name, device)
    eager.graph.enabled = False
    torch.manual_seed(2)
    expected = eager.train(moved)
    torch.manual_seed(2)  # dropout: the graph goes on with the numbers of the device's generator
    assert captured.train(moved) == pytest.approx(expected, rel=1e-4)
    assert captured.graph.is_captured and "CUDA graph" in captured.notes[0]
    for key, value in eager.net.state_dict().items():
        torch.testing.assert_close(captured.net.state_dict()[key], value, rtol=1e-4, atol=1e-5)
