"""Protocols: tasks, label maps, choice of images, loader, scores; with the published lists of images."""

from __future__ import annotations

import gzip
import random

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.files import open_archive
from common.data.import_camvid import import_camvid
from common.metrics.segmentation import SegmentationConfusion
from common.training.errors import UserError
from segmentation.data.label_maps import cityscape_map, table, voc_training_map
from segmentation.data.loader import PairLoader
from segmentation.data.protocol import Protocol
from segmentation.data.selection import clean_split, filter_images, hand_out, shuffled_split
from segmentation.data.sources import SAMPLE_ROOT, open_camvid, open_cityscapes, open_voc
from segmentation.data.transforms import draw_crop, training_pair
from segmentation.evaluation import predict, step_of_class
from segmentation.tasks import TASKS, find_task
from tests.helpers import REPOSITORY, shared_archive

pytestmark = pytest.mark.unit

PAPER = REPOSITORY / "repro" / "paper" / "seg"
CPU = torch.device("cpu")


def test_every_protocol_is_a_partition():
    for dataset, tasks in TASKS.items():
        for name in tasks:
            task = find_task(dataset, name)
            everything = [label for step in task.steps for label in step]
            assert sorted(everything) == list(range(len(everything))), (dataset, name)


def test_the_published_lists_of_images_follow_from_the_rule():
    """All 102 lists of RCIL's authors, exactly."""
    presence = np.load(PAPER / "voc_class_presence.npz")
    tables = {}
    for split in ("train_aug", "val"):
        tables[split] = np.zeros((len(presence[split]), 256), dtype=bool)
        tables[split][:, :21], tables[split][:, 255] = presence[split][:, :21], presence[split][:, 21]
    lists = np.load(PAPER / "voc_step_indices.npz")
    assert len(lists.files) == 102
    for name in lists.files:
        folder, _, file = name.partition(".")
        kind, _, step = file.rpartition("-")
        task = find_task("voc", folder.removesuffix("-ov"))
        labels, old = task.labels(int(step)), task.labels_old(int(step))
        if kind == "train":
            kept = filter_images(tables["train_aug"], labels, old, overlap=folder.endswith("-ov"))
        else:
            kept = filter_images(tables["val"], [*old, *labels] if kind == "test_on_val" else labels, [], True)
        assert np.array_equal(kept, lists[name]), name


def test_masking_by_hand():
    current = voc_training_map([3, 4], [0, 1, 2], "current")
    assert current[[0, 1, 2, 3, 4, 5, 255]].tolist() == [0, 0, 0, 3, 4, 0, 255]
    with_old = voc_training_map([3, 4], [0, 2, 1], "current+old")
    assert with_old[[0, 1, 2, 3, 4, 5, 255]].tolist() == [0, 2, 1, 3, 4, 0, 255]
    new = voc_training_map([3, 4], [0, 1, 2], "new")
    assert new[[0, 1, 2, 3, 4, 5, 255]].tolist() == [0, 255, 255, 3, 4, 255, 255]
    with pytest.raises(UserError, match="data_masking all"):
        voc_training_map([1], [0], "all")
    assert cityscape_map([11, 12], [*range(11)])[[0, 5, 12, 13, 255]].tolist() == [0, 5, 12, 0, 255]
    assert table({7: 1})[[6, 7]].tolist() == [6, 1]


def test_images_are_handed_out_once():
    presence = np.zeros((400, 256), dtype=bool)
    presence[:, 19] = True
    presence[:200, 17] = True
    owner = hand_out(presence)
    assert (owner == 17).sum() == 150 and (owner[:150] == 17).all() and (owner[150:] == 19).all()


