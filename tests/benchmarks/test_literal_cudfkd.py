"""The literal loop that the benchmark times computes what ours computes."""

from __future__ import annotations

import pytest
import torch

from benchmarks.cudfkd import BenchmarkOptions, both
from benchmarks.cudfkd import main as benchmark

pytestmark = pytest.mark.unit
TINY = BenchmarkOptions(teacher="wrn16_1", student="resnet8", batch_size=4, ngf=4)


@pytest.mark.parametrize("adversarial", [0.0, 1.0])
def test_generator_and_student_steps_agree(adversarial):
    with both(TINY, adversarial) as (loop, literal):
        synthesiser = loop.synthesiser
        draws = torch.randn(3, 4, synthesiser.generator.nz)
        noise = iter(draws)
        object.__setattr__(synthesiser.networks, "noise", lambda *_: next(noise))
        for z in draws[:1]:
            assert literal.generator_step(z) == pytest.approx(synthesiser.step().terms["loss"].item(), rel=1e-4)
        for z in draws[1:2]:
            assert literal.student_step(z) == pytest.approx(loop.student_step().terms["loss"].item(), rel=1e-3)
        ours, theirs = loop.model.state_dict(), literal.student.state_dict()
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-2, atol=1e-3)


def test_the_benchmark_runs():
    sizes = ["--teacher", "wrn16_1", "--student", "resnet8", "--batch_size", "4", "--ngf", "4"]
    ratios = benchmark([*sizes, "--rounds", "1"])
    assert len(ratios) == 3 and all(ratio > 0 for ratio in ratios.values())
