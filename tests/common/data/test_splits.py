"""Tasks cut out of a class order."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from common.data.splits import ClassSplit
from common.training.errors import UserError
from tests.helpers import REPOSITORY

FIXTURES = REPOSITORY / "repro" / "fixtures" / "vdfd"


@pytest.mark.parity
@pytest.mark.parametrize("id", ["vdfd.split.sequential", "vdfd.split.sequential_remap", "vdfd.split.random"])
def test_split_reproduces_the_recorded_one(id):
    manifest = {entry["id"]: entry for entry in json.loads((FIXTURES / "manifest.json").read_text())}
    args, recorded = manifest[id]["args"], np.load(FIXTURES / manifest[id]["file"])
    torch.manual_seed(args["seed"])
    make = ClassSplit.random if args["rand_split"] else ClassSplit.sequential
    split = make(args["num_classes"], args["first"], args["other"])
    train, val = (torch.from_numpy(recorded[f"in.labels_{name}"]) for name in ("train", "val"))
    assert split.tasks == len(args["out_space"])
    for task in range(1, split.tasks + 1):
        assert split.classes(task) == recorded[f"out.class_list.{task}"].tolist()
        assert split.indices(train, task).tolist() == recorded[f"out.train_indices.{task}"].tolist()
        assert split.indices(val, task).tolist() == recorded[f"out.val_indices.{task}"].tolist()
        assert split.targets(train, task, args["remap"]).tolist() == recorded[f"out.train_targets.{task}"].tolist()


@pytest.mark.unit
class TestClassSplit:
    def test_unequal_first_task(self):
        split = ClassSplit.sequential(10, 4, 3)
        assert [split.classes(task) for task in (1, 2, 3)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
        assert (split.tasks, split.num_classes) == (3, 10)

    def test_one_task_with_all_classes(self):
        assert ClassSplit.sequential(10, 10, 10).tasks == 1

    def test_indices_follow_the_class_list_and_targets_follow_the_indices(self):
        split = ClassSplit(order=(2, 0, 1), boundaries=(0, 2, 3))
        labels = torch.tensor([0, 1, 2, 0, 2, 1])
        assert split.indices(labels, 1).tolist() == [2, 4, 0, 3]
        assert split.targets(labels, 1, remap=True).tolist() == [0, 0, 1, 1]
        assert split.targets(labels, 1, remap=False).tolist() == [2, 2, 0, 0]
        assert split.targets(labels, 2, remap=True).tolist() == [0, 0]

    def test_random_order_is_one_permutation_of_the_global_generator(self):
        torch.manual_seed(5)
        split = ClassSplit.random(12, 6, 3)
        after = torch.rand(1)
        torch.manual_seed(5)
        order = torch.randperm(12).tolist()
        assert split.classes(1) + split.classes(2) + split.classes(3) == order
        assert torch.equal(after, torch.rand(1))

    def test_refused_sizes_draw_nothing(self):
        before = torch.get_rng_state()
        with pytest.raises(UserError):
            ClassSplit.random(12, 5, 4)
        assert torch.equal(before, torch.get_rng_state())

    @pytest.mark.parametrize(
        "first, other, fitting",
        [
            (50, 7, "1, 2, 5, 10, 25, 50"),
            (97, 2, "fit: 1, 3"),
            (0, 10, "equal sizes"),
            (101, 1, "equal sizes"),
            (10, 0, "90"),
        ],
    )
    def test_sizes_that_miss_the_class_count_name_those_that_fit(self, first, other, fitting):
        with pytest.raises(UserError, match=f"{first} and {other} do not add up to 100 classes.*{fitting}") as caught:
            ClassSplit.sequential(100, first, other)
        assert "\n" not in str(caught.value)

    def test_a_class_twice_is_refused(self):
        with pytest.raises(UserError, match="every class"):
            ClassSplit(order=(0, 0, 1), boundaries=(0, 3))

    @pytest.mark.parametrize("boundaries", [(), (0, 2), (1, 3), (0, 2, 2, 3)])
    def test_boundaries_must_ascend_to_the_class_count(self, boundaries):
        with pytest.raises(UserError, match="ascend from 0 to the 3 classes"):
            ClassSplit(order=(0, 1, 2), boundaries=boundaries)

    @pytest.mark.parametrize("task", [0, 4])
    def test_tasks_are_counted_from_one(self, task):
        with pytest.raises(ValueError, match="counted from 1"):
            ClassSplit.sequential(6, 2, 2).classes(task)
