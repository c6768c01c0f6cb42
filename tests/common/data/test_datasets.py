"""Opening data sets in the layouts in which they occur."""

from __future__ import annotations

import gzip
import shutil
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from torchvision.datasets import ImageFolder

from common.data import cifar as cifar_module
from common.data.datasets import DATASET_NAMES, open_dataset
from common.data.images import LazyImages
from common.training.errors import UserError
from tests.common.data.builders import (
    class_tree,
    flatten_val,
    idx_bytes,
    jpeg,
    original_cifar100,
    real_images,
    write,
    write_idx,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def offline(monkeypatch):
    """Every download fails, as without a network."""

    def fail(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", fail)
    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", fail)


def write_npz(root, name="cifar100", classes=100, images=None, **change):
    images = real_images(4) if images is None else images
    arrays = {"classes": np.array([f"c{k}" for k in range(classes)])}
    for split in ("train", "test"):
        arrays |= {f"{split}_images": images, f"{split}_labels": np.arange(len(images)) % classes}
    np.savez(root / f"{name}.npz", **{**arrays, **change})
    return root / f"{name}.npz"


class TestOpenDataset:
    def test_unknown_name_lists_the_known_ones(self):
        with pytest.raises(UserError, match="unknown data set 'CIFAR'; known: CIFAR10, CIFAR100, MNIST"):
            open_dataset("CIFAR", "", "train")

    def test_unknown_split(self):
        with pytest.raises(UserError, match="split must be train or test, got 'val'"):
            open_dataset("CIFAR100", "", "val")

    @pytest.mark.parametrize("name", [name for name in DATASET_NAMES if name != "Sample"])
    @pytest.mark.parametrize("download", [True, False])
    def test_a_missing_set_says_in_one_line_what_is_expected_and_how_to_get_it(self, tmp_path, offline, name, download):
        with pytest.raises(UserError) as caught:
            open_dataset(name, tmp_path, "train", download=download)
        message = str(caught.value)
        assert "\n" not in message
        assert str(tmp_path) in message and f"repro data prepare {name.lower()} --from ARCHIVE" in message

    def test_no_random_number_is_drawn(self, tmp_path):
        class_tree(tmp_path, ["n01", "n02"])
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        for name in ("TinyImageNet", "SubImageNet", "Sample"):
            open_dataset(name, tmp_path, "train")
        assert torch.equal(before[0], torch.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1])


class TestCifar:
    @pytest.fixture
    def original(self, tmp_path, monkeypatch):
        """CIFAR-100 in the original layout, small, with its sums known to torchvision."""
        from hashlib import md5

        contents = original_cifar100(tmp_path)
        sums = {name: md5(content).hexdigest() for name, content in contents.items()}
        dataset = torchvision.datasets.CIFAR100
        monkeypatch.setattr(dataset, "train_list", [["train", sums["train"]]])
        monkeypatch.setattr(dataset, "test_list", [["test", sums["test"]]])
        monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": sums["meta"]})
        return tmp_path

    def test_original_files(self, original):
        train = open_dataset("CIFAR100", original, "train", download=False)
        assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), real_images(4))
        assert (train.labels.tolist(), train.classes) == ([0, 1, 0, 1], ["apple", "bear"])
        assert (train.copy, train.note) == ("sub-sampled", "4 of 50000 images, 2 of 100 classes")

    def test_original_files_go_before_prepared_ones(self, original):
        write_npz(original, images=real_images(9))
        assert len(open_dataset("CIFAR100", original, "train")) == 4

    def test_damaged_original_files(self, original, offline):
        path = original / "cifar-100-python" / "train"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(UserError, match="cifar-100-python is damaged or incomplete and downloading it failed"):
            open_dataset("CIFAR100", original, "train")

    def test_prepared_file_replaces_damaged_original_files(self, original):
        (original / "cifar-100-python" / "train").write_bytes(b"")
        write_npz(original)
        assert len(open_dataset("CIFAR100", original, "train", download=False).classes) == 100

    @pytest.mark.parametrize("name, classes", [("CIFAR10", 10), ("CIFAR100", 100)])
    def test_prepared_file(self, tmp_path, name, classes):
        write_npz(tmp_path, name.lower(), classes)
        test = open_dataset(name, tmp_path, "test")
        assert test.images.is_contiguous() and test.images.dtype == torch.uint8 and test.labels.dtype == torch.int64
        assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), real_images(4))
        assert (test.copy, test.note) == ("sub-sampled", f"4 of 10000 images, {classes} of {classes} classes")

    def test_known_content_is_original_and_other_content_of_that_size_re_encoded(self, tmp_path, monkeypatch):
        write_npz(tmp_path)
        monkeypatch.setattr(cifar_module.CifarFacts, "size", lambda facts, split: 4)
        train = open_dataset("CIFAR100", tmp_path, "train")
        assert train.copy == "re-encoded"
        monkeypatch.setitem(cifar_module.CIFAR["CIFAR100"].fingerprints, "train", train.fingerprint())
        assert open_dataset("CIFAR100", tmp_path, "train").copy == "original"

    @pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"text"])
    def test_damaged_prepared_file(self, tmp_path, damage):
        path = write_npz(tmp_path)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UserError, match="cifar100.npz is damaged.*run repro data prepare cifar100") as caught:
            open_dataset("CIFAR100", tmp_path, "train")
        assert "\n" not in str(caught.value)

    def test_one_changed_byte_is_noticed(self, tmp_path):
        path = write_npz(tmp_path)
        data = bytearray(path.read_bytes())
        place = data.index(real_images(4)[2].tobytes()) + 100
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match="is damaged"):
            open_dataset("CIFAR100", tmp_path, "train"), open_dataset("CIFAR100", tmp_path, "test")

    @pytest.mark.parametrize(
        "change", [{"train_images": np.zeros((4, 32, 32), np.uint8)}, {"train_labels": np.array([0, 1, 2, 100])}]
    )
    def test_prepared_file_with_other_arrays(self, tmp_path, change):
        write_npz(tmp_path, **change)
        with pytest.raises(UserError, match="prepare it again"):
            open_dataset("CIFAR100", tmp_path, "train")


