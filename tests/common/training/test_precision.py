"""Number formats: what is really computed, what is skipped, what is refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from common.training.errors import UserError
from common.training.options import RunOptions
from common.training.precision import Precision, evaluating, resolve_precision, set_backend_flags

pytestmark = pytest.mark.unit
CPU = torch.device("cpu")

FAKE_APEX = """
import contextlib

calls = []

def initialize(model, optimizers, **options):
    calls.append(("initialize", model, optimizers, options))
    return model, optimizers

@contextlib.contextmanager
def scale_loss(loss, optimizers):
    calls.append(("scale_loss", optimizers))
    yield loss * 128
    calls.append(("done",))
"""


def precision(**options) -> Precision:
    return Precision(RunOptions(**options), CPU)


def one_weight(value: float = 1.0) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.tensor([value]))
    return weight, torch.optim.SGD([weight], lr=0.5)


# --- what is computed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name", "dtype"),
    [
        ({}, "fp32", torch.float32),
        ({"precision": "bf16"}, "bf16", torch.bfloat16),
        ({"precision": "fp16"}, "fp16", torch.float16),
        ({"opt_level": "O0"}, "fp32", torch.float32),
        ({"opt_level": "O1"}, "fp16", torch.float16),
        ({"opt_level": "O2"}, "fp16", torch.float16),
        ({"opt_level": "O1", "precision": "fp16"}, "fp16", torch.float16),
    ],
)
def test_the_forward_pass_has_the_format_asked_for(options: dict, name: str, dtype: torch.dtype) -> None:
    layer, x = nn.Linear(3, 2), torch.full((1, 3), 1.0)
    nn.init.constant_(layer.weight, 1 + 2**-12)  # bf16 keeps 8 significant bits, fp16 11: both lose the last term
    nn.init.zeros_(layer.bias)
    mode = precision(**options)
    assert mode.name == name
    with mode.autocast():
        y = layer(x)
    assert y.dtype == dtype
    assert y[0, 0].item() == (3 + 3 * 2**-12 if name == "fp32" else 3)
    assert layer.weight.dtype == torch.float32
    assert layer(x).dtype == torch.float32  # and only inside the context


@pytest.mark.parametrize(
    "options",
    [
        {"opt_level": "O0", "precision": "bf16"},
        {"opt_level": "O0", "precision": "fp16"},
        {"opt_level": "O1", "precision": "bf16"},
        {"opt_level": "O2", "precision": "bf16"},
    ],
)
def test_contradictions_are_refused(options: dict) -> None:
    with pytest.raises(UserError) as error:
        resolve_precision(RunOptions(**options))
    assert f"--opt_level {options['opt_level']}" in str(error.value)
    assert f"--precision {options['precision']}" in str(error.value)


def test_o3_is_refused() -> None:
    with pytest.raises(UserError, match="O3.*expected O0, O1 or O2"):
        precision(opt_level="O3")


# --- loss scaling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_without_fp16_gradients_are_not_scaled(name: str) -> None:
    mode, (weight, optimizer) = precision(precision=name), one_weight()
    mode.backward((3 * weight).sum(), [optimizer])
    assert weight.grad.item() == 3
    mode.step(optimizer)
    mode.update()
    assert weight.item() == 1 - 0.5 * 3
    assert mode.state_dict() == {}
    mode.load_state_dict({})


def test_fp16_scales_the_loss_and_undoes_it_before_the_step() -> None:
    mode, (weight, optimizer) = precision(precision="fp16"), one_weight()
    scale = mode.state_dict()["scale"]
    assert scale > 1
    mode.backward((3 * weight).sum(), [optimizer])
    assert weight.grad.item() == 3 * scale
    mode.step(optimizer)
    mode.update()
    assert weight.item() == 1 - 0.5 * 3


def test_a_step_with_overflowing_gradients_is_skipped() -> None:
    mode, (weight, optimizer) = precision(precision="fp16"), one_weight()
    scale = mode.state_dict()["scale"]
    mode.backward((1e36 * weight).sum(), [optimizer])  # finite, but not once it is scaled
    assert torch.isinf(weight.grad).all()
    mode.step(optimizer)
    mode.update()
    assert weight.item() == 1
    assert mode.state_dict()["scale"] == scale / 2
    optimizer.zero_grad()
    mode.backward((3 * weight).sum(), [optimizer])
    mode.step(optimizer)
    mode.update()
    assert weight.item() == 1 - 0.5 * 3


@pytest.mark.parametrize("first_overflows", [False, True])
def test_a_skipped_first_step_leaves_no_garbage_in_the_momentum_of_a_fused_sgd(
    first_overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch takes uninitialised memory for the momentum; here that memory holds NaN."""
    monkeypatch.setattr(torch, "empty_like", lambda like: torch.full_like(like, torch.nan))
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    fused = torch.optim.SGD(weights[:1], fused=True, **settings)
    plain = torch.optim.SGD(weights[1:], fused=False, **settings)
    precision = Precision(RunOptions(precision="fp16"), torch.device("cpu"))
    for number in range(3):
        slope = torch.inf if first_overflows and number == 0 else 0.5
        fused.zero_grad()
        precision.backward((weights[0] * slope).sum(), [fused])
        precision.step(fused)
        precision.update()
        if slope == 0.5:
            weights[1].grad = torch.full((3,), slope)
            plain.step()
        assert torch.equal(weights[0], weights[1])


