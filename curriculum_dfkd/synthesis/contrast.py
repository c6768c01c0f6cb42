"""Parts of contrastive model inversion: differentiable views, the bank of features, the contrastive loss.

Source: zju-vipa/CMI@9e79fa9 datafree/synthesis/contrastive.py, datafree/criterions.py, with kornia 0.9's geometry.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDING = 4
AREA, ASPECT, TRIALS = (0.25, 1.0), (3 / 4, 4 / 3), 10
"""Of random resized crops: share of the image, width over height, draws before the whole image is taken."""

BANK_SIZE, HEAD_WIDTH = 40_960, 256


class Places(NamedTuple):
    """Where a view takes its pixels from, in pixels of the image; outside lies black.

    Attributes:
        rows, columns: (B, size) positions, fractional ones are interpolated.
    """

    rows: Tensor
    columns: Tensor


def resample(images: Tensor, places: Places) -> Tensor:
    """Bilinear view of every image: two small matrix products per image, differentiable, free of scattered sums.

    Args:
        images: (B, C, H, W).
        places: (B, h) rows and (B, w) columns.

    Returns:
        (B, C, h, w).
    """
    rows = _weights(places.rows, images.shape[2]).to(images.dtype)
    columns = _weights(places.columns, images.shape[3]).to(images.dtype)
    return rows[:, None] @ images @ columns.transpose(1, 2)[:, None]


def crop_places(left: Tensor, top: Tensor, flip: Tensor, size: int) -> Places:
    """A window of `size` pixels at (left, top) of the image padded by 4 black pixels, then mirrored where asked to."""
    steps = torch.arange(size, device=left.device, dtype=torch.float32)
    rows = top[:, None] - PADDING + steps
    columns = left[:, None] - PADDING + steps
    return Places(rows, _mirrored(columns, flip))


def box_places(box: Tensor, flip: Tensor, size: int) -> Places:
    """A box (B, 4) of inclusive corners x0, y0, x1, y1 stretched to `size` pixels, then mirrored where asked to.

    Within the box as torch's bilinear enlarging counts, in single precision; the corners are added in double, so that
    the shares of two neighbouring pixels are those of the original, which cuts the box out and enlarges it.
    """
    steps = torch.arange(size, device=box.device, dtype=torch.float32)
    x0, y0, x1, y1 = box.to(torch.float64).T[:, :, None]
    rows, columns = (((last - first).float() / (size - 1) * steps) for first, last in ((y0, y1), (x0, x1)))
    return Places(y0 + rows, _mirrored(x0 + columns, flip))


class Views(NamedTuple):
    """Places of the two views of every image."""

    wide: Places
    local: Places


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on a device, without waiting for what the device still has to do."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)


def draw_views(count: int, size: int, device: torch.device) -> Views:
    """Random views for `count` images: padded crop and resized crop, each mirrored with probability 1/2.

    # rng: torch's CPU generator; offsets and flips of the wide views, then boxes and flips of the local ones
    """
    left, top = torch.randint(0, 2 * PADDING + 1, (2, count))
    wide = crop_places(left, top, torch.rand(count) < 0.5, size)
    local = box_places(draw_boxes(count, size), torch.rand(count) < 0.5, size)
    return Views(*(Places(*(to_device(part, device) for part in places)) for places in (wide, local)))


def draw_boxes(count: int, size: int) -> Tensor:
    """(count, 4) random boxes of 1/4 to all of the area and aspect 3/4 to 4/3, inclusive integer corners."""
    area = size * size * torch.empty(count, TRIALS).uniform_(*AREA)
    low, high = (torch.tensor(ratio).log().item() for ratio in ASPECT)
    aspect = torch.empty(count, TRIALS).uniform_(low, high).exp()
    width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (width >= 1) & (width <= size) & (height >= 1) & (height <= size)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    any_fits = fits.any(dim=1)
    width = torch.where(any_fits, width.gather(1, first)[:, 0], float(size))
    height = torch.where(any_fits, height.gather(1, first)[:, 0], float(size))
    left = (torch.rand(count) * (size - width + 1)).floor()
    top = (torch.rand(count) * (size - height + 1)).floor()
    return torch.stack([left, top, left + width - 1, top + height - 1], dim=1)


class FeatureBank:
    """Ring of feature rows on the device.

    A read draws from the rows below the pointer until the ring has been overrun, then from all, as released: after
    exactly as many additions as the ring has rows the pointer is 0 and a read finds nothing.

    Args:
        width: of a row.
        size: rows; a multiple of what is added at once.
        device: where they lie.
        full_read: let the read at the exact fill see all rows.

    Attributes:
        pointer: row that is written next.
        additions: rows added so far.
    """

    def __init__(self, width: int, size: int, device: torch.device, full_read: bool = False) -> None:
        self.rows = torch.zeros(size, width, device=device)
        self.full_read = full_read
        self.pointer = self.additions = 0

    def add(self, rows: Tensor) -> None:
        """Write (N, width) rows.

        Raises:
            ValueError: if the ring's size is no multiple of N.
        """
        size, count = len(self.rows), len(rows)
        if size % count:
            raise ValueError(f"the bank's {size} rows are no multiple of the {count} rows added")
        self.rows[self.pointer : self.pointer + count] = rows.detach()
        self.pointer = (self.pointer + count) % size
        self.additions += count

    def draw(self, count: int) -> Tensor:
        """(n,) indices of at most `count` rows without repetition, from Python's generator. # rng: one sample"""
        return torch.tensor(random.sample(range(self.available()), min(count, self.available())), dtype=torch.int64)

    def available(self) -> int:
        """Rows that a read can see."""
        size = len(self.rows)
        is_full = self.additions >= size if self.full_read else self.additions > size
        return size if is_full else self.pointer

    def read(self, indices: Tensor) -> Tensor:
        """(n, width) rows."""
        return self.rows[to_device(indices, self.rows.device)]

    def state_dict(self) -> dict[str, Any]:
        """Rows in use, pointer and count."""
        used = min(self.additions, len(self.rows))
        # why clone: of a view, torch.save writes the whole bank
        return {"rows": self.rows[:used].clone(), "pointer": self.pointer, "additions": self.additions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.rows[: len(state["rows"])] = state["rows"].to(self.rows.device)
        self.pointer, self.additions = state["pointer"], state["additions"]


class ContrastiveHead(nn.Module):
    """Features -> unit vectors, by two linear layers with a ReLU between.

    Args:
        width: of the features.
        outputs: of the projection.
    """

    def __init__(self, width: int, outputs: int = HEAD_WIDTH) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(N, width) -> (N, outputs) of length 1."""
        return F.normalize(self.head(features), dim=1)


class Contrast(NamedTuple):
    """Result of `contrastive_loss`.

    Attributes:
        loss: ().
        per_row: (B + N,) cross-entropies, batch then bank.
        local, wide: (B + N, outputs) projections.
    """

    loss: Tensor
    per_row: Tensor
    local: Tensor
    wide: Tensor


def contrastive_loss(head: ContrastiveHead, local: Tensor, wide: Tensor, bank: Tensor, temperature: float) -> Contrast:
    """Tell every image's local view from the wide views of all others.

    Rows are local projections, columns constant wide projections, of the batch and then of the bank; the right column
    is the diagonal. The loss is the mean over the batch's rows plus the mean over the bank's.

    Args:
        head: projection.
        local, wide: (B, D) features.
        bank: (N, 2 D) stored features, local then wide; N may be 0.
        temperature: of the logits.
    """
    stored_local, stored_wide = bank.chunk(2, dim=1)
    local_projections = head(torch.cat([local, stored_local]))
    with torch.no_grad():  # why: no gradient reaches the wide features
        wide_projections = head(torch.cat([wide, stored_wide]))
    logits = local_projections @ wide_projections.T / temperature
    per_row = F.cross_entropy(logits, torch.arange(len(logits), device=logits.device), reduction="none")
    loss = per_row[: len(local)].mean()
    if len(bank):
        loss = loss + per_row[len(local) :].mean()
    return Contrast(loss, per_row, local_projections, wide_projections)


class SupConResult(NamedTuple):
    """Loss per anchor (anchor views, B), and the logits (anchors, B V)."""

    loss: Tensor
    logits: Tensor


def supervised_contrast(features: Tensor, temperature: float, base_temperature: float, mode: str) -> SupConResult:
    """The SimCLR form of the supervised contrastive loss; the release carries it and does not use it.

    Args:
        features: (B, V, d) unit vectors, V views of B samples.
        temperature, base_temperature: of the logits, and of the scale temperature / base_temperature.
        mode: anchors are view 0 ("one") or all views ("all").
    """
    count, views = features.shape[:2]
    columns = features.transpose(0, 1).reshape(views * count, -1)  # view 0 of every sample first
    anchors = columns[:count] if mode == "one" else columns
    logits = anchors @ columns.T / temperature
    own = torch.eye(len(columns), dtype=torch.bool, device=features.device)[: len(anchors)]
    samples = torch.arange(count, device=features.device).repeat(views)
    others = (samples[: len(anchors), None] == samples[None]) & ~own
    log_probability = logits - logits.masked_fill(own, float("-inf")).logsumexp(dim=1, keepdim=True)
    mean = (log_probability * others).sum(dim=1) / others.sum(dim=1)
    return SupConResult(-(temperature / base_temperature) * mean.view(-1, count), logits)


def _weights(positions: Tensor, size: int) -> Tensor:
    """(B, n) positions -> (B, n, size) weights of the pixels: 1 - distance, at least 0."""
    pixels = torch.arange(size, device=positions.device, dtype=positions.dtype)
    return (1 - (positions[:, :, None] - pixels).abs()).clamp(min=0)


def _mirrored(columns: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip.to(torch.bool)[:, None], columns.flip(1), columns)
