"""Both loaders: content, order, resuming, independence of workers and of global random numbers."""

from __future__ import annotations

import io
import multiprocessing
import random

import numpy as np
import pytest
import torch

from common.data.datasets import open_dataset
from common.data.images import ImageSet
from common.data.loader import DeviceLoader, StreamLoader, make_loader, mixed_seed
from common.data.splits import ClassSplit
from common.data.transforms import TRANSFORMS, BatchTransform
from common.training.errors import UserError
from tests.common.data.builders import class_tree

pytestmark = pytest.mark.unit
SPEC = TRANSFORMS["Sample"]
PATHS = [("device", 0), ("dataloader", 0), ("dataloader", 2)]


@pytest.fixture(scope="module")
def sample() -> ImageSet:
    return open_dataset("Sample", "", "test").per_class(4)  # 80 images


def loader_for(
    sample: ImageSet, path: str, workers: int = 0, *, train: bool = True, seed: int = 7, batch_size: int = 5
):
    split = ClassSplit.sequential(20, 8, 4)
    indices, targets = split.indices(sample.labels, 1), split.targets(sample.labels, 1, remap=True)  # 32 images
    return make_loader(
        sample,
        indices,
        targets,
        SPEC,
        train=train,
        batch_size=batch_size,
        shuffle=train,
        device="cpu",
        seed=seed,
        workers=workers,
        path=path,
    )


