"""What the benchmark compares with computes the same, and the benchmark runs."""

from __future__ import annotations

import pytest
import torch

from benchmarks import vdfd
from benchmarks.literal_vdfd import literal_importance
from classification.class_incremental.options import ClassIncrementalOptions
from classification.task_incremental.options import TaskIncrementalOptions
from classification.vdfd.importance import class_gradients
from classification.vdfd.optimization import backbone_names
from common.backbones.registry import build_backbone
from common.training.run import Run

pytestmark = pytest.mark.unit


def test_importance_is_the_same():
    torch.manual_seed(0)
    model = build_backbone("resnet", "resnet18", widths=(4, 6, 8, 10), blocks=(1, 1, 1, 1))
    model.set_heads({"1": 3})
    model.eval()
    images, names = torch.randn(6, 3, 16, 16), backbone_names(model)
    ours = class_gradients(model, names, "1", slice(0, 3), images, torch.full((6,), 1 / 6))
    literal = literal_importance(model, names, "1", images.split(2))
    for name in names:
        torch.testing.assert_close(ours[name], literal[name], rtol=1e-4, atol=1e-6)


def test_the_benchmark_prints_its_table(capsys, monkeypatch):
    monkeypatch.setattr(
        vdfd, "build_backbone", lambda *names: build_backbone(*names, widths=(4, 4, 8, 16), blocks=(1, 1, 1, 1))
    )
    threads = torch.get_num_threads()
    try:
        vdfd.main(["--rounds", "1", "--old_tasks", "1", "--importance_images", "16"])
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert (
        "task-incremental regulariser, 1 old tasks" in printed
        and "class-incremental step, 1 old" in printed
        and "importance of 16 images" in printed
    )


@pytest.mark.parametrize("setting", ["task", "class"])
def test_regulariser_and_gradients_are_the_same(setting, tmp_path):
    options = {"task": TaskIncrementalOptions, "class": ClassIncrementalOptions}[setting]
    config = options(output_dir=str(tmp_path), epsilons=vdfd.EPSILONS)
    with Run(config, method="VDFD", paper="vdfd", device=torch.device("cpu"), seed=0, quiet=True) as run:
        learner = vdfd.build_learner(run, config, setting, 2)
        with torch.no_grad():
            for parameter in learner.memory.parameters:
                parameter.add_(0.01 * torch.randn_like(parameter))
        collected = []
        for form in (learner.penalty, lambda: vdfd.literal_of(learner)):
            learner.model.zero_grad(), learner.hypermodel.zero_grad()
            value = form()
            value.backward()
            gradients = [p.grad.clone() for p in [*learner.memory.parameters, *learner.hypermodel.parameters()]]
            collected.append((value.detach(), gradients))
    torch.testing.assert_close(collected[0][0], collected[1][0], rtol=1e-4, atol=1e-4)
    for ours, literal in zip(collected[0][1], collected[1][1], strict=True):
        torch.testing.assert_close(ours, literal, rtol=1e-2, atol=1e-2 * float(literal.abs().max()))
