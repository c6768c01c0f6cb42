"""Import of the four CamVid sequences, images with masks."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

from common.data.files import Archive
from common.training.errors import UserError

FOLDER = "camvid"
"""Where the set lies below the data root."""


def import_camvid(archive: Archive, root: Path) -> str:
    """Lay CamVid out as `<root>/camvid/{images,labels}/<sequence>/<name>`, with `list.csv` and `classes.txt`.

    Args:
        archive: with the same layout in any folder; `list.csv` names sequence, name and official split of each frame.
        root: data root.

    Returns:
        What was written, in words.

    Raises:
        UserError: for another archive, a missing file, or other data in the place.
    """
    listing = archive.find("list.csv")
    if listing is None or archive.find("classes.txt") is None:
        raise UserError(f"{archive.path} is not CamVid: expected list.csv and classes.txt, found {archive.examples()}")
    base, target = listing[: -len("list.csv")], root / FOLDER
    rows = list(csv.DictReader(io.StringIO(archive.read(listing).decode())))
    present = set(archive.names)
    wanted = ["list.csv", "classes.txt"]
    for row in rows:
        stem = f"{row['sequence']}/{row['name']}"
        wanted += [f"images/{stem}.jpg", f"labels/{stem}.png"]
    missing = [name for name in wanted if base + name not in present]
    if missing or not rows:
        raise UserError(f"{archive.path}: {missing[0] if missing else 'every frame'} is missing; get the archive again")
    amount = f"{len(rows)} frames of {len({row['sequence'] for row in rows})} sequences"
    if (target / "list.csv").is_file():
        if (target / "list.csv").read_bytes() == archive.read(listing):
            return f"CamVid: {target} is already there ({amount})."
        raise UserError(f"{target} holds other images already; move it away and prepare again")
    with tempfile.TemporaryDirectory(dir=root, prefix=".prepare-") as temporary:
        folder = Path(temporary) / FOLDER
        for name in wanted:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(archive.read(base + name))
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        folder.rename(target)
    return f"CamVid: {amount} in {target}."