def test_released_domain_lists_leak_and_clean_ones_do_not():
    """D11: 71 to 78 % of the published final test sets were training images; here the same at small size."""
    released, clean = (
        Protocol(find_task("camvid_domain", "1-1"), SAMPLE_ROOT, domain_split=split) for split in ("released", "clean")
    )
    assert not released.step(3).unseen.all() and released.step(0).unseen.all()
    for step in range(4):
        data = clean.step(step)
        assert data.unseen.all()
        assert not set(data.train.indices) & set(data.test.indices)
    domains = np.repeat(np.arange(3), 10)
    train, other = clean_split(domains, [0, 2])
    assert len(train) == 16 and sorted([*train, *other]) == [*range(10), *range(20, 30)]
    assert len(shuffled_split(np.arange(7))[0]) == 5


def test_the_test_may_be_on_training_images():
    """--val_on_trainset changes the test, whatever its name; --test_on_val leaves the last fifth of it."""
    task = find_task("camvid", "7-4")
    usual, on_train, last = (
        Protocol(task, SAMPLE_ROOT, overlap=True, **flags).step(1)
        for flags in ({}, {"val_on_trainset": True}, {"val_on_trainset": True, "test_on_val": True})
    )
    assert np.array_equal(on_train.validation.indices, usual.validation.indices)
    assert on_train.validation.source is not on_train.test.source and on_train.test.source is on_train.train.source
    assert set(on_train.test.indices) >= set(usual.train.indices) and not on_train.unseen.any()
    assert usual.unseen.all() and len(last.train) == int(0.8 * len(usual.train))
    assert set(last.test.indices) < set(on_train.test.indices)


def test_counts_of_cityscapes_domains(tmp_path):
    """Sizes of 11-5, and how many test images were training images of some step, from file names alone."""
    counts = dict(
        aachen=174, bremen=316, darmstadt=85, erfurt=109, hanover=196, krefeld=99, strasbourg=365, tubingen=144,
        weimar=142, bochum=96, cologne=154, dusseldorf=221, hamburg=248, jena=119, monchengladbach=94, stuttgart=196,
        ulm=95, zurich=122, frankfurt=267, lindau=59, munster=174,
    )  # fmt: skip
    for city, count in counts.items():
        folder = tmp_path / "leftImg8bit" / ("val" if city in ("frankfurt", "lindau", "munster") else "train") / city
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{city}_{number:06}_000019_leftImg8bit.png").touch()
    source = open_cityscapes(tmp_path)
    assert source.masks[0] == "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    protocol = Protocol(find_task("cityscapes_domain", "11-5"), tmp_path)
    steps = [protocol.step(step) for step in range(3)]
    sizes = [(len(d.train), len(d.validation), len(d.test), int((~d.unseen).sum())) for d in steps]
    assert sizes == [(1504, 376, 376, 0), (702, 176, 552, 387), (573, 144, 695, 496)]


@pytest.mark.parametrize("lists", ["list", "splits"])
@pytest.mark.parametrize("images", ["VOCdevkit/VOC2012/JPEGImages", "JPEGImages"])
def test_voc_in_both_layouts(lists, images, tmp_path):
    (tmp_path / lists).mkdir()
    (tmp_path / lists / "val.txt").write_text("/JPEGImages/a.jpg /SegmentationClassAug/a.png\n")
    (tmp_path / images).mkdir(parents=True)
    (tmp_path / "SegmentationClassAug").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / images / "a.jpg")
    mask = Image.new("P", (6, 4), 5)
    mask.putpalette([0] * 768)
    mask.save(tmp_path / "SegmentationClassAug" / "a.png")
    image, labels = open_voc(tmp_path, "val").load(0)
    assert image.size == (6, 4) and np.asarray(labels).tolist() == [[5] * 6] * 4
    with pytest.raises(UserError, match="train_aug.txt of Pascal VOC not found"):
        open_voc(tmp_path, "train")


def test_ids_of_the_published_voc_lists():
    with gzip.open(PAPER / "voc_train_aug_ids.txt.gz", "rt") as stream:
        assert len(stream.read().split()) == len(np.load(PAPER / "voc_class_presence.npz")["train_aug"]) == 10582


