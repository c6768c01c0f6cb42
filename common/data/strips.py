"""Strips: the small images of one class stacked top to bottom in one lossless WebP file.

One file per image would be several times as big. All strips here are 32 pixels wide.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from common.training.errors import UserError

SIDE = 32
"""Width of a strip and height of one image in it, pixels."""


def decode_strip(data: bytes, what: str) -> np.ndarray:
    """Images of a strip.

    Args:
        data: content of the WebP file.
        what: how to call it in an error.

    Returns:
        (N, 32, 32, 3) uint8.

    Raises:
        UserError: if it cannot be decoded or is no strip.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{what} cannot be decoded ({error}); get it again") from error
    height, width, _ = pixels.shape
    if width != SIDE or height % SIDE:
        raise UserError(f"{what} is {width} x {height} pixels, expected {SIDE} wide and a multiple of {SIDE} high")
    return pixels.reshape(-1, SIDE, SIDE, 3)


def encode_strip(images: np.ndarray) -> bytes:
    """The inverse of `decode_strip`: (N, 32, 32, 3) uint8, at most 511 images, to lossless WebP."""
    buffer = io.BytesIO()
    # why exact: otherwise pixels under a transparent alpha may change; method 6 and quality 100 = smallest file
    Image.fromarray(images.reshape(-1, SIDE, 3)).save(
        buffer, format="WEBP", lossless=True, exact=True, quality=100, method=6
    )
    return buffer.getvalue()