class TestIdx:
    @pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "."])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_layouts(self, tmp_path, folder, zipped):
        images, labels = write_idx(tmp_path / folder, zipped=zipped)
        test = open_dataset("MNIST", tmp_path, "test", download=False)
        assert tuple(test.images.shape) == (12, 1, 28, 28)
        assert np.array_equal(test.images[:, 0].numpy(), images) and test.labels.tolist() == labels.tolist()
        assert (test.copy, test.note) == ("sub-sampled", "12 of 10000 images")

    def test_reads_what_torchvision_reads(self, tmp_path):
        for prefix in ("train", "t10k"):
            write_idx(tmp_path / "FashionMNIST" / "raw", prefix)
        theirs = torchvision.datasets.FashionMNIST(str(tmp_path), train=True)
        ours = open_dataset("FashionMNIST", tmp_path, "train", download=False)
        assert torch.equal(ours.images[:, 0], theirs.data) and torch.equal(ours.labels, theirs.targets)
        assert ours.classes == theirs.classes

    @pytest.mark.parametrize(
        "damage, message",
        [
            (lambda data: gzip.compress(data)[:-40], "is damaged or incomplete"),
            (lambda data: data[:-1], "values, its header says"),
            (lambda data: b"<html>", "no IDX file"),
            (lambda data: data[:10], "no IDX file"),
            (lambda data: b"\0\0\x0d" + data[3:], "no IDX file"),
        ],
    )
    def test_damage_is_named(self, tmp_path, damage, message):
        images, _ = write_idx(tmp_path)
        write(tmp_path / "t10k-images-idx3-ubyte", damage(idx_bytes(images)))
        with pytest.raises(UserError, match=f"t10k-images-idx3-ubyte.*{message}"):
            open_dataset("MNIST", tmp_path, "test", download=False)

    def test_images_and_labels_of_different_number(self, tmp_path):
        write_idx(tmp_path)
        write(tmp_path / "t10k-labels-idx1-ubyte", idx_bytes(np.zeros(3, np.uint8)))
        with pytest.raises(UserError, match="expected N images of 28 x 28 and N labels"):
            open_dataset("MNIST", tmp_path, "test", download=False)

    def test_label_out_of_range(self, tmp_path):
        write_idx(tmp_path)
        write(tmp_path / "t10k-labels-idx1-ubyte", idx_bytes(np.full(12, 10, np.uint8)))
        with pytest.raises(UserError, match="label 10 found, MNIST has 10 classes"):
            open_dataset("MNIST", tmp_path, "test", download=False)

    def test_notmnist_is_never_complete(self, tmp_path):
        write_idx(tmp_path)
        test = open_dataset("notMNIST", tmp_path, "test")
        assert (test.copy, test.classes) == ("sub-sampled", list("ABCDEFGHIJ"))


