"""The embedded sample of CamVid can be made again from the archive that it was cut from."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from common.training.errors import UserError
from segmentation.data.make_sample import FOLDER, evenly_spaced, main
from segmentation.data.sources import SAMPLE_ROOT
from tests.helpers import shared_archive

pytestmark = pytest.mark.unit


def test_the_command_writes_the_sample_byte_for_byte(tmp_path):
    main(["--from", str(shared_archive("camvid_domains.zip")), "--out", str(tmp_path)])
    made, kept = ({path.relative_to(root): path.read_bytes() for path in (root / FOLDER).rglob("*") if path.is_file()}
                  for root in (tmp_path, SAMPLE_ROOT))  # fmt: skip
    assert len(kept) == 50 and set(made) == set(kept)
    assert [str(name) for name in kept if made[name] != kept[name]] == []


def test_a_small_archive_gives_its_frames_at_the_size_of_the_sample(tmp_path, capsys):
    source = tmp_path / "frames"
    rows = [("a", "a_0"), ("a", "a_1"), ("b", "b_0")]
    for sequence, name in rows:
        for kind, ending, channels in (("images", "jpg", (3,)), ("labels", "png", ())):
            path = source / kind / sequence / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((36, 48, *channels), 7, np.uint8)).save(path)
    (source / "classes.txt").write_text("sky\n")
    text = "sequence,name,official_split\n" + "".join(f"{sequence},{name},train\n" for sequence, name in rows)
    (source / "list.csv").write_text(text)
    main(["--from", str(source), "--out", str(tmp_path / "sample")])
    assert capsys.readouterr().out.startswith("8 files in ")
    assert (tmp_path / "sample/camvid/list.csv").read_text() == text
    mask = Image.open(io.BytesIO((tmp_path / "sample/camvid/labels/b/b_0.png").read_bytes()))
    assert mask.size == (160, 120) and set(np.unique(mask)) == {7}
    (source / "labels/b/b_0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"labels/b/b_0.png in .* cannot be decoded"):
        main(["--from", str(source), "--out", str(tmp_path / "again")])
    (source / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"is not the archive of CamVid frames: no classes.txt"):
        main(["--from", str(source), "--out", str(tmp_path / "again")])
    assert not (tmp_path / "again").exists()


def test_frames_are_evenly_spaced_within_their_sequence():
    rows = [{"sequence": sequence, "name": str(n)} for sequence, count in (("a", 37), ("b", 2)) for n in range(count)]
    assert [row["name"] for row in evenly_spaced(rows)] == ["0", "7", "14", "22", "29", "36", "0", "1"]
