"""The literal iteration that the speed of Ours-1 and Ours-2 is measured against computes the same as ours."""

from __future__ import annotations

import pytest
import torch

from benchmarks.lra import OURS, BenchmarkOptions, both, pairs_of_steps

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("agent", OURS)
def test_both_iterations_give_the_same_weights(agent):
    options = BenchmarkOptions(batch_size=16, teacher="wrn-10-1", student="wrn-10-1", latent_dim=8, img_size=8)
    torch.manual_seed(1)
    z = torch.randn(16, 8)
    torch.set_default_dtype(torch.float64)  # why: Adam turns the sign of a gradient near zero into a whole step
    try:
        z = z.double()
        with both(options, agent, lambda count: z[:count].clone()) as (loop, literal):
            steps = pairs_of_steps(loop, literal, z)
            assert [times for times, *_ in steps.values()] == ([1, 10] if agent == OURS[0] else [1, 10, 4])
            for _, ours, slow in [*steps.values()] * 2:
                ours()
                slow()
            pairs = [(loop.student, literal.student), (loop.generator, literal.generator)]
            if agent == OURS[1]:
                pairs += [(loop.replay.generator, literal.decoder), (loop.replay.encoder, literal.encoder)]
            for ours, slow in pairs:
                state = slow.state_dict()
                for name, value in ours.state_dict().items():
                    torch.testing.assert_close(value, state[name], rtol=1e-7, atol=1e-9, msg=name)
            assert loop.run.step == 2
    finally:
        torch.set_default_dtype(torch.float32)
