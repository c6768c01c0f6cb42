"""What the benchmarks keep is what `repro` reads; every program has the flag."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import cudfkd, lra, prompt_distill, rfd, segmentation, vdfd
from benchmarks.reporting import command_of
from common.backbones.registry import build_backbone
from common.training.options import parse_config
from prompt_distill.vit import ViTSize
from repro.registry import read_registry
from repro.speed import read_speed
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit
PROGRAMS = {one.__name__.removeprefix("benchmarks."): one for one in (cudfkd, lra, prompt_distill, rfd, vdfd)}
PROGRAMS["seg"] = segmentation
TINY = {
    "cudfkd": "--teacher wrn16_1 --student resnet8 --batch_size 4 --ngf 4",
    "lra": "--teacher wrn-10-1 --student wrn-10-1 --batch_size 16 --latent_dim 8 --img_size 8",
    "prompt_distill": "--batch 2",
    "rfd": "--blocks 2 --width 4 --batch 6 --gen_width 8 --classes 3 --fast",
    "seg": "--backbone resnet14 --width 8 --crop 64 --batch 3 --label_side 16 --threads 1 --kept_backbone resnet14 "
    "--kept_crop 32",
    "vdfd": "--settings task --old_tasks 1 --importance_images 16 --threads 1",
}


def test_every_paper_has_a_program():
    assert set(PROGRAMS) == {one.paper for one in read_registry(REPOSITORY)}


@pytest.mark.parametrize("paper", PROGRAMS)
def test_a_result_is_kept_and_read(paper, tmp_path, monkeypatch):
    program, words = PROGRAMS[paper], f"--rounds 1 {TINY[paper]}"
    if paper == "vdfd":
        sizes = {"widths": (4, 4, 8, 16), "blocks": (1, 1, 1, 1)}
        monkeypatch.setattr(vdfd, "build_backbone", lambda *names: build_backbone(*names, **sizes))
    if paper == "prompt_distill":
        monkeypatch.setattr(prompt_distill, "TEACHER", ViTSize(24, 12, 2, image=32))
        monkeypatch.setattr(prompt_distill, "STUDENT", ViTSize(12, 12, 2, image=32))
    threads = torch.get_num_threads()
    try:
        program.main([*words.split(), "--save", "--save_to", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    (one,) = read_speed(tmp_path / f"{paper}.json", Path("kept"))
    module = program.__name__
    assert one.command == f"python -m {module} {' '.join(sorted_as(program, words))}"
    assert len(one.rows) >= 3 and len(one.figures) == (2 if paper == "seg" else 0)
    assert one.options["rounds"] == 1 and "save" not in one.options and str(tmp_path) not in repr(one)
    assert one.hardware["device"] == "cpu" and one.hardware["threads"] == one.options["threads"]


def sorted_as(program, words: str) -> list[str]:
    """The words in the order of the program's flags, defaults left out."""
    options = parse_config(program.BenchmarkOptions, words.split())
    return command_of(program.__name__.removeprefix("benchmarks."), options).split()[3:]


def test_a_command_names_what_differs_from_the_defaults():
    options = vdfd.BenchmarkOptions(save=True, save_to="x", rounds=2, old_tasks=[1, 9])
    assert command_of("vdfd", options) == "python -m benchmarks.vdfd --rounds 2 --old_tasks 1 9"
    assert command_of("rfd", rfd.BenchmarkOptions(fast=True)) == "python -m benchmarks.rfd --fast"


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path):
    cudfkd.main([*TINY["cudfkd"].split(), "--rounds", "1", "--save_to", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
