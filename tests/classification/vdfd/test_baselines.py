"""Joint training, and VDFD with the identity as precision: values by hand, whole runs, runs in pieces."""

from __future__ import annotations

import json
import types

import pytest
import torch
import torch.nn.functional as F

from classification.task_incremental.main import main
from classification.vdfd.joint_learner import JointTraining
from common.backbones.registry import build_backbone
from common.continual.regulariser import quadratic_regulariser, squared_distance
from tests.classification.runs import differs, learner_state, model_state, run_in_pieces
from tests.helpers import assert_same_run

TINY = [
    "--dataset", "Sample", "--first_split_size", "2", "--other_split_size", "2", "--max_tasks", "3",
    "--images_per_class", "6", "--widths", "4", "6", "--blocks", "1", "1", "--batch_size", "4", "--schedule", "2",
    "--model_lr", "1e-3", "--head_lr", "5e-3", "--epsilons", "1e-3", "--gpuid", "-1", "--importance_batch", "8",
]  # fmt: skip
METHODS = {
    "joint": ["--agent_type", "joint", "--agent_name", "Joint"],
    "identity": ["--precision_matrix", "identity"],
    "gcn": ["--precision_matrix", "gcn"],
    "finetune": ["--agent_type", "finetune", "--agent_name", "FineTuning"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each method that nothing interrupted."""
    folders = {name: tmp_path_factory.mktemp(name) for name in METHODS}
    for name, folder in folders.items():
        main([*TINY, *METHODS[name], "--output_dir", str(folder)])
    return folders


@pytest.mark.smoke
@pytest.mark.parametrize("method", ["joint", "identity"])
def test_a_run_in_pieces_equals_the_whole(method, runs, tmp_path):
    run_in_pieces(main, [*TINY, *METHODS[method], "--output_dir", str(tmp_path)])
    assert_same_run(runs[method], tmp_path)


@pytest.mark.smoke
@pytest.mark.parametrize(("one", "other"), [("joint", "finetune"), ("identity", "gcn"), ("identity", "finetune")])
def test_the_methods_differ(one, other, runs):
    assert differs(runs[one], runs[other])


# --- joint training ---------------------------------------------------------------------------------------------------


def joint_learner(task: int) -> JointTraining:
    """Only what the loss needs: heads of 2, 3 and 2 classes."""
    torch.manual_seed(0)
    learner = JointTraining.__new__(JointTraining)
    learner.model = build_backbone("resnet", "resnet18", widths=(4, 4), blocks=(1, 1)).eval()
    learner.model.set_heads({"1": 2, "2": 3, "3": 2})
    learner.setting = types.SimpleNamespace(view=lambda number: types.SimpleNamespace(head=str(number)))
    learner.config, learner.task = types.SimpleNamespace(temp=1.0), task
    return learner


@pytest.mark.unit
def test_every_sample_goes_through_the_head_of_its_own_task():
    learner = joint_learner(task=2)
    images, target = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 4])  # two of task 1, labels 0 and 2 of task 2
    logits = learner.training_logits(images, target)
    assert logits.shape == (4, 5)  # task 3 is still to come
    loss = learner.classification_loss(logits, target)
    own = learner.model(images)
    expected = (F.cross_entropy(own["1"][:2], target[:2]) + F.cross_entropy(own["2"][2:], target[2:] - 2)) / 2
    torch.testing.assert_close(loss, expected)
    assert (logits.argmax(dim=1) < 2).tolist() == [True, True, False, False]  # a prediction is one of its own task
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in learner.model.named_parameters()}
    assert gradients.pop("last.3.weight") is None
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients.values())


@pytest.mark.smoke
def test_the_images_of_all_tasks_so_far_are_trained_on(runs):
    """Three tasks of 12 images in batches of 4, two epochs: 3, 6 and 9 steps per epoch."""
    record = json.loads((runs["joint"] / "record.json").read_text())
    assert record["steps"] == 2 * (3 + 6 + 9) and record["method"] == "joint training"
    assert json.loads((runs["finetune"] / "record.json").read_text())["steps"] == 2 * 9


@pytest.mark.smoke
def test_all_heads_so_far_learn(tmp_path, runs):
    main([*TINY, *METHODS["joint"], "--output_dir", str(tmp_path), "--max_tasks", "1"])
    first, last = model_state(tmp_path), model_state(runs["joint"])
    assert not torch.equal(first["last.1.weight"], last["last.1.weight"])  # went on learning in tasks 2 and 3
    assert torch.equal(first["last.4.weight"], last["last.4.weight"])


@pytest.mark.smoke
def test_joint_training_with_one_optimiser_for_all_tasks_resumes_too(tmp_path):
    flags = [*TINY, *METHODS["joint"], "--reset_model_opt"]
    main([*flags, "--output_dir", str(tmp_path / "whole")])
    run_in_pieces(main, [*flags, "--output_dir", str(tmp_path / "pieces")])
    assert_same_run(tmp_path / "whole", tmp_path / "pieces")


# --- identity precision -----------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_squared_distance_by_hand():
    gw, gw_star = torch.tensor([[1.0, 2.0], [3.0, 3.0]]), torch.tensor([[0.0, 0.0], [1.0, 3.0]])
    assert float(squared_distance(gw, gw_star)) == 5 + 4
    assert float(squared_distance(gw, gw_star, quad_scale=4.0)) == 36


@pytest.mark.unit
def test_squared_distance_is_the_quadratic_term_of_the_identity():
    gw, gw_star = torch.randn(3, 4), torch.randn(3, 4)
    identity = torch.eye(4).expand(3, 4, 4)
    with_constant = quadratic_regulariser(gw, gw_star, identity, 1e-6)
    torch.testing.assert_close(squared_distance(gw, gw_star), with_constant, rtol=1e-4, atol=1e-4)


@pytest.mark.smoke
def test_no_hypermodel_is_trained(runs):
    identity, gcn = learner_state(runs["identity"]), learner_state(runs["gcn"])
    assert len(identity["optimizers"]) == 1 and len(gcn["optimizers"]) == 2


@pytest.mark.smoke
def test_both_precisions_see_the_same_batches(runs):
    """The first task and the data of all others agree: the ablation changes the regulariser alone."""
    identity, gcn = learner_state(runs["identity"]), learner_state(runs["gcn"])
    assert identity["loader"] == gcn["loader"]
    one, other = (state["memory"]["tasks"][0]["gw_star"] for state in (identity, gcn))
    assert torch.equal(one, other)
