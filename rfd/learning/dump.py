"""Writing a training batch as image files, on request."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import save_image

from common.training.files import write_atomically
from rfd.inversion import Replay


@torch.no_grad()
def dump_batch(folder: Path, task: int, step: int, images: Tensor, replay: Replay | None) -> None:
    """Write the real and the synthetic images of a step, one PNG grid each, below `folder/images`.

    original: one JPEG per image and step, always (README, Deviations P6). Draws no random number.
    """
    batches = {"real": images} if replay is None else {"real": images, "synthetic": replay.images}
    for kind, batch in batches.items():
        path = folder / "images" / f"task_{task - 1}" / f"{step:07d}_{kind}.png"
        grid = batch.detach().float().cpu()
        write_atomically(
            path, lambda file, grid=grid: save_image(grid, file, normalize=True, scale_each=True, format="png")
        )
