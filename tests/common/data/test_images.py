"""ImageSet: fingerprints and parts of a set."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from common.data.images import ImageSet, LazyImages, load_rgb
from common.training.errors import UserError
from tests.common.data.builders import jpeg, real_images, write

pytestmark = pytest.mark.unit


@pytest.fixture
def images() -> ImageSet:
    """Seven images of three classes: labels 2 0 1 0 2 2 0."""
    pixels = torch.from_numpy(real_images(7)).permute(0, 3, 1, 2).contiguous()
    return ImageSet("Test", "train", pixels, torch.tensor([2, 0, 1, 0, 2, 2, 0]), ["a", "b", "c"])


class TestFingerprint:
    def test_is_a_sha256(self, images):
        assert len(images.fingerprint()) == 64

    def test_does_not_depend_on_the_order_across_classes(self, images):
        order = torch.tensor([1, 0, 3, 2, 6, 4, 5])  # 0 2 0 1 0 2 2: same order inside every class
        other = replace(images, images=images.images[order], labels=images.labels[order])
        assert other.fingerprint() == images.fingerprint()

    def test_depends_on_the_order_inside_a_class(self, images):
        order = torch.tensor([4, 1, 2, 3, 0, 5, 6])
        other = replace(images, images=images.images[order], labels=images.labels[order])
        assert other.fingerprint() != images.fingerprint()

    def test_sees_one_pixel_one_label_and_the_shape(self, images):
        pixels = images.images.clone()
        pixels[3, 1, 5, 5] ^= 1
        labels = images.labels.clone()
        labels[0] = 1
        others = [{"images": pixels}, {"labels": labels}, {"images": images.images.reshape(7, 3, 16, 64)}]
        assert len({images.fingerprint(), *(replace(images, **other).fingerprint() for other in others)}) == 4

    def test_of_files_covers_paths_and_sizes(self, tmp_path):
        for k, pixels in enumerate(real_images(2)):
            write(tmp_path / f"{k}.jpg", jpeg(pixels))

        def fingerprint(*paths):
            labels = torch.zeros(len(paths), dtype=torch.int64)
            return ImageSet("Test", "train", LazyImages(tmp_path, paths), labels, ["a"]).fingerprint()

        first = fingerprint("0.jpg", "1.jpg")
        assert fingerprint("1.jpg", "0.jpg") == first
        assert fingerprint("0.jpg") != first
        write(tmp_path / "1.jpg", jpeg(real_images(3)[2], side=40))
        assert fingerprint("0.jpg", "1.jpg") != first


class TestParts:
    def test_subset_keeps_the_order_asked_for(self, images):
        part = images.subset([5, 0])
        assert part.labels.tolist() == [2, 2]
        assert torch.equal(part.images, images.images[[5, 0]])
        assert (part.copy, part.note, part.classes) == ("sub-sampled", "2 of 7 images", ["a", "b", "c"])

    def test_all_images_are_still_the_original(self, images):
        assert images.subset(torch.arange(7)).copy == "original"

    def test_per_class_takes_the_first_of_every_class(self, images):
        part = images.per_class(2)
        assert torch.equal(part.images, images.images[[0, 1, 2, 3, 4]])
        assert part.copy == "sub-sampled"
        assert images.per_class(3).copy == "original"

    def test_classes_only_takes_the_first_classes(self, images):
        part = images.classes_only(2)
        assert (part.labels.tolist(), part.classes) == ([0, 1, 0, 0], ["a", "b"])
        assert (part.copy, part.note) == ("sub-sampled", "2 of 3 classes")
        assert images.classes_only(3) is images

    @pytest.mark.parametrize("count", [0, 4])
    def test_impossible_class_counts_are_refused(self, images, count):
        with pytest.raises(UserError, match=f"Test has 3 classes, {count} were asked for"):
            images.classes_only(count)

    def test_impossible_image_counts_are_refused(self, images):
        with pytest.raises(UserError, match="at least 1, got 0"):
            images.per_class(0)

    def test_of_files(self, tmp_path):
        for k, pixels in enumerate(real_images(3)):
            write(tmp_path / f"{k}.jpg", jpeg(pixels))
        files = LazyImages(tmp_path, ("0.jpg", "1.jpg", "2.jpg"))
        part = ImageSet("Test", "train", files, torch.tensor([0, 1, 0]), ["a", "b"]).subset([2, 1])
        assert part.images.paths == ("2.jpg", "1.jpg")
        assert part.images.load(0).tobytes() == Image.open(tmp_path / "2.jpg").tobytes()

    def test_images_and_labels_must_agree_in_number(self, images):
        with pytest.raises(ValueError, match="7 images but 6 labels"):
            replace(images, labels=images.labels[:6])


class TestLoadRgb:
    def test_grey_becomes_rgb(self, tmp_path):
        path = write(tmp_path / "grey.jpg", jpeg(real_images(1)[0, :, :, 0]))
        assert load_rgb(path).mode == "RGB"

    def test_a_truncated_file_is_named(self, tmp_path):
        data = jpeg(real_images(1)[0], side=64)
        path = write(tmp_path / "half.jpg", data[: len(data) // 2])
        with pytest.raises(UserError, match="half.jpg cannot be decoded"):
            load_rgb(path)
