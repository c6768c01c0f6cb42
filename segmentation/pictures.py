"""Pictures after a step: image, ground truth, prediction, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segmentation.data.colormaps import colormap
from segmentation.data.transforms import MEAN, STD


def picture(image: Tensor, truth: Tensor, prediction: Tensor, colours: np.ndarray) -> Image.Image:
    """One row: image, truth, prediction.

    Args:
        image: (3, H, W) normalised.
        truth, prediction: (H, W) labels; 255 is not counted.
        colours: (256, 3) uint8.
    """
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    pixels = ((image.cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    masks = [colours[labels.cpu().numpy().astype(np.uint8)] for labels in (truth, prediction)]
    gap = np.full((pixels.shape[0], 4, 3), 255, dtype=np.uint8)
    return Image.fromarray(np.concatenate([pixels, gap, masks[0], gap, masks[1]], axis=1))


def write_pictures(folder: Path, step: int, samples: list[tuple[Tensor, Tensor, Tensor]], dataset: str) -> list[Path]:
    """Write the pictures of a step; returns the files.

    Args:
        folder: of the run.
        step: number of the step.
        samples: image, truth and prediction of each.
        dataset: whose colours are used.
    """
    colours = colormap(dataset)
    if not samples:
        return []
    target = folder / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, sample in enumerate(samples):
        path = target / f"step_{step}_sample_{number}.png"
        incoming = path.with_suffix(".png.incoming")
        picture(*sample, colours).save(incoming, format="PNG")
        incoming.replace(path)
        paths.append(path)
    return paths
