"""The run record: one JSON file per run, the only source of every table."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

RECORD = "record.json"
SCHEMA = 1
_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scipy")


def run_id(cell: str | None, method: str, seed: int, config: dict[str, Any]) -> str:
    """Name of a run, fit for a file name: its cell or method, its seed, and eight digits over its configuration."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    name = re.sub(r"[^a-z0-9_.]+", "-", (cell or method).lower()).strip("-")
    return f"{name}-s{seed}-{digest}"


def describe_code(root: Path | None = None) -> dict[str, Any]:
    """Commit of a checkout, and whether its code was changed; None without git.

    Texts, tests and kept results are no code: no program of a run reads them, and the audit desk writes some of them
    while runs go on.

    Args:
        root: the checkout; default: the one that this package lies in.
    """
    root = root or Path(__file__).resolve().parents[2]
    aside = [f":(exclude,top){path}" for path in ("*.md", "tests", "results")]
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        dirty = bool(_git(root, "status", "--porcelain", "--", ".", *aside).strip())
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": dirty}


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide about numbers."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    if torch.version.cuda and torch.cuda.is_available():
        versions["cuda"] = torch.version.cuda
        versions["cudnn"] = str(torch.backends.cudnn.version())
    return versions


def describe_numerics(precision: str, fast: bool) -> dict[str, Any]:
    """Number format and the backend settings that change rounding."""
    return {
        "precision": precision,
        "fast": fast,
        "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def command_of_process() -> list[str]:
    """The command line of this process, the program by its bare name."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout
