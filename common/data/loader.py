"""Batches of one task's images, in an order that a restored run continues exactly.

Both loaders yield `(images, targets)`: (B, C, h, w) float32, normalised, and (B,) int64, on the device. `len()` is the
number of batches; the last one may be smaller, or is left out with `drop_last`.

`position` is the number of batches consumed in the running pass. It is counted before a batch is handed out, so a
state saved in the body of the loop means "this batch is done". Iterating goes on with a pass that is under way
(position > 0) and otherwise starts a new one; when a pass has ended, position is 0 again. A state saved in the body of
the *last* batch has position == len: iterating a loader restored from it ends that pass without another batch, so that
a training loop which closes an epoch after its `for` statement closes it exactly once.
Only one iterator of a loader may be in use at a time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_pil_image

from common.data.images import ImageSet, LazyImages
from common.data.transforms import BatchTransform, TransformSpec, image_pipeline
from common.training.errors import UserError

PATHS = ("auto", "device", "dataloader")

Batch = tuple[Tensor, Tensor]


class Loader:
    """What both loaders share: batches counted, passes numbered, state saved and restored.

    All random numbers of a pass follow from the seed and the number of the pass, so the state is small and does not
    depend on what else draws random numbers.

    Args:
        dataset_size: number of images, at least 1.
        batch_size: images per batch, at least 1.
        shuffle: whether every pass has its own random order.
        device: where batches are wanted.
        seed: of the order and of the augmentation.
        memory_format: of the image batches, e.g. torch.channels_last; None: contiguous.
        drop_last: leave out a last batch that is not full.

    Raises:
        UserError: if there are no images, the batch size is not positive, or no batch would be left.
    """

    def __init__(
        self,
        dataset_size: int,
        batch_size: int,
        *,
        shuffle: bool,
        device: torch.device | str,
        seed: int,
        memory_format: torch.memory_format | None = None,
        drop_last: bool = False,
    ) -> None:
        if dataset_size < 1:
            raise UserError("a loader got no images; this task has none of its classes in the data")
        if batch_size < 1:
            raise UserError(f"batch size must be at least 1, got {batch_size}")
        if drop_last and dataset_size < batch_size:
            raise UserError(f"{dataset_size} images do not fill one batch of {batch_size}; take smaller batches")
        self.dataset_size = dataset_size
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.device = torch.device(device)
        self.position = 0
        self._memory_format = memory_format
        self._drop_last = drop_last
        self._seed = seed
        self._pass = 0  # number of passes begun

    def __len__(self) -> int:
        full = self.dataset_size // self.batch_size
        return full if self._drop_last else math.ceil(self.dataset_size / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.position == 0:
            self._pass += 1
        for batch in self._batches(self._pass, self.position):
            self.position += 1
            yield batch
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        """Seed, pass and position, with the sizes they belong to."""
        return {
            "seed": self._seed,
            "pass": self._pass,
            "position": self.position,
            "dataset_size": self.dataset_size,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another loader over the same images was.

        Raises:
            UserError: if it had other images or another batch size.
        """
        for key in ("dataset_size", "batch_size"):
            if state[key] != getattr(self, key):
                raise UserError(
                    f"the saved run had {key} {state[key]}, now it is {getattr(self, key)}; resume with the same data "
                    "and batch size, or start a new run"
                )
        self._seed, self._pass, self.position = state["seed"], state["pass"], state["position"]

    def _batches(self, number: int, start: int) -> Iterator[Batch]:
        """Batches of a pass (counted from 1) from number `start` (counted from 0)."""
        raise NotImplementedError

    def _laid_out(self, images: Tensor) -> Tensor:
        return images if self._memory_format is None else images.contiguous(memory_format=self._memory_format)

    def _generator(self, number: int) -> torch.Generator:
        """Generator for the decisions that are made once per pass."""
        return torch.Generator().manual_seed(mixed_seed(self._seed, number))

    def _order(self, generator: torch.Generator) -> Tensor:
        """(N,) order of the images in a pass."""
        if not self.shuffle:
            return torch.arange(self.dataset_size)
        return torch.randperm(self.dataset_size, generator=generator)  # rng: first draw of a pass


