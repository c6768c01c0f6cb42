"""Where test images are found."""

from __future__ import annotations

import shutil

import pytest

from adversarial_dfkd.data import open_test_images
from tests.common.data.builders import class_tree

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("slash", ["", "/"])
def test_tiny_imagenet_lies_where_the_original_reads_it(slash, tmp_path):
    """D14: class folders in data/tiny_imagenet/val, and no training images."""
    class_tree(tmp_path / "tiny_imagenet", ["n02", "n01"])
    shutil.rmtree(tmp_path / "tiny_imagenet" / "train")
    images = open_test_images("tiny-imagenet", f"{tmp_path}{slash}")
    assert images.classes == ["n01", "n02"] and images.labels.tolist() == [0, 0, 1, 1]
