"""Transforms against Pillow and torchvision, loaders, and the layouts of data sets."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from common.data.embedded import open_sample
from common.data.prepare import prepare
from common.data.transforms import Draws
from common.training.errors import UserError
from rfd.data.image_sets import open_images
from rfd.data.protocol import class_split
from rfd.data.tasks import TaskImages
from rfd.data.transforms import ABD, CLLITE, ColourJitterCrop, JitterDraws, NormalisedPadding

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def sample():
    return open_sample("train").per_class(4)


def test_crops_are_padded_with_the_mean(sample):
    spec = CLLITE["cifar100"]
    images = sample.images[:6]
    draws = Draws(torch.tensor([0, 8, 4, 2, 3, 7]), torch.tensor([8, 0, 4, 5, 1, 6]), torch.tensor([True, False] * 3))
    found = NormalisedPadding(spec, train=True)(images, draws)
    for place, image in enumerate(images):
        plain = functional.normalize(image.float() / 255, spec.mean, spec.std)
        expected = functional.crop(functional.pad(plain, 4), int(draws.top[place]), int(draws.left[place]), 32, 32)
        expected = functional.hflip(expected) if draws.flip[place] else expected
        torch.testing.assert_close(found[place], expected, rtol=1e-6, atol=1e-6)
    assert found[0, :, :4].abs().max() == 0  # the first crop begins in the upper border


def test_colour_jitter_is_bit_equal_to_pillows(sample):
    transform, spec = ColourJitterCrop(ABD["cifar100"], train=True), ABD["cifar100"]
    images = sample.images[:40]
    draws = transform.draw(len(images), torch.Generator().manual_seed(3))
    bytes_ = transform.crop(transform.padded(images), torch.arange(len(images)), draws)
    for place, image in enumerate(images):
        one = JitterDraws(*(values[place] for values in draws))
        picture = functional.to_pil_image(image)
        steps = [functional.adjust_brightness, functional.adjust_contrast]
        factors = [float(one.brightness), float(one.contrast)]
        for number in (1, 0) if one.contrast_first else (0, 1):
            picture = steps[number](picture, factors[number])
        picture = functional.hflip(picture) if one.flip else picture
        picture = functional.crop(functional.pad(picture, 4), int(one.top), int(one.left), 32, 32)
        assert torch.equal(bytes_[place], functional.pil_to_tensor(picture)), place
    assert 0.2 < draws.contrast.min() + 0.01 and draws.brightness.max() <= 1 + 63 / 255
    assert transform.normalise(bytes_).shape == (40, 3, spec.size, spec.size)


def test_loaders_map_labels_and_leave_out_the_last_batch(sample):
    split = class_split([5, 2, 0, 1, *range(6, 20), 3, 4], [2, 18])
    data = TaskImages(sample, sample, split, CLLITE["sample"], batch_size=3, device=torch.device("cpu"))
    batches = list(data.train_loader(1))
    assert [len(target) for _, target in batches] == [3, 3]
    assert set(torch.cat([target for _, target in batches]).tolist()) <= {0, 1}
    test = torch.cat([target for _, target in data.test_loader(2)])
    assert len(test) == 18 * 4 and test.min() == 2 and test.max() == 19
    joint = list(data.joint_loader(2))
    assert len(joint) == 80 // 3
    with pytest.raises(UserError, match="smaller batches"):
        TaskImages(sample, sample, split, CLLITE["sample"], batch_size=9, device=torch.device("cpu")).train_loader(1)


def write_images(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (len(name), 0, 0)).save(folder / name)


def test_tiny_imagenet_classes_follow_wnids_or_the_alphabet(tmp_path):
    folder = tmp_path / "tiny-imagenet200"
    write_images(folder, [f"train/{name}/images/{name}_{i}.JPEG" for name in ("n1", "n2") for i in range(2)])
    write_images(folder, ["val/images/val_0.JPEG", "val/images/val_1.JPEG"])
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn1\t0\t0\nval_1.JPEG\tn2\t0\t0\n")
    (folder / "wnids.txt").write_text("n9\nn2\nn1\n")
    listed = open_images("tiny-imagenet200", tmp_path, "test")
    assert listed.classes == ["n2", "n1"] and listed.labels.tolist() == [1, 0]
    assert open_images("tiny-imagenet200", tmp_path, "test", sorted_classes=True).labels.tolist() == [0, 1]
    (folder / "wnids.txt").write_text("n2\n")
    with pytest.raises(UserError, match="n1"):
        open_images("tiny-imagenet200", tmp_path, "train")
    (folder / "wnids.txt").unlink()
    with pytest.raises(UserError, match=r"wnids\.txt is missing"):
        open_images("tiny-imagenet200", tmp_path, "train")
    assert open_images("tiny-imagenet200", tmp_path, "train", sorted_classes=True).classes == ["n1", "n2"]


def test_prepared_tiny_imagenet_keeps_the_archives_order_of_classes(tmp_path):
    source = tmp_path / "in" / "tiny-imagenet-200"
    write_images(source, [f"{split}/{name}/{name}_0.JPEG" for split in ("train", "val") for name in ("n1", "n2")])
    (source / "wnids.txt").write_text("n2\nn1\n")
    prepare("tinyimagenet", tmp_path / "data", tmp_path / "in")
    assert open_images("tiny-imagenet200", tmp_path / "data", "train").classes == ["n2", "n1"]


def test_an_image_list_may_end_without_a_newline(tmp_path):
    folder = tmp_path / "imagenet100"
    write_images(folder, ["train/a/1.JPEG", "train/b/2.JPEG"])
    (folder / "train_100.txt").write_text("train/a/1.JPEG 7\ntrain/b/2.JPEG 42")
    found = open_images("imagenet100", tmp_path, "train")
    assert found.labels.tolist() == [7, 42] and found.copy == "sub-sampled"
    assert found.images.load(1).size == (64, 64)
    (folder / "train_100.txt").write_text("train/a/1.JPEG 7\nno label\n")
    with pytest.raises(UserError, match="line 2"):
        open_images("imagenet100", tmp_path, "train")


def test_imagenet_r_lists_beside_or_above_the_images(tmp_path):
    root = tmp_path / "data"
    write_images(root, ["imagenet-r/n1/a.jpg", "imagenet-r/n2/b.jpg"])
    text = "data:\n- data/imagenet-r/n1/a.jpg\n- data/imagenet-r/n2/b.jpg\ntargets: [3, 199]\n"
    (root / "imagenet-r_train.yaml").write_text(text)
    found = open_images("imagenet-r", root, "train")
    assert found.labels.tolist() == [3, 199] and found.images.load(0).size == (64, 64)
    (root / "imagenet-r_test.yaml").write_text("data: [a.jpg]\n")
    with pytest.raises(UserError, match="targets"):
        open_images("imagenet-r", root, "test")


@pytest.mark.parametrize("name", ["tiny-imagenet200", "imagenet100", "imagenet-r", "nothing"])
def test_missing_data_say_what_is_expected(name, tmp_path):
    with pytest.raises(UserError) as refused:
        open_images(name, tmp_path, "train")
    assert "\n" not in str(refused.value)
