"""The keys of a configuration file and the flags of the program: one typed dataclass for both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from adversarial_dfkd.data import SQUARE, WIDE_CONSTANTS, Normalisation
from adversarial_dfkd.losses import EntropyLog, Weights
from adversarial_dfkd.meta import MetaUpdate
from adversarial_dfkd.schedules import cosine_rate, iterations_per_epoch
from common.backbones.generators_predfkd import WIDE_EPSILON, UnitLength
from common.losses.distillation import PROBABILITY_FLOOR
from common.training.errors import UserError
from common.training.options import RunOptions, always_on, machine_option

Agent = Literal["PREDFKDAgent", "PREDFKDMemAgent", "PREDFKDMemMetaAgent", "PREDFKDMetaAgent"]

AGENTS: dict[str, str] = {
    "PREDFKDAgent": "PRE-DFKD",
    "PREDFKDMemAgent": "MB-DFKD",
    "PREDFKDMemMetaAgent": "Ours-1",
    "PREDFKDMetaAgent": "Ours-2",
}
"""Value of `agent` -> name in the published tables."""

SMALLEST_VAE_BATCH = 16
"""A VAE agent replays batch_size // 8 images, and a variance needs two."""


@dataclass(frozen=True)
class ConfigurationKeys:
    """keys of the released configuration files"""

    exp_name: str = machine_option("")
    """name of the experiment: the run's folder is experiments/<exp_name> unless --output_dir is given"""
    agent: Agent = "PREDFKDAgent"
    """method: PREDFKDAgent = PRE-DFKD, PREDFKDMemAgent = MB-DFKD, PREDFKDMemMetaAgent = Ours-1, PREDFKDMetaAgent =
    Ours-2"""
    mode: Literal["train", "test"] = machine_option("train")
    """test: only test the student that the run's folder holds"""
    cuda: bool = always_on(machine=True)
    """use a GPU if there is one"""
    gpu_device: int = machine_option(0)
    """number of the GPU (the original reads it nowhere)"""
    seed: int = 1
    """seed of all random numbers"""
    student: str = "resnet18"
    """student network"""
    dataset: Literal["MNIST", "FMNIST", "SVHN", "cifar10", "cifar100", "tiny-imagenet"] = "cifar100"
    """data set of the teacher; its test images test the student"""
    data: str = machine_option("../dataset")
    """folder of the data sets"""
    teacher_dir: str = machine_option("../cache/models/")
    """folder of the teacher's file"""
    teacher_name: str = "cifar100_teacher_resnet34"
    """name of the teacher's file, with or without .safetensors, .pth, .pt"""
    max_epoch: int = 400
    """epochs, and period of the cosine schedule"""
    gen_iter: int = 1
    """generator steps per outer iteration"""
    kd_iter: int = 10
    """student steps per outer iteration"""
    memory_capacity: int = 10
    """batches that the bank holds (bank agents)"""
    batch_size: int = 512
    """novel images per step"""
    lr_S: float = 0.1
    """learning rate of the student"""
    lr_S_in: float = 0.9
    """learning rate of the imagined step (Ours)"""
    lr_G: float = 0.02
    """learning rate of the novel generator and of the latent tuning; a fortieth of it is the VAE's"""
    latent_dim: int = 1000
    """length of a latent vector"""
    img_size: int = 32
    """pixels a side of generated images (twice as many with upsampling 8); test images of tiny-imagenet are resized to
    it, the other data sets need 32"""
    oh: float = 1.0
    """weight of the one-hot term"""
    ie: float = 5.0
    """weight of the information entropy"""
    a: float = 0.1
    """weight of the activation term"""
    checkpoint_filename: str = "checkpoint.pth.tar"
    """ignored: the name of a checkpoint is the same for all papers here"""


@dataclass(frozen=True)
class ProgramFlags:
    """flags of the original program"""

    benchmark: bool = False
    """let cuDNN choose its fastest algorithms (the original cancels this later)"""
    cudnn_disabled: bool = False
    """switch cuDNN off (without effect in the original)"""
    use_cluster: bool = False
    """refused: it names a folder of the authors' cluster; use --output_dir"""