def test_camvid_from_the_archive(tmp_path):
    with open_archive(shared_archive("camvid_domains.zip")) as archive:
        assert "148 frames of 4 sequences" in import_camvid(archive, tmp_path)
        assert "already there" in import_camvid(archive, tmp_path)
    source = open_camvid(tmp_path)
    assert len(source) == 148 and np.bincount(source.domains).tolist() == [37] * 4
    assert [len(open_camvid(tmp_path, [split])) for split in ("train", "val", "test")] == [80, 12, 56]
    protocol = Protocol(find_task("camvid_domain", "1-1"), tmp_path)
    assert [len(protocol.step(step).train) for step in range(4)] == [29] * 4
    image, labels = source.load(0)
    assert image.size == (480, 360) and set(np.unique(labels)) <= set(range(12))


def test_a_crop_is_inside_and_the_fallback_central():
    draws = random.Random(3)
    for _ in range(200):
        i, j, h, w = draw_crop(50, 30, draws)
        assert 0 <= i <= 30 - h and 0 <= j <= 50 - w and h > 0 and w > 0
    assert draw_crop(1000, 10, draws) == (0, 493, 10, 13)  # nothing of that ratio is large enough
    image, mask = Image.new("RGB", (50, 30)), Image.new("L", (50, 30), 4)
    image, mask, _ = training_pair(image, mask, 16, draws)
    assert image.size == mask.size == (16, 16) and np.unique(mask).tolist() == [4]


def loader(batch: int, rank: int = 0, processes: int = 1, workers: int = 0) -> PairLoader:
    data = Protocol(find_task("camvid", "7-4"), SAMPLE_ROOT, overlap=True).step(0)
    return PairLoader(
        data.train, size=16, augment=True, batch_size=batch, device=CPU, rank=rank, processes=processes, workers=workers
    )


def test_batches_depend_on_epoch_and_place_only():
    whole = list(loader(4).epoch(1))
    later = list(loader(4, workers=2).epoch(1, start=1))
    assert len(whole) == 3 and len(later) == 2
    for (images, labels), (same_images, same_labels) in zip(whole[1:], later, strict=True):
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)
    assert not torch.equal(whole[0][0], next(iter(loader(4).epoch(0)))[0])
    parts = [next(iter(loader(2, rank, 2).epoch(1)))[0] for rank in range(2)]
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole[0][0])


def test_every_test_image_counts_once_or_is_padded():
    shares = [[place for places, *_ in loader(4, rank, 3).all() for place in places] for rank in range(3)]
    assert sorted(place for share in shares for place in share) == list(range(14))
    padded = [[place for places, *_ in loader(4, rank, 3).all(padded=True) for place in places] for rank in range(3)]
    assert [len(share) for share in padded] == [5, 5, 5]


def test_scores_by_hand():
    confusion = SegmentationConfusion(3)
    confusion.add(torch.tensor([[[0, 0, 1, 255]]]), torch.tensor([[[0, 1, 1, 2]]]))
    scores = confusion.scores()
    assert scores.class_iou[:2] == [pytest.approx(0.5, abs=1e-5), pytest.approx(0.5, abs=1e-5)]
    assert scores.class_iou[2] is None and scores.mean_iou == pytest.approx(0.5, abs=1e-5)
    assert scores.overall_accuracy == pytest.approx(2 / 3) and scores.images == 1


def test_task_ids_keep_a_pixel_among_its_steps_classes():
    groups = step_of_class(find_task("camvid", "7-4"), 1, CPU)
    assert groups.tolist() == [0] * 8 + [1] * 4
    logits = torch.zeros(1, 12, 1, 3)
    logits[0, 2], logits[0, 9] = 1.0, 2.0
    labels = torch.tensor([[[1, 10, 255]]])
    assert predict(logits, labels, None).tolist() == [[[9, 9, 9]]]
    assert predict(logits, labels, groups)[0, 0, :2].tolist() == [2, 9]
