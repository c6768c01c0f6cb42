"""The literal step that the speed of Ours-2 is measured against computes the same as ours."""

from __future__ import annotations

import pytest
import torch

from benchmarks.lra import BenchmarkOptions, both

pytestmark = pytest.mark.unit


def test_both_steps_give_the_same_student():
    options = BenchmarkOptions(batch_size=16, teacher="wrn-10-1", student="wrn-10-1", latent_dim=8, img_size=8)
    torch.manual_seed(1)
    images, z = torch.randn(16, 3, 8, 8), torch.randn(16, 8)
    with both(options, z) as (loop, literal):
        for _ in range(2):
            loop.student_step(images)
            literal(images, z[: literal.count])
        for name, value in loop.student.state_dict().items():
            torch.testing.assert_close(value, literal.student.state_dict()[name], rtol=1e-5, atol=1e-6)
        assert loop.run.step == 2