@dataclass(frozen=True)
class AddedOptions:
    """keys and flags of the method added by this repository; defaults are the released behaviour"""

    meta_gradient: Literal["detached", "first_order", "second_order"] = "detached"
    """what of the meta-learning term reaches the student: nothing, as released (D1); the paper's gradient
    (second_order); that without the Hessian (first_order)"""
    inner_schedule: Literal["constant", "cosine"] = "constant"
    """learning rate of the imagined step over the epochs (D3)"""
    train_mode_at_epoch_start: bool = False
    """put the student into training mode before an epoch's first generator step (D5)"""
    clean_vae_gradient: bool = False
    """discard what the latent tuning leaves in the gradient of the VAE's decoder (D6)"""
    entropy_log: EntropyLog = "log10"
    """logarithm of the information entropy (D9)"""
    js_floor: float = PROBABILITY_FLOOR
    """probabilities are clamped to js_floor ... 1 - js_floor in the adversarial term; 0: not at all (D10)"""
    norm_epsilon: float = WIDE_EPSILON
    """epsilon of most norm layers of generators and encoder (D10; usual is 1e-5)"""
    encoder_unit: UnitLength = "columns"
    """what of an image the encoder scales to unit length: its columns, the channels of its pixels, nothing (D10)"""
    normalisation: Normalisation = "released"
    """constants of the images: wide takes those of the original's uncalled loader for Wide-ResNet teachers, which are
    also those of the teachers from curriculum_dfkd (D15)"""
    meta_holdout: bool = False
    """imagined step on 7/8 of the novel images, its loss on the rest added (defined and unused in the original)"""
    bn: float = 0.0
    """weight of the statistics of the teacher's norm layers in the generator's loss (defined and unused in the
    original)"""
    teacher: str = "default"
    """teacher network; default: lenet5 for MNIST, resnet34_64 for tiny-imagenet, else resnet34"""
    upsampling: Literal[4, 8] = 4
    """8: generators with a third doubling, img_size 32 gives 64x64 images, for tiny-imagenet (defined and unused in the
    original)"""
    iterations: int | None = None
    """outer iterations per epoch; default 36 * (1024 // batch_size)"""
    log_meta_loss: Literal["epoch", "iteration", "step", "never"] = "epoch"
    """how often the meta term is written to the series; where it has no gradient (detached) it is computed for that
    alone"""
    test_images_per_class: int | None = None
    """test on so many images per class only"""
    grid_every: int = machine_option(10)
    """epochs between two pictures of the newest novel images (images/ in the run's folder); 0: none"""
    desk_scale: bool = False
    """label the run as desk scale: a small setting of our own that no paper reports"""


@dataclass(frozen=True)
class LRAOptions(RunOptions, AddedOptions, ProgramFlags, ConfigurationKeys):
    """All options of a run."""

    output_dir: str = machine_option("")
    """folder of this run; default: experiments/<exp_name>"""

    @property
    def has_bank(self) -> bool:
        """Whether images are replayed from a bank (else from the VAE)."""
        return self.agent in ("PREDFKDMemAgent", "PREDFKDMemMetaAgent")

    @property
    def is_meta(self) -> bool:
        """Whether the student's loss has the meta-learning term."""
        return self.agent in ("PREDFKDMemMetaAgent", "PREDFKDMetaAgent")

    @property
    def replayed_images(self) -> int:
        """Images per replay."""
        return self.batch_size // 8

    @property
    def image_side(self) -> int:
        """Pixels a side of generated images and of those that test the student."""
        return self.img_size * self.upsampling // 4

    @property
    def outer_iterations(self) -> int:
        """Per epoch."""
        return iterations_per_epoch(self.batch_size) if self.iterations is None else self.iterations

    @property
    def weights(self) -> Weights:
        """Of the generator's terms."""
        return Weights(self.oh, self.ie, self.a, self.bn, self.entropy_log, self.js_floor)

    def meta_at(self, epoch: int) -> MetaUpdate | None:
        """The meta-learning term in an epoch; None for the plain agents."""
        if not self.is_meta:
            return None
        cosine = self.inner_schedule == "cosine"
        rate = cosine_rate(self.lr_S_in, epoch, self.max_epoch) if cosine else self.lr_S_in
        return MetaUpdate(self.meta_gradient, rate, self.meta_holdout)


