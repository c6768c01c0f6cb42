"""Files of data sets: reading archives safely, writing atomically, check sums."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from common.training.errors import UserError


class Archive:
    """The regular files of a zip file, a tar file or a folder, under safe relative names.

    Nothing is ever written by it, and links and special files inside are ignored.

    Attributes:
        path: where it lies.
        names: relative names with forward slashes, in stored order (sorted for a folder).
    """

    def __init__(self, path: Path, names: list[str], read: Callable[[str], bytes]) -> None:
        self.path = path
        self.names = names
        self._read = read

    def read(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            UserError: if the archive is damaged there.
        """
        try:
            return self._read(name)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError) as error:
            # RuntimeError: the file is encrypted
            raise UserError(f"{name} in {self.path} cannot be read ({error}); get the archive again") from error

    def find(self, suffix: str) -> str | None:
        """The first file whose path ends with the path parts of `suffix`, or None."""
        return next((name for name in self.names if f"/{name}".endswith(f"/{suffix}")), None)

    def examples(self) -> str:
        """A few file names, for errors."""
        return ", ".join(self.names[:3]) or "no files"


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip file, a tar file (also compressed) or a folder.

    Raises:
        UserError: if there is none of these, it is damaged, or a name in it points outside.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        yield Archive(path, names, lambda name: (path / name).read_bytes())
    elif not path.is_file():
        raise UserError(f"{path} does not exist; give an archive or a folder")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            yield Archive(path, [_safe(name, path) for name in names], archive.read)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            try:
                members = {_safe(member.name, path): member for member in archive.getmembers() if member.isfile()}
            except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
                raise UserError(f"{path} is damaged or incomplete ({error}); get it again") from error
            yield Archive(path, list(members), lambda name: archive.extractfile(members[name]).read())
    else:
        raise UserError(f"{path} is neither a zip nor a tar archive, or it is damaged; get it again")


def _safe(name: str, path: Path) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0]:
        raise UserError(f"{path} holds the unsafe path {name!r}; it is not unpacked")
    return name


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that appears under `path` complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # why: mkstemp makes files that only the owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_file(path) as stream:
        stream.write(data)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
