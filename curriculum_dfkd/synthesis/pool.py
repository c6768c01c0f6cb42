"""The pool of stored synthetic images: 8 bits per value, on the device, read in shuffled augmented batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.data.grids import quantise, save_image
from common.data.loader import DeviceLoader
from common.data.transforms import BatchTransform, TransformSpec
from common.training.errors import UserError
from common.training.seeding import draw_seed
from curriculum_dfkd.data import EndlessBatches


class ImagePool:
    """Grows by every synthesis call; every addition starts a new shuffled pass.

    The originals write PNG files or keep PIL images and start worker processes after every call; the content is the
    same: values clamped, times 255, truncated.

    Args:
        spec: transform of the data set: stored images are cropped, mirrored and normalised as training images are.
        batch: images per student step (fewer while the pool holds fewer).
        device: where the images lie.
        shape: (C, H, W) of an image.
        folder: also write every image there as `<call>-<i>.png`; None: do not.
        memory_format: of the batches.
    """

    def __init__(
        self, spec: TransformSpec, batch: int, device: torch.device, shape: tuple[int, int, int],
        folder: Path | None = None, memory_format: torch.memory_format | None = None,
    ) -> None:
        self.spec, self.batch, self.device, self.folder = spec, batch, device, folder
        self.images = torch.zeros((0, *shape), dtype=torch.uint8, device=device)
        self.calls = 0
        self._memory_format = memory_format
        self._batches: EndlessBatches | None = None

    def add(self, images: Tensor) -> None:
        """Store (N, C, H, W) images in [0, 1]."""
        stored = quantise(images)
        if self.folder is not None:
            for number, image in enumerate(stored):
                save_image(image, self.folder / f"{self.calls}-{number}.png")
        self._append(stored)
        self.calls += 1

    def add_folder(self, folder: Path) -> None:
        """Store all PNG images of a folder (images inverted earlier).

        Raises:
            UserError: if there are none, or one has another shape.
        """
        paths = sorted(folder.glob("*.png"))
        if not paths:
            raise UserError(f"--cmi_init {folder}: no PNG images there; expected a folder written with --dump_pool")
        channels, height, width = self.images.shape[1:]
        arrays = []
        for path in paths:
            with Image.open(path) as image:
                array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
            if array.shape[:2] != (height, width):
                raise UserError(f"{path} has {array.shape[0]}x{array.shape[1]} pixels, expected {height}x{width}")
            arrays.append(array.reshape(height, width, channels).transpose(2, 0, 1))
        self._append(torch.from_numpy(np.stack(arrays)).to(self.device))

    def next_batch(self) -> Tensor:
        """(B, C, H, W) normalised images; a new pass begins when one has ended.

        Raises:
            ValueError: if the pool is empty.
        """
        if self._batches is None:
            raise ValueError("the image pool is empty")
        return self._batches.next()[0]

    def state_dict(self) -> dict[str, Any]:
        """Images, number of calls, place in the pass."""
        batches = None if self._batches is None else self._batches.state_dict()
        return {"images": self.images, "calls": self.calls, "batches": batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.images, self.calls = state["images"].to(self.device), state["calls"]
        if state["batches"] is not None:
            self._batches = EndlessBatches(self._make_loader(seed=0))
            self._batches.load_state_dict(state["batches"])

    def _append(self, stored: Tensor) -> None:
        self.images = torch.cat([self.images, stored])
        # rng: order and augmentation until the next call
        self._batches = EndlessBatches(self._make_loader(seed=draw_seed()))

    def _make_loader(self, seed: int) -> DeviceLoader:
        targets = torch.zeros(len(self.images), dtype=torch.int64)
        return DeviceLoader(
            self.images, targets, BatchTransform(self.spec, train=True), self.batch, shuffle=True, device=self.device,
            seed=seed, memory_format=self._memory_format,
        )