def test_the_loss_scale_is_restored() -> None:
    mode, (weight, optimizer) = precision(precision="fp16"), one_weight()
    mode.backward((1e36 * weight).sum(), [optimizer])
    mode.step(optimizer)
    mode.update()
    again = precision(precision="fp16")
    again.load_state_dict(mode.state_dict())
    assert again.state_dict() == mode.state_dict() != precision(precision="fp16").state_dict()


# --- NVIDIA apex ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_apex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apex", None)


@pytest.fixture
def apex_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """A package of that name that writes down how it is called, and scales losses by 128."""
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "apex" / "amp.py").write_text(FAKE_APEX, encoding="utf-8")
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "apex"}
    monkeypatch.syspath_prepend(str(tmp_path))
    import apex.amp

    yield apex.amp.calls
    for name in [name for name in sys.modules if name.split(".")[0] == "apex"]:
        del sys.modules[name]
    sys.modules.update(hidden)


def test_apex_must_be_there(no_apex: None) -> None:
    with pytest.raises(UserError, match="--amp_backend apex.*cannot be imported.*--amp_backend torch"):
        precision(amp_backend="apex", opt_level="O1")


def test_another_package_of_that_name_is_not_enough(tmp_path: Path, apex_calls: list) -> None:
    for name in ("apex", "apex.amp"):
        del sys.modules[name]
    (tmp_path / "apex" / "amp.py").unlink()
    with pytest.raises(UserError, match="another project"):
        precision(amp_backend="apex", opt_level="O1")


def test_torch_is_used_unless_apex_is_asked_for(no_apex: None) -> None:
    assert precision(opt_level="O1").name == "fp16"


def test_apex_needs_a_level(apex_calls: list) -> None:
    with pytest.raises(UserError, match="--opt_level"):
        precision(amp_backend="apex")


def test_apex_is_really_used(apex_calls: list) -> None:
    mode, (weight, optimizer) = precision(amp_backend="apex", opt_level="O2"), one_weight()
    model = nn.Linear(1, 1)
    mode.prepare(model, [optimizer])
    with mode.autocast():
        assert model(torch.ones(1, 1)).dtype == torch.float32  # apex patches the model; torch must not cast as well
    mode.backward((3 * weight).sum(), [optimizer])
    assert weight.grad.item() == 3 * 128  # backward inside scale_loss, and no second scale
    mode.step(optimizer)
    mode.update()
    assert weight.item() == 1 - 0.5 * 3 * 128
    assert [call[0] for call in apex_calls] == ["initialize", "scale_loss", "done"]
    assert apex_calls[0][1] is model
    assert apex_calls[0][2] == apex_calls[1][1] == [optimizer]
    assert apex_calls[0][3]["opt_level"] == "O2"


def test_torch_needs_no_preparation(no_apex: None) -> None:
    weight, optimizer = one_weight()
    before = dict(vars(optimizer))
    precision(precision="fp16").prepare(nn.Linear(1, 1), [optimizer])
    assert vars(optimizer) == before
    assert weight.item() == 1


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
def test_backend_flags(fast: bool) -> None:
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    try:
        set_backend_flags(not fast)
        set_backend_flags(fast)
        found = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
        assert found == (fast, fast, fast, not fast)
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_has_no_gradients_and_gives_the_mode_back(training: bool) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).train(training)
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not model(torch.ones(1, 1)).requires_grad
    assert all(module.training is training for module in model.modules())
    assert model(torch.ones(1, 1)).requires_grad
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert model.training is training