class TestTinyImageNet:
    CLASSES = ["n02", "n01", "n10"]

    @pytest.mark.parametrize("inner", ["", "images"])
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_regrouped_tree_as_image_folder_reads_it(self, tmp_path, inner, split):
        class_tree(tmp_path, self.CLASSES, inner=inner)
        ours = open_dataset("TinyImageNet", tmp_path, split)
        theirs = ImageFolder(str(tmp_path / ("train" if split == "train" else "val")))
        assert ours.classes == theirs.classes == sorted(self.CLASSES)
        assert ours.labels.tolist() == theirs.targets
        for image, (expected, _) in zip(ours.images, theirs, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected))

    def test_flat_official_validation_folder_gives_the_same_set(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        regrouped = open_dataset("TinyImageNet", tmp_path, "test")
        flatten_val(tmp_path)
        assert not (tmp_path / "val" / "n01").exists()
        flat = open_dataset("TinyImageNet", tmp_path, "test")
        assert torch.equal(flat.labels, regrouped.labels)
        assert flat.fingerprint() == regrouped.fingerprint()

    def test_test_images_need_no_training_images(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        whole = open_dataset("TinyImageNet", tmp_path, "test")
        shutil.rmtree(tmp_path / "train")
        alone = open_dataset("TinyImageNet", tmp_path, "test")
        assert (alone.classes, alone.note) == (whole.classes, whole.note)
        assert torch.equal(alone.images, whole.images) and torch.equal(alone.labels, whole.labels)
        with pytest.raises(UserError, match="expected train/<class>/"):
            open_dataset("TinyImageNet", tmp_path, "train")

    def test_left_overs_of_regrouping_are_no_class(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        write(tmp_path / "val" / "val_annotations.txt", b"")
        (tmp_path / "val" / "images").mkdir()
        assert len(open_dataset("TinyImageNet", tmp_path, "test").classes) == 3

    def test_note_says_what_is_missing(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        write(tmp_path / "train" / "n01" / "more.JPEG", jpeg(real_images(1)[0], side=64))
        train, test = (open_dataset("TinyImageNet", tmp_path, split) for split in ("train", "test"))
        assert (train.copy, train.note) == ("sub-sampled", "3 of 200 classes; 3 to 4 of 500 images per class")
        assert test.note == "3 of 200 classes; 2 of 50 images per class"

    def test_grey_images_become_rgb(self, tmp_path):
        class_tree(tmp_path, ["n01"], train=1)
        write(tmp_path / "train" / "n01" / "n01_0.JPEG", jpeg(real_images(1)[0, :, :, 0], side=64))
        image = open_dataset("TinyImageNet", tmp_path, "train").images[0]
        assert image.shape == (3, 64, 64) and torch.equal(image[0], image[1])

    def test_classes_of_train_and_val_must_agree(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        write(tmp_path / "val" / "n99" / "x.JPEG", jpeg(real_images(1)[0], side=64))
        with pytest.raises(UserError, match="different class folders, e.g. n99"):
            open_dataset("TinyImageNet", tmp_path, "test")

    def test_an_empty_class_is_named(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        for file in (tmp_path / "train" / "n02").iterdir():
            file.unlink()
        with pytest.raises(UserError, match="n02 holds no image"):
            open_dataset("TinyImageNet", tmp_path, "train")

    def test_a_class_without_annotation_is_named(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        flatten_val(tmp_path)
        annotations = tmp_path / "val" / "val_annotations.txt"
        annotations.write_text("".join(line for line in annotations.open() if "\tn10\t" not in line))
        with pytest.raises(UserError, match="lacks images of 1 of 3 classes in train/, e.g. n10"):
            open_dataset("TinyImageNet", tmp_path, "test")

    def test_a_damaged_annotation_file(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        flatten_val(tmp_path)
        (tmp_path / "val" / "val_annotations.txt").write_text("half a li")
        with pytest.raises(UserError, match="val_annotations.txt is damaged"):
            open_dataset("TinyImageNet", tmp_path, "test")

    def test_images_of_another_size_are_refused(self, tmp_path):
        class_tree(tmp_path, self.CLASSES, side=32)
        with pytest.raises(UserError, match="is 32 x 32 pixels, expected 64 x 64"):
            open_dataset("TinyImageNet", tmp_path, "train")

    def test_a_damaged_image_is_named(self, tmp_path):
        class_tree(tmp_path, self.CLASSES)
        write(tmp_path / "train" / "n10" / "n10_1.JPEG", b"")
        with pytest.raises(UserError, match="n10_1.JPEG cannot be decoded"):
            open_dataset("TinyImageNet", tmp_path, "train")


class TestOtherFolders:
    def test_subimagenet_is_decoded_when_asked_for(self, tmp_path):
        class_tree(tmp_path, ["n01", "n02"], side=90)
        train = open_dataset("SubImageNet", tmp_path, "train")
        assert isinstance(train.images, LazyImages) and train.is_lazy
        assert train.images.paths[3] == "train/n02/n02_0.JPEG"
        assert train.images.load(3).size == (90, 90)
        assert (train.labels.tolist(), train.copy) == ([0, 0, 0, 1, 1, 1], "sub-sampled")
        assert "2 of 100 classes" in train.note and "not published" in train.note

    def test_fivedatasets_fits_in_memory(self, tmp_path):
        class_tree(tmp_path, [f"{k:02}" for k in range(50)], train=1, val=1, side=32, suffix=".png")
        test = open_dataset("FiveDatasets", tmp_path, "test")
        assert tuple(test.images.shape) == (50, 3, 32, 32)
        assert (test.labels.tolist(), test.copy) == (list(range(50)), "original")
        assert "cannot be compared" in test.note

    def test_fivedatasets_with_missing_classes(self, tmp_path):
        class_tree(tmp_path, ["a", "b"], side=32)
        assert open_dataset("FiveDatasets", tmp_path, "train").note.startswith("2 of 50 classes")