def check(config: LRAOptions) -> LRAOptions:
    """The config, if it can be run.

    Raises:
        UserError: naming the first key that cannot.
    """
    if config.use_cluster:
        raise UserError("--use_cluster names a folder of the authors' cluster; say where with --output_dir")
    if not config.exp_name and not config.output_dir:
        raise UserError("exp_name is missing in the configuration file; give it one, or give --output_dir")
    for name in ("max_epoch", "gen_iter", "kd_iter", "memory_capacity", "batch_size", "latent_dim"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, found {getattr(config, name)}")
    for name in ("iterations", "test_images_per_class"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, found {value}")
    for name in ("lr_S", "lr_S_in", "lr_G"):
        if not 0 <= getattr(config, name) < math.inf:
            raise UserError(f"{name} must be a learning rate of at least 0, found {getattr(config, name):g}")
    if not 0 <= config.js_floor < 0.5:
        raise UserError(f"js_floor must be at least 0 and below 0.5, found {config.js_floor:g}")
    if config.norm_epsilon <= 0:
        raise UserError(f"norm_epsilon must be above 0, found {config.norm_epsilon:g}")
    _check_image_side(config)
    if config.outer_iterations < 1:
        raise UserError(f"batch_size {config.batch_size} leaves no iterations (36 * (1024 // batch_size)); "
                        "give at most 1024, or set iterations")
    if not config.has_bank and config.batch_size < SMALLEST_VAE_BATCH:
        raise UserError(f"{config.agent} needs a batch_size of at least {SMALLEST_VAE_BATCH} (it replays an eighth and "
                        f"takes its variance), found {config.batch_size}")
    if config.has_bank and config.replayed_images < 1:
        raise UserError(f"{config.agent} needs a batch_size of at least 8, found {config.batch_size}")
    if not config.is_meta and (config.meta_gradient != "detached" or config.meta_holdout):
        raise UserError(f"meta_gradient and meta_holdout belong to Ours-1 and Ours-2, not to {config.agent}")
    if config.precision == "fp16" or config.opt_level in ("O1", "O2", "O3") or config.amp_backend == "apex":
        raise UserError("fp16 is not offered here (several losses share gradient buffers that loss scaling would mix); "
                        "use --precision fp32 or bf16")
    return config


def _check_image_side(config: LRAOptions) -> None:
    unit = 4 if config.has_bank else 8  # the VAE's encoder halves once more than its decoder doubles
    if config.img_size < unit or config.img_size % unit:
        raise UserError(f"img_size must be a multiple of {unit} for {config.agent}, found {config.img_size}")
    side = config.image_side
    found = f"img_size {config.img_size} with upsampling {config.upsampling} gives {side}x{side} images"
    advice = f"give img_size {SQUARE * 4 // config.upsampling}"
    if config.dataset != "tiny-imagenet" and side != SQUARE:
        raise UserError(f"{found}, but {config.dataset} is tested at {SQUARE}x{SQUARE}; {advice}")
    for key in ("student", "teacher"):
        if getattr(config, key).startswith("lenet") and side != SQUARE:
            raise UserError(f"{found}, but {key} {getattr(config, key)} takes {SQUARE}x{SQUARE} only; {advice}")


def ignored_keys(config: LRAOptions, given: set[str]) -> list[str]:
    """Keys and flags that were given and have no effect on this run's weights, with the reason."""
    reasons = {"checkpoint_filename": "checkpoints have one name for all papers"}
    if config.dataset not in WIDE_CONSTANTS:
        reasons["normalisation"] = f"there is one set of constants for {config.dataset}"
    if config.has_bank:
        reasons |= dict.fromkeys(("clean_vae_gradient", "encoder_unit"), f"{AGENTS[config.agent]} has no VAE")
    else:
        reasons["memory_capacity"] = f"{AGENTS[config.agent]} has no bank"
    imagined = ("lr_S_in", "inner_schedule")
    if not config.is_meta:
        reasons |= dict.fromkeys((*imagined, "log_meta_loss"), f"{AGENTS[config.agent]} takes no imagined step")
    elif config.meta_gradient == "detached":
        logged_only = "with --meta_gradient detached it changes a logged value only (D1)"
        reasons |= dict.fromkeys((*imagined, "meta_holdout"), logged_only)
    return [f"{key} is ignored: {reason}" for key, reason in reasons.items() if key in given]
