"""ImageNet-R, ImageNet-A and DomainNet from files in the published layout: real JPEG images, decoded when needed."""

from __future__ import annotations

import gc
import json
import multiprocessing
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from common.data.datasets import open_dataset
from common.training.errors import UserError
from prompt_distill.configuration import get_config
from prompt_distill.data import TaskImages
from prompt_distill.main import main
from prompt_distill.split_lists import LISTED, read_list
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.smoke

SIDES = [(300, 260), (260, 300), (280, 280)]
FLAGS = [
    "--first_split_size", "2", "--other_split_size", "2", "--max_task", "2", "--gpuid", "-1", "--workers", "0",
    "--t_model", "vit_random_teacher", "--s_model", "vit_random_student", "--images_per_class", "3",
    "--batch_size", "3", "--schedule", "1", "--learner_name", "L2P", "--prompt_param", "8", "4", "-1",
]  # fmt: skip


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[Path]:
    """Shipped images as JPEG files of several shapes."""
    folder = tmp_path_factory.mktemp("photographs")
    images = open_dataset("Sample", REPOSITORY / "data", "train").images
    paths = []
    for number, image in enumerate(images[:: len(images) // 9][:9]):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(SIDES[number % 3])
        paths.append(folder / f"{number}.jpg")
        picture.save(paths[-1])
    return paths


def lay_out(root: Path, name: str, photographs: list[Path]) -> None:
    """Every file that the lists of a data set name, as a link to one of the photographs."""
    for split in ("train", "test"):
        paths, labels = read_list(name, split, root)
        for path, label in zip(paths, labels.tolist(), strict=True):
            place = root / LISTED[name].folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(photographs[label % len(photographs)])


def run(root: Path, out: Path, name: str) -> dict:
    main(["--dataset", name, "--dataroot", str(root), "--output_dir", str(out), *FLAGS])
    return json.loads((out / "record.json").read_text())


@pytest.mark.parametrize(("name", "tested"), [("ImageNet_R", 200), ("ImageNet_A", 192)])
def test_two_tasks_run_on_files_in_the_published_layout(name, tested, photographs, tmp_path):
    lay_out(tmp_path / "data", name, photographs)
    record = run(tmp_path / "data", tmp_path / "out", name)
    _, labels = read_list(name, "test")
    assert record["data"]["name"] == name and record["data"]["tasks"] == [[0, 1], [2, 3]]
    assert len(set(labels.tolist())) == tested and record["data"]["test_images"] == len(labels)
    assert len(record["metrics"]["accuracy_matrix"]) == 2


def test_domainnet_runs_on_lists_of_coda_prompts_form(photographs, tmp_path):
    folder = tmp_path / "data" / "domainnet"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        files = [f"data/domainnet/real/{split}/{label}_{number}.jpg" for label in range(4) for number in range(3)]
        content = {"data": files, "targets": [label for label in range(4) for _ in range(3)]}
        (folder / f"domainnet_{split}.yaml").write_text(yaml.safe_dump(content))
    lay_out(tmp_path / "data", "DomainNet", photographs)
    record = run(tmp_path / "data", tmp_path / "out", "DomainNet")
    assert record["data"]["train_images"] == 12 and record["data"]["classes"] == 4


def test_worker_processes_of_tested_tasks_do_not_pile_up(photographs, tmp_path):
    lay_out(tmp_path / "data", "ImageNet_A", photographs)
    words = ["--dataset", "ImageNet_A", "--dataroot", str(tmp_path / "data"), *FLAGS, "--workers", "1"]
    data = TaskImages(get_config(words)[0], 32, torch.device("cpu"), 0)
    before = set(multiprocessing.active_children())
    for task in (1, 2):
        next(iter(data.test_loader(task)))
        gc.collect()
        assert set(multiprocessing.active_children()) <= before


def test_a_missing_and_a_broken_photograph_are_named(photographs, tmp_path):
    lay_out(tmp_path, "ImageNet_R", photographs)
    paths, labels = read_list("ImageNet_R", "train")
    first = tmp_path / "imagenet-r" / paths[int(torch.nonzero(labels == 0)[0])]
    first.unlink()
    with pytest.raises(UserError, match=f"{first.name} is missing"):
        run(tmp_path, tmp_path / "out", "ImageNet_R")
    first.write_bytes(photographs[0].read_bytes()[:200])
    with pytest.raises(UserError, match=first.name):
        run(tmp_path, tmp_path / "out", "ImageNet_R")