class DeviceLoader(Loader):
    """Keeps the images as bytes on the device and augments there; nothing waits for the device between batches.

    Order, crops and flips of a pass are drawn on the CPU at its start and moved once.

    Args:
        images: (N, C, H, W) uint8.
        targets: (N,) int64.
        transform: of the batches.
        batch_size, shuffle, device, seed, memory_format, drop_last: see `Loader`.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        transform: BatchTransform,
        batch_size: int,
        *,
        shuffle: bool,
        device: torch.device | str,
        seed: int,
        memory_format: torch.memory_format | None = None,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            len(images),
            batch_size,
            shuffle=shuffle,
            device=device,
            seed=seed,
            memory_format=memory_format,
            drop_last=drop_last,
        )
        self._transform = transform
        prepare = transform.padded if transform.augments else transform.fit
        self._images = prepare(images.to(self.device))
        self._targets = targets.to(self.device, torch.int64)

    def _batches(self, number: int, start: int) -> Iterator[Batch]:
        generator = self._generator(number)
        order = self._order(generator).to(self.device)
        draws = self._transform.draw(self.dataset_size, generator)  # rng: after the order; entry i is for place i of it
        draws = draws.to(self.device) if draws is not None else None
        for batch in range(start, len(self)):
            places = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            rows = order[places]
            chosen = self._images[rows] if draws is None else self._transform.crop(self._images, rows, draws.at(places))
            yield self._laid_out(self._transform.normalise(chosen)), self._targets[rows]


class StreamLoader(Loader):
    """Decodes and augments single images in worker processes, for sets too big to hold decoded.

    The random numbers of an image depend only on (seed, pass, place of the image in `indices`): results are the same
    for any number of workers. The global generators of this process are left as they are.

    Args:
        image_set: files or a tensor (converted to PIL images, so that both loaders can be compared).
        indices: (n,) places in `image_set`.
        targets: (n,) int64.
        pipeline: PIL image -> (C, h, w) float32; may draw from torch's global generator.
        batch_size, shuffle, device, seed, memory_format, drop_last: see `Loader`.
        workers: worker processes; 0: this process.
        keep_workers: whether they wait for the next pass, or end with each (for loaders that are kept and seldom read).
    """

    def __init__(
        self,
        image_set: ImageSet,
        indices: Tensor,
        targets: Tensor,
        pipeline: Callable[[Image.Image], Tensor],
        batch_size: int,
        *,
        shuffle: bool,
        device: torch.device | str,
        seed: int,
        workers: int = 0,
        memory_format: torch.memory_format | None = None,
        drop_last: bool = False,
        keep_workers: bool = True,
    ) -> None:
        super().__init__(
            len(indices),
            batch_size,
            shuffle=shuffle,
            device=device,
            seed=seed,
            memory_format=memory_format,
            drop_last=drop_last,
        )
        self._plan = _Plan()
        self._loader = DataLoader(
            _PipelineDataset(image_set.images, torch.as_tensor(indices).clone(), targets.to(torch.int64), pipeline),
            batch_sampler=self._plan,
            num_workers=workers,
            persistent_workers=keep_workers and workers > 0,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # why: without it every pass would draw from the global generator
        )

    def _batches(self, number: int, start: int) -> Iterator[Batch]:
        places = self._order(self._generator(number)).tolist()
        self._plan.batches = [
            [(place, mixed_seed(self._seed, number, place)) for place in places[first : first + self.batch_size]]
            for first in range(start * self.batch_size, len(self) * self.batch_size, self.batch_size)
        ]
        try:
            for images, targets in self._loader:
                images = images.to(self.device, non_blocking=True)
                yield self._laid_out(images), targets.to(self.device, non_blocking=True)
        except UserError as error:  # why: a worker process wraps the message into its whole traceback
            raise UserError(str(error).strip().splitlines()[-1].rpartition("UserError: ")[2]) from error


class _Plan:
    """Batch sampler that hands out what the loader has planned for the rest of the pass."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _PipelineDataset(Dataset):
    """One transformed image for (place, seed)."""

    def __init__(self, images: Tensor | LazyImages, indices: Tensor, targets: Tensor, pipeline: Callable) -> None:
        self.images, self.indices, self.targets, self.pipeline = images, indices, targets, pipeline

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        place, seed = item
        index = int(self.indices[place])
        image = self.images.load(index) if isinstance(self.images, LazyImages) else to_pil_image(self.images[index])
        # why not torch.manual_seed and fork_rng: they would also touch the generators of the GPU
        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(seed)
        try:
            return self.pipeline(image), self.targets[place]
        finally:
            generator.set_state(before)


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several integers; different inputs give unrelated seeds."""
    digest = hashlib.sha256(",".join(str(number) for number in numbers).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def make_loader(
    image_set: ImageSet,
    indices: Tensor,
    targets: Tensor,
    spec: TransformSpec,
    *,
    train: bool,
    batch_size: int,
    shuffle: bool,
    device: torch.device | str,
    seed: int,
    workers: int = 0,
    path: str = "auto",
    memory_format: torch.memory_format | None = None,
    keep_workers: bool = True,
) -> DeviceLoader | StreamLoader:
    """The loader that fits the data: on the device for images in memory, worker processes for files.

    Args:
        image_set: where images come from.
        indices: (n,) places in it, e.g. of `ClassSplit.indices`.
        targets: (n,) what to deliver with them, e.g. of `ClassSplit.targets`.
        spec: transform; of kind "resized_crop" also images in memory go through worker processes.
        train: whether images are augmented.
        batch_size, shuffle, device, seed: see `Loader`.
        workers: worker processes where they are used.
        path: "auto", or "device" / "dataloader" to force one of the two.
        memory_format: of the image batches; None: contiguous.
        keep_workers: see `StreamLoader`.

    Raises:
        UserError: for an unknown path, or "device" where it cannot work.
    """
    if path not in PATHS:
        raise UserError(f"unknown data path {path!r}; known: {', '.join(PATHS)}")
    fits_device = not image_set.is_lazy and spec.kind != "resized_crop"
    if path == "device" and not fits_device:
        raise UserError(f"{image_set.name} is decoded or cropped image by image; use the data path dataloader or auto")
    if fits_device and path != "dataloader":
        return DeviceLoader(
            image_set.images[indices],
            targets,
            BatchTransform(spec, train),
            batch_size,
            shuffle=shuffle,
            device=device,
            seed=seed,
            memory_format=memory_format,
        )
    pipeline = image_pipeline(spec, train)
    return StreamLoader(
        image_set,
        indices,
        targets,
        pipeline,
        batch_size,
        shuffle=shuffle,
        device=device,
        seed=seed,
        workers=workers,
        memory_format=memory_format,
        keep_workers=keep_workers,
    )
