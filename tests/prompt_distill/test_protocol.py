"""Tasks, image lists, transforms, learning rates, summaries, result files."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pictures

from common.data.resized_crop import BatchResizedCrop
from common.training.errors import UserError
from prompt_distill.data import transform_spec
from prompt_distill.logs import compared_numbers, read_logs
from prompt_distill.schedule import epoch_rates
from prompt_distill.split_lists import open_listed, read_list
from prompt_distill.summary import RunAccuracies, last_forgetting, summarise, write_histories, write_result_yaml
from prompt_distill.tasks import class_tasks, seeded_order, task_places, validation_split

pytestmark = pytest.mark.unit


def test_cosine_repeats_its_first_rate_and_ends_a_step_early():
    rates = epoch_rates("cosine", 0.001, [20])
    assert rates[0] == rates[1] == 0.001
    assert rates[2] == pytest.approx(0.00099665, rel=1e-5) and rates[-1] == pytest.approx(9.74e-05, rel=1e-3)
    assert epoch_rates("cosine", 0.001, [1]) == [0.001]


def test_decay_and_constant():
    assert epoch_rates("decay", 1.0, [2, 4]) == pytest.approx([1.0, 1.0, 0.1, 0.1])
    assert epoch_rates("constant", 0.5, [3]) == [0.5] * 3
    with pytest.raises(UserError, match="schedule"):
        epoch_rates("cosine", 0.1, [0])


def test_tasks_take_classes_until_they_are_used_up():
    assert class_tasks(7, 3, 2) == [[0, 1, 2], [3, 4], [5, 6]]
    assert class_tasks(7, 3, 3, 2) == [[0, 1, 2], [3, 4, 5]]
    assert class_tasks(4, 2, 2, order=[3, 1, 0, 2]) == [[3, 1], [0, 2]]
    assert seeded_order(100, 1) == seeded_order(100, 1) != list(range(100))


def test_images_of_a_task_keep_the_list_order():
    targets = torch.tensor([1, 0, 2, 0, 1])
    assert task_places(targets, [0, 1]).tolist() == [0, 1, 3, 4]
    assert task_places(targets, [0, 1], torch.tensor([4, 2, 1])).tolist() == [4, 1]
    kept, others = validation_split(11, 5)
    assert len(kept) == 8 and sorted([*kept.tolist(), *others.tolist()]) == list(range(11))
    assert validation_split(11, -1)[0].tolist() == validation_split(11, 2**32 - 1)[0].tolist()


@pytest.mark.parametrize(
    ("name", "train", "test", "first_task"),
    [("ImageNet_R", 24_000, 6_000, 2166), ("ImageNet_A", 5_950, 1_500, 1205)],
)
def test_image_lists(name, train, test, first_task):
    paths, labels = read_list(name, "train")
    assert len(paths) == len(labels) == train and len(read_list(name, "test")[0]) == test
    assert len(task_places(labels, range(20))) == first_task


def test_missing_images_and_lists_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match="unpack the published archive"):
        open_listed("ImageNet_R", tmp_path, "train")
    with pytest.raises(UserError, match="CODA-Prompt"):
        open_listed("DomainNet", tmp_path, "train")


def test_lists_of_coda_prompts_form_are_read(tmp_path):
    folder = tmp_path / "domainnet"
    folder.mkdir()
    content = {"data": ["data/domainnet/real/dog/1.jpg"], "targets": [3]}
    (folder / "domainnet_train.yaml").write_text(yaml.safe_dump(content))
    paths, labels = read_list("DomainNet", "train", tmp_path)
    assert paths == ["real/dog/1.jpg"] and labels.tolist() == [3]


def test_batches_are_cropped_as_torchvision_crops_single_images():
    spec = transform_spec("CIFAR100")
    transform = BatchResizedCrop(spec, train=True, side=32)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=generator)
    draws = transform.draw(12, generator)
    assert draws.flip.any() and not draws.flip.all()
    for image, ours, top, left, height, width, flip in zip(images, transform(images, draws), *draws, strict=True):
        window = (int(top), int(left), int(height), int(width))
        theirs = pictures.resized_crop(pictures.to_pil_image(image), *window, [224, 224], InterpolationMode.BILINEAR)
        theirs = pictures.to_tensor(pictures.hflip(theirs) if flip else theirs)
        assert (ours - theirs).abs().max() < 1.01 / 255
    whole = pictures.to_tensor(pictures.resize(pictures.to_pil_image(images[0]), 224))
    assert (BatchResizedCrop(spec, train=False, side=32)(images)[0] - whole).abs().max() < 1.01 / 255


def test_forgetting_counts_the_last_task_unless_told_otherwise():
    rows = [[90.0], [80.0, 70.0], [60.0, 65.0, 85.0]]
    assert last_forgetting(rows) == pytest.approx((30 + 5 + 0) / 3)
    assert last_forgetting(rows, 2) == pytest.approx(35 / 2)


def accuracies() -> RunAccuracies:
    found = RunAccuracies()
    found.add([{"student": 80.0, "student_local": 85.0, "teacher": 90.0}])
    found.add(
        [
            {"student": 70.0, "student_local": 84.0, "teacher": 88.0},
            {"student": 60.0, "student_local": 75.0, "teacher": 91.0},
        ]
    )
    return found


def test_summary_and_result_files_by_hand(tmp_path):
    metrics = summarise(accuracies())
    assert metrics["acc"] == 65.0 and metrics["forgetting"] == 5.0 and metrics["forgetting_without_last"] == 10.0
    assert metrics["teacher_acc"] == 89.5 and metrics["accuracy_matrix"] == [[80.0, None], [70.0, 60.0]]
    write_histories(tmp_path, accuracies(), july=False)
    assert (tmp_path / "Results" / "acc_s.csv").read_text() == "80.00\n65.00\n"
    assert (tmp_path / "Results" / "acc.csv").read_text() == "90.00\n89.50\n"
    write_result_yaml(tmp_path, [metrics, metrics], [1.0, 3.0])
    table = yaml.safe_load((tmp_path / "results-acc" / "pt.yaml").read_text())
    assert table["mean"] == [[80.0, 70.0], [0.0, 60.0]] and table["history"][1][1] == [60.0, 60.0]
    assert yaml.safe_load((tmp_path / "results-time" / "global.yaml").read_text())["std"] == [1.0]


def test_a_student_alone_has_no_teachers_numbers():
    found = RunAccuracies()
    found.add([{"student": 80.0, "student_local": 85.0}])
    assert "teacher_acc" not in summarise(found)


def test_authors_logs_stand_beside_ours_or_ask_for_weights(tmp_path):
    run = read_logs()["log_base_small_c100"]
    assert run.matrix("student")[10, 1] == 84.3 and run.matrix("teacher")[1, 1] == 99.1
    rows = [row for row in compared_numbers([tmp_path]) if row["log"] == run.name]
    assert {row["missing"] for row in rows} == {"needs weights"} and not any(row["ours"] for row in rows)
    assert {("A", 83.58), ("F", 8.16)} < {(row["quantity"], row["authors"]) for row in rows}

    content = {"cell": "prompt_distill/cifar-base-small-coda-cdl", "status": "finished", "labels": []}
    (tmp_path / "record.json").write_text(json.dumps(content | {"metrics": summarise(accuracies())}))
    rows = [row for row in compared_numbers([tmp_path]) if row["log"] == run.name]
    ours = {(row["who"], row["quantity"]): row["ours"] for row in rows}
    assert ours["student", "A"] == 65.0 and ours["student", "task 1 after task 2"] == 70.0
    assert ours["student", "task 3 after task 3"] is None and not any("missing" in row for row in rows)


def test_only_unchanged_runs_stand_beside_the_authors_and_their_seed_is_named(tmp_path):
    def plant(name: str, seed: int, acc: float, changed: dict[str, list]) -> None:
        content = {"cell": "prompt_distill/cifar-base-tiny-coda-cdl", "status": "finished", "labels": []}
        content |= {"seed": seed, "changed": changed, "metrics": summarise(accuracies()) | {"acc": acc}}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    def ours() -> list[tuple[str, float | None]]:
        rows = compared_numbers([tmp_path])
        return [
            (row["setting"], row["ours"])
            for row in rows
            if row["log"] == "log_base_tiny_c100" and row["quantity"] == "A" and row["who"] == "student"
        ]

    plant("faster", 1, 99.0, {"lr": [0.001, 0.01]})
    ((setting, value),) = ours()
    assert value is None and "ours" not in setting
    plant("first", 1, 60.0, {})
    plant("second", 0, 61.0, {"seed": [1, 0]})
    plant("third", 2, 62.0, {"seed": [1, 2]})
    ((setting, value),) = ours()
    assert value == 61.0 and setting.endswith("ours: seed 0 of 0, 1, 2")
