"""Cut the embedded sample out of the archive with 148 frames of CamVid.

    python -m segmentation.data.make_sample --from camvid_domains.zip --out segmentation/data/sample

Takes evenly spaced frames of every sequence, images by Lanczos as lossy WebP, masks by nearest neighbour as PNG. With
the Pillow of constraints.txt the files are, byte for byte, those of the repository (a test, where the archive is at
hand); another encoder may write other bytes and, of images, other pixels.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.data.files import Archive, open_archive, write_bytes
from common.training.errors import UserError, command_line
from segmentation.data.sources import SAMPLE_ROOT

FOLDER = "camvid"
FRAMES = 6
"""Of each sequence; the first and the last among them."""
SIZE = 160, 120
"""Width and height of every image and mask."""
QUALITY, METHOD = 80, 6
"""Of the WebP encoder; 6 is its slowest method."""
COLUMNS = ["sequence", "name", "official_split"]


def make_sample(archive: Path, folder: Path = SAMPLE_ROOT) -> list[Path]:
    """Write <folder>/camvid and return its files.

    Raises:
        UserError: if the archive is another one, or one of its images cannot be read.
    """
    files: dict[str, bytes] = {}
    with open_archive(archive) as source:
        names = _found(source, "classes.txt")
        rows = list(csv.DictReader(io.StringIO(source.read(_found(source, "list.csv")).decode())))
        if not rows or list(rows[0]) != COLUMNS:
            raise UserError(f"list.csv in {archive} lacks the columns {', '.join(COLUMNS)}; it is another archive")
        chosen = evenly_spaced(rows)
        files["classes.txt"] = source.read(names)
        files["list.csv"] = "".join(f"{','.join(words)}\n" for words in [COLUMNS, *map(dict.values, chosen)]).encode()
        for row in chosen:
            name = f"{row['sequence']}/{row['name']}"
            image, mask = (_opened(source, f"{kind}/{name}.{ending}") for kind, ending in
                           (("images", "jpg"), ("labels", "png")))  # fmt: skip
            small = image.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
            files[f"images/{name}.webp"] = _encoded(small, "WEBP", quality=QUALITY, method=METHOD)
            files[f"labels/{name}.png"] = _encoded(mask.resize(SIZE, Image.Resampling.NEAREST), "PNG", optimize=True)
    for name, content in files.items():
        write_bytes(folder / FOLDER / name, content)
    return [folder / FOLDER / name for name in files]


def evenly_spaced(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """`FRAMES` rows of each sequence, in their order: the nearest ones to equal steps from the first to the last."""
    sequences: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        sequences.setdefault(row["sequence"], []).append(row)
    return [
        frames[round(place)]
        for frames in sequences.values()
        for place in np.linspace(0, len(frames) - 1, min(FRAMES, len(frames)))
    ]


def _found(source: Archive, name: str) -> str:
    found = source.find(name)
    if found is None:
        raise UserError(f"{source.path} is not the archive of CamVid frames: no {name}, but {source.examples()}")
    return found


def _opened(source: Archive, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(source.read(_found(source, name))))
        image.load()
    except OSError as error:
        raise UserError(f"{name} in {source.path} cannot be decoded ({error}); get the archive again") from error
    return image


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def main(argv: list[str] | None = None) -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description="Cut the embedded sample out of the archive of CamVid frames.")
    parser.add_argument("--from", dest="archive", type=Path, required=True, help="camvid_domains.zip, or its folder")
    parser.add_argument("--out", type=Path, default=SAMPLE_ROOT, help="where to write (default: into the package)")
    arguments = parser.parse_args(argv)
    files = make_sample(arguments.archive, arguments.out)
    print(f"{len(files)} files in {arguments.out / FOLDER}")


if __name__ == "__main__":
    command_line(main)()