def saved_and_loaded(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def assert_same(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for (images, targets), (other_images, other_targets) in zip(ours, theirs, strict=True):
        assert torch.equal(images, other_images) and torch.equal(targets, other_targets)


@pytest.mark.parametrize("path, workers", PATHS)
class TestBothLoaders:
    def test_sizes_types_and_last_incomplete_batch(self, sample, path, workers):
        loader = loader_for(sample, path, workers)
        batches = list(loader)
        assert (len(loader), loader.dataset_size) == (7, 32)
        assert [len(images) for images, _ in batches] == [5] * 6 + [2]
        images, targets = batches[0]
        assert (images.dtype, targets.dtype, tuple(images.shape)) == (torch.float32, torch.int64, (5, 3, 32, 32))

    def test_evaluation_delivers_every_image_in_order(self, sample, path, workers):
        batches = list(loader_for(sample, path, workers, train=False))
        expected = BatchTransform(SPEC, train=False)(sample.images[:32])
        assert torch.equal(torch.cat([images for images, _ in batches]), expected)
        assert torch.equal(torch.cat([targets for _, targets in batches]), sample.labels[:32])

    def test_training_shuffles_and_every_image_comes_once(self, sample, path, workers):
        targets = torch.cat([targets for _, targets in loader_for(sample, path, workers)])
        assert targets.tolist() != sorted(targets.tolist())
        assert torch.bincount(targets).tolist() == [4] * 8

    def test_passes_differ_and_repeat_with_the_seed(self, sample, path, workers):
        loader, again = loader_for(sample, path, workers), loader_for(sample, path, workers)
        first, second = list(loader), list(loader)
        assert not torch.equal(first[0][0], second[0][0])
        assert_same(first + second, list(again) + list(again))
        assert not torch.equal(first[0][0], next(iter(loader_for(sample, path, workers, seed=8)))[0])

    def test_augmentation_differs_from_pass_to_pass_and_image_to_image(self, sample, path, workers):
        loader = make_loader(
            sample,
            torch.zeros(8, dtype=torch.int64),
            sample.labels[:8],
            SPEC,
            train=True,
            batch_size=8,
            shuffle=False,
            device="cpu",
            seed=7,
            workers=workers,
            path=path,
        )
        ((first, _),) = loader
        ((second, _),) = loader
        assert not torch.equal(first, second)
        assert len({image.numpy().tobytes() for image in first}) > 4

    @pytest.mark.parametrize("stop", [1, 4, 6])
    def test_a_restored_loader_continues_exactly(self, sample, path, workers, stop):
        unbroken = loader_for(sample, path, workers)
        passes = [list(unbroken) for _ in range(3)]
        broken = loader_for(sample, path, workers)
        list(broken)
        for _ in broken:
            if broken.position == stop:
                state = saved_and_loaded(broken.state_dict())
                break
        restored = loader_for(sample, path, workers, seed=99)
        restored.load_state_dict(state)
        assert restored.position == stop
        assert_same(list(restored), passes[1][stop:])
        assert_same(list(restored), passes[2])

    def test_a_state_saved_between_passes_starts_the_next(self, sample, path, workers):
        unbroken = loader_for(sample, path, workers)
        list(unbroken)
        state = saved_and_loaded(unbroken.state_dict())
        second = list(unbroken)
        restored = loader_for(sample, path, workers)
        restored.load_state_dict(state)
        assert_same(list(restored), second)

    def test_a_state_saved_in_the_last_batch_says_that_the_pass_is_done(self, sample, path, workers):
        loader = loader_for(sample, path, workers)
        for _ in loader:
            state = loader.state_dict()
        assert state["position"] == len(loader)
        second = list(loader)
        restored = loader_for(sample, path, workers)
        restored.load_state_dict(saved_and_loaded(state))
        assert list(restored) == []
        assert_same(list(restored), second)

    def test_an_interrupted_pass_is_continued_by_the_same_loader(self, sample, path, workers):
        whole = list(loader_for(sample, path, workers))
        loader = loader_for(sample, path, workers)
        taken = []
        for batch in loader:
            taken.append(batch)
            if loader.position == 3:
                break
        assert_same(taken + list(loader), whole)

    def test_asking_for_an_iterator_alone_changes_nothing(self, sample, path, workers):
        loader = loader_for(sample, path, workers)
        iter(loader)
        assert_same(list(loader), list(loader_for(sample, path, workers)))

    def test_global_generators_are_left_alone(self, sample, path, workers):
        loader = loader_for(sample, path, workers)
        torch.manual_seed(0)  # why: a leak of an earlier test could leave the very state that a leak here leaves
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
        list(loader)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()
        assert np.array_equal(before[2], np.random.get_state()[1])

    def test_other_random_numbers_do_not_change_the_batches(self, sample, path, workers):
        expected = list(loader_for(sample, path, workers))
        torch.manual_seed(123)
        ours = []
        for batch in loader_for(sample, path, workers):
            torch.rand(3)
            ours.append(batch)
        assert_same(ours, expected)

    def test_a_state_of_other_sizes_is_refused(self, sample, path, workers):
        state = loader_for(sample, path, workers).state_dict()
        with pytest.raises(UserError, match="batch_size 5, now it is 8"):
            loader_for(sample, path, workers, batch_size=8).load_state_dict(state)

    def test_memory_format(self, sample, path, workers):
        loader = make_loader(
            sample,
            torch.arange(6),
            sample.labels[:6],
            SPEC,
            train=True,
            batch_size=3,
            shuffle=True,
            device="cpu",
            seed=0,
            workers=workers,
            path=path,
            memory_format=torch.channels_last,
        )
        images, _ = next(iter(loader))
        assert images.is_contiguous(memory_format=torch.channels_last)


class TestDeviceLoader:
    def test_batches_are_the_transform_of_the_drawn_images(self, sample):
        transform = BatchTransform(SPEC, train=True)
        loader = DeviceLoader(sample.images, sample.labels, transform, 16, shuffle=True, device="cpu", seed=4)
        generator = torch.Generator().manual_seed(mixed_seed(4, 1))
        order = torch.randperm(80, generator=generator)
        draws = transform.draw(80, generator)
        batches = list(loader)
        assert torch.equal(torch.cat([images for images, _ in batches]), transform(sample.images[order], draws))
        assert torch.equal(torch.cat([targets for _, targets in batches]), sample.labels[order])

    @pytest.mark.gpu
    def test_a_gpu_gives_the_same_batches_without_waiting_for_it(self, sample):
        def load(device):
            transform = BatchTransform(SPEC, train=True)
            return DeviceLoader(sample.images, sample.labels, transform, 16, shuffle=True, device=device, seed=4)

        batches = iter(load("cuda"))
        ours = [next(batches)]  # moves constants and the draws of the pass
        torch.cuda.set_sync_debug_mode("error")
        try:
            ours.extend(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert_same([(images.cpu(), targets.cpu()) for images, targets in ours], list(load("cpu")))


class TestStreamLoader:
    def test_results_do_not_depend_on_the_number_of_workers(self, sample):
        here, two = loader_for(sample, "dataloader", 0), loader_for(sample, "dataloader", 2)
        for _ in range(2):
            assert_same(list(here), list(two))

    def test_random_numbers_of_an_image_do_not_depend_on_the_batch_size(self, sample):
        small, big = (list(loader_for(sample, "dataloader", batch_size=size)) for size in (3, 32))
        assert torch.equal(torch.cat([images for images, _ in small]), torch.cat([images for images, _ in big]))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_image_files_are_decoded_cropped_and_resumed(self, tmp_path, workers):
        class_tree(tmp_path, ["n01", "n02"], side=80)
        files = open_dataset("SubImageNet", tmp_path, "train")

        def load():
            return make_loader(
                files,
                torch.arange(6),
                files.labels,
                TRANSFORMS["SubImageNet"],
                train=True,
                batch_size=2,
                shuffle=True,
                device="cpu",
                seed=1,
                workers=workers,
            )

        loader = load()
        assert isinstance(loader, StreamLoader)
        batches = list(loader)
        assert batches[0][0].shape == (2, 3, 224, 224)
        broken, restored = load(), load()
        next(iter(broken))
        restored.load_state_dict(broken.state_dict())
        assert_same(list(restored), batches[1:])

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_damaged_file_is_named_in_one_line(self, tmp_path, workers):
        class_tree(tmp_path, ["n01"], train=2, side=80)
        (tmp_path / "train" / "n01" / "n01_1.JPEG").write_bytes(b"\xff\xd8 no image")
        files = open_dataset("SubImageNet", tmp_path, "train")
        loader = make_loader(
            files,
            torch.arange(2),
            files.labels,
            TRANSFORMS["SubImageNet"],
            train=False,
            batch_size=2,
            shuffle=False,
            device="cpu",
            seed=1,
            workers=workers,
        )
        with pytest.raises(UserError, match="n01_1.JPEG cannot be decoded") as caught:
            list(loader)
        assert "\n" not in str(caught.value)


class TestMakeLoader:
    def test_images_in_memory_stay_on_the_device(self, sample):
        assert isinstance(loader_for(sample, "auto"), DeviceLoader)

    def test_images_in_memory_that_need_a_resized_crop_are_streamed(self, sample):
        loader = make_loader(
            sample,
            torch.arange(2),
            sample.labels[:2],
            TRANSFORMS["SubImageNet"],
            train=True,
            batch_size=2,
            shuffle=False,
            device="cpu",
            seed=0,
        )
        assert isinstance(loader, StreamLoader)
        assert next(iter(loader))[0].shape == (2, 3, 224, 224)

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"path": "gpu"}, "unknown data path 'gpu'; known: auto, device, dataloader"),
            ({"path": "device", "spec": TRANSFORMS["SubImageNet"]}, "use the data path dataloader or auto"),
            ({"batch_size": 0}, "batch size must be at least 1"),
            ({"indices": torch.arange(0)}, "no images"),
        ],
    )
    def test_bad_input_is_refused(self, sample, change, message):
        given = {
            "indices": torch.arange(2),
            "spec": SPEC,
            "train": True,
            "batch_size": 2,
            "shuffle": True,
            "device": "cpu",
            "seed": 0,
            **change,
        }
        with pytest.raises(UserError, match=message):
            make_loader(sample, targets=sample.labels[given["indices"]], **given)


@pytest.mark.parametrize(("keep", "left"), [(True, 2), (False, 0)])
def test_worker_processes_wait_for_the_next_pass_or_end_with_each(sample, keep, left):
    before = set(multiprocessing.active_children())
    loader = make_loader(
        sample,
        torch.arange(8),
        sample.labels[:8],
        SPEC,
        train=False,
        batch_size=4,
        shuffle=False,
        device="cpu",
        seed=0,
        workers=2,
        path="dataloader",
        keep_workers=keep,
    )
    passes = [[images for images, _ in loader] for _ in range(2)]
    assert len(set(multiprocessing.active_children()) - before) == left
    assert all(torch.equal(one, other) for one, other in zip(*passes, strict=True))
