"""The embedded sample."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from common.data.datasets import open_dataset
from common.data.embedded import SAMPLE_FOLDER, open_sample
from common.data.files import open_archive
from common.data.make_sample import main
from common.data.strips import decode_strip, encode_strip
from common.training.errors import UserError
from tests.common.data.builders import cifar100_archive, jpeg, real_images
from tests.helpers import shared_archive

pytestmark = pytest.mark.unit


class TestSample:
    @pytest.mark.parametrize("split, per_class", [("train", 250), ("test", 50)])
    def test_size_and_description(self, split, per_class):
        sample = open_dataset("Sample", "/nowhere", split)
        assert tuple(sample.images.shape) == (20 * per_class, 3, 32, 32)
        assert torch.bincount(sample.labels).tolist() == [per_class] * 20
        assert (sample.name, sample.split, sample.copy) == ("Sample", split, "sub-sampled")
        assert "20 of 100 classes" in sample.note

    def test_is_bit_for_bit_what_the_archive_holds(self):
        with open_archive(shared_archive("cifar100.zip")) as archive:
            classes = archive.read("cifar100/classes.txt").decode().split()[::5]
            for split, count in (("train", 250), ("test", 50)):
                sample = open_dataset("Sample", "", split)
                assert sample.classes == classes
                for label, name in enumerate(classes):
                    original = decode_strip(archive.read(f"cifar100/{split}/{name}.webp"), name)[:count]
                    ours = sample.images[sample.labels == label].permute(0, 2, 3, 1).numpy()
                    assert np.array_equal(ours, original)

    def test_readme_states_the_fingerprints(self):
        stated = re.findall(r"[0-9a-f]{64}", (SAMPLE_FOLDER / "README.md").read_text())
        assert stated == [open_dataset("Sample", "", split).fingerprint() for split in ("train", "test")]

    def test_takes_at_most_ten_million_bytes(self):
        assert sum(file.stat().st_size for file in SAMPLE_FOLDER.rglob("*") if file.is_file()) <= 10_000_000

    def test_a_missing_file_is_reported(self, tmp_path):
        (tmp_path / "classes.txt").write_text("apple\n")
        with pytest.raises(UserError, match="embedded sample is incomplete.*apple.webp"):
            open_sample("train", tmp_path)


class TestMakeSample:
    def test_takes_every_fifth_class_of_an_archive(self, tmp_path, capsys):
        archive = cifar100_archive(tmp_path / "cifar100.zip", classes=[f"class{k}" for k in range(11)])
        main(["--archive", str(archive), "--folder", str(tmp_path / "sample")])
        sample = open_sample("train", tmp_path / "sample")
        assert sample.classes == ["class0", "class5", "class10"]
        with open_archive(archive) as opened:
            second = decode_strip(opened.read("cifar100/train/class5.webp"), "class5")
        assert np.array_equal(sample.images[3:6].permute(0, 2, 3, 1).numpy(), second)
        assert sample.fingerprint() in capsys.readouterr().out

    def test_refuses_another_archive(self, tmp_path):
        (tmp_path / "folder").mkdir()
        with pytest.raises(UserError, match="is not the CIFAR-100 archive"):
            main(["--archive", str(tmp_path / "folder")])


class TestStrips:
    def test_are_lossless(self):
        images = real_images(9)
        assert np.array_equal(decode_strip(encode_strip(images), "strip"), images)

    @pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:50], lambda data: b"RIFF" + data[:100]])
    def test_damage_is_reported(self, damage):
        with pytest.raises(UserError, match="apple cannot be decoded"):
            decode_strip(damage(encode_strip(real_images(2))), "apple")

    def test_other_images_are_refused(self):
        with pytest.raises(UserError, match="expected 32 wide"):
            decode_strip(jpeg(real_images(1)[0], side=40), "apple")
