"""Self-supervision by rotation: four copies of each image, four labels of each class.

Source: VDFD supplement, "with SSL"; XiaorongLi-95/VDFD@2c0dfce agent_ssl/vdfd_ssl_la.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

COPIES = 4


def rotate_four_ways(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Each image followed by its rotations by 90, 180 and 270 degrees; label 4 y + k.

    Args:
        images: (B, C, H, H) square images.
        target: (B,) labels y.

    Returns:
        (4B, C, H, H) images and (4B,) labels, the copies of an image next to each other.
    """
    turned = torch.stack([torch.rot90(images, k, dims=(2, 3)) for k in range(COPIES)], dim=1)
    labels = COPIES * target.unsqueeze(1) + torch.arange(COPIES, device=target.device, dtype=target.dtype)
    return turned.flatten(0, 1), labels.flatten()
