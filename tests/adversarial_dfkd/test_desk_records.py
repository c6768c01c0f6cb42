"""What the kept runs of the desk bench show of the released meta-learning term."""

from __future__ import annotations

import pytest

from repro.records import load_records
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.audit

SEEDS = (0, 1, 2)
TWINS = [("lra/desk-ours-1", "lra/desk-mb-dfkd"), ("lra/desk-ours-2", "lra/desk-pre-dfkd")]


@pytest.fixture(scope="module")
def curves() -> dict[tuple[str | None, int], list[float]]:
    """(cell, seed) -> test accuracy after every epoch."""
    kept, warnings = load_records([REPOSITORY / "results" / "lra"])
    assert not warnings
    return {(one.cell, one.content["seed"]): one.metrics["acc_history"] for one in kept}


@pytest.mark.parametrize(("agent", "rival"), TWINS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_released_agents_repeat_their_rivals_to_the_last_digit(agent, rival, seed, curves):
    """Batch sizes are equal here, so nothing but the inert term differs."""
    assert curves[agent, seed] == curves[rival, seed]


@pytest.mark.parametrize("agent", [agent for agent, _ in TWINS])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_papers_gradient_changes_the_run(agent, seed, curves):
    assert curves[f"{agent}-second-order", seed] != curves[agent, seed]
