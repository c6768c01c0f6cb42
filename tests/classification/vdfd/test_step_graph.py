"""Whole runs with --fast: captured steps and eager ones give the same run, to the last bit on a CPU."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from common.training import graph
from common.training.errors import RunStopped
from common.training.graph import RATE, RecorderBackend, StepGraph
from common.training.run import Run
from tests.classification.runs import learner_state, model_state
from tests.common.training.operation_recorder import OperationRecorder
from tests.helpers import assert_same_run

pytestmark = pytest.mark.smoke

# 44 images a task and batches of 8: five full ones and one of 4; the rates fall in the second epoch
TINY = """
    --dataset Sample --first_split_size 2 --other_split_size 2 --max_tasks 3 --images_per_class 22 --widths 4 8
    --blocks 1 1 --batch_size 8 --schedule 1 2 --model_lr 1e-3 --head_lr 5e-3 --epsilons 1e-3 --importance_batch 16
    --validation_interval 0 --fast
""".split()
SSL = ["--agent_type", "vdfd_ssl_la"]
KINDS = {
    "task": ["task_incremental"],
    "class": ["class_incremental", "--force_out_dim", "20", "--temp", "1"],
    "class-ssl": ["class_incremental", "--force_out_dim", "20", "--temp", "1", *SSL],
    "class-all-seen": [
        "class_incremental",
        "--force_out_dim",
        "20",
        "--temp",
        "1",
        "--agent_type",
        "vdfd",
        "--agent_name",
        "VDFD",
    ],
    "task-ssl": ["task_incremental", "--agent_type", "vdfd_ssl"],
    "task-kept-optimiser": ["task_incremental", "--reset_model_opt"],
    "task-identity": ["task_incremental", "--precision_matrix", "identity"],
    "task-sgd": ["task_incremental", "--model_optimizer", "SGD", "--hypermodel_optimizer", "amsgrad"],
    "task-bf16": ["task_incremental", "--precision", "bf16"],
    "finetune": ["task_incremental", "--agent_type", "finetune", "--agent_name", "FineTuning"],
    "joint": ["task_incremental", "--agent_type", "joint", "--agent_name", "Joint"],
}


def run_tiny(folder: Path, kind: str, *more: str, gpu: str = "-1") -> None:
    program, *flags = KINDS[kind]
    main = importlib.import_module(f"classification.{program}.main").main
    main([*TINY, *flags, "--gpuid", gpu, "--output_dir", str(folder), *more])


def stop_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Runs stop at a checkpoint after these steps, each once."""
    left, tick = set(steps), Run.tick

    def stopping(run: Run) -> None:
        if run.step in left:
            left.remove(run.step)
            run._stop_reason = "the test wants it"
        tick(run)

    monkeypatch.setattr(Run, "tick", stopping)


@pytest.fixture
def recorders(monkeypatch) -> list[OperationRecorder]:
    """Steps are recorded operator by operator: a replay runs no Python and refuses what a CUDA graph cannot hold."""
    made: list[OperationRecorder] = []

    def backend_for(device: torch.device) -> OperationRecorder:
        made.append(OperationRecorder())
        return made[-1]

    monkeypatch.setattr(graph, "backend_for", backend_for)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_are_the_eager_ones_to_the_last_bit(kind, recorders, tmp_path):
    run_tiny(tmp_path / "eager", kind, "--eager")
    run_tiny(tmp_path / "fast", kind)
    assert_same_run(tmp_path / "eager", tmp_path / "fast")
    eager, fast = recorders
    assert eager.captures == eager.runs == 0
    assert fast.captures == 3 and fast.replays > 10  # once a task
    assert "cannot be captured" not in (tmp_path / "fast" / "log.txt").read_text()


@pytest.mark.parametrize("kind", ["task", "class-ssl", "task-kept-optimiser", "task-sgd"])
def test_a_resume_inside_an_epoch_is_exact(kind, recorders, tmp_path, monkeypatch):
    run_tiny(tmp_path / "whole", kind, "--eager")
    # in the warm-up; before the small batch; in the middle of task 2's replays and of task 3's second epoch
    stop_at(monkeypatch, 2, 5, 17, 34)
    for _ in range(4):
        with pytest.raises(RunStopped):
            run_tiny(tmp_path / "parts", kind)
    run_tiny(tmp_path / "parts", kind)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert sum(recorder.replays for recorder in recorders) > 0


def test_a_run_goes_on_with_and_without_capture(recorders, tmp_path, monkeypatch):
    """Checkpoints do not depend on --eager, and neither does what follows."""
    run_tiny(tmp_path / "whole", "task", "--eager")
    stop_at(monkeypatch, 5, 17, 29)
    for more in ([], ["--eager"], []):
        with pytest.raises(RunStopped):
            run_tiny(tmp_path / "mixed", "task", *more)
    run_tiny(tmp_path / "mixed", "task", "--eager")
    assert_same_run(tmp_path / "whole", tmp_path / "mixed")
    for optimizer in learner_state(tmp_path / "mixed")["optimizers"]:
        assert all(type(group["lr"]) is float and RATE not in group for group in optimizer["param_groups"])


def test_the_recorder_of_a_cpu_gives_the_same_run(tmp_path, monkeypatch):
    used: list[StepGraph] = []
    replay = graph._Recorded.replay
    monkeypatch.setattr(graph._Recorded, "replay", lambda recorded: used.append(recorded) or replay(recorded))
    assert isinstance(graph.backend_for(torch.device("cpu")), RecorderBackend)
    run_tiny(tmp_path / "eager", "class", "--eager")
    assert not used
    run_tiny(tmp_path / "fast", "class")
    assert_same_run(tmp_path / "eager", tmp_path / "fast")
    assert len(set(map(id, used))) == 3


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--precision", "fp16"], "loss scaling"),
        (["--model_optimizer", "RMSprop"], "RMSprop"),
        (["--agent_type", "svd_based", "--agent_name", "svd_based"], "ProjectedAdam"),
    ],
    ids=["fp16", "RMSprop", "Adam-NSCL"],
)
def test_what_cannot_be_captured_stays_eager_and_says_so(flags, reason, recorders, tmp_path):
    run_tiny(tmp_path, "task", *flags, "--max_tasks", "1", "--schedule", "1")
    assert all(recorder.captures == recorder.runs == 0 for recorder in recorders)
    assert reason in (tmp_path / "log.txt").read_text()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["task", "class", "class-ssl"])
def test_on_cuda_captured_runs_end_near_the_eager_ones(kind, tmp_path):
    run_tiny(tmp_path / "eager", kind, "--eager", gpu="0")
    run_tiny(tmp_path / "fast", kind, gpu="0")
    log = (tmp_path / "fast" / "log.txt").read_text()
    assert log.count("captured as a CUDA graph") == 3 and "cannot be captured" not in log
    eager, fast = model_state(tmp_path / "eager"), model_state(tmp_path / "fast")
    for key, value in eager.items():
        # why so wide: TF32, sums in any order, and Adam, which magnifies the sign of tiny gradients
        torch.testing.assert_close(fast[key].float(), value.float(), rtol=2e-2, atol=2e-3)
