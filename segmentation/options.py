"""Flags: the originals' (PLOP's and RCIL's `run.py`), VDFD's, and what this repository adds.

Sources: arthurdouillard/CVPR2021_PLOP@4b4a060 argparser.py, zhangchbin/RCIL@b9aad58 argparser.py. The VDFD flags are
derived: its authors released no segmentation code (README, section "Derived choices").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from common.training.options import RunOptions, machine_option

SYNCHRONISED_NORMS = ("iabn_sync", "pkg_iabn_sync")
"""Values of --norm_act whose statistics are those of all processes."""


@dataclass(frozen=True)
class DataOptions:
    """flags of the originals: data"""

    local_rank: int = machine_option(0)
    """set by the old launcher; torchrun's environment counts here"""
    random_seed: int = 42
    """seed of every step"""
    num_workers: int = machine_option(1)
    """loader processes for data sets that are read from disk"""
    data_root: str = machine_option("data")
    """folder of the data sets"""
    dataset: Literal["voc", "ade", "cityscapes_domain", "cityscape", "camvid", "camvid_domain"] = "voc"
    """data set and kind of protocol; cityscape: RCIL's class-incremental one, repaired (D15)"""
    num_classes: int | None = None
    """output classes; follows from the data set, another value is refused"""
    dont_predict_bg: bool = False
    """never read by the originals; harmless"""
    crop_size: int = 512
    """pixels of a side of training crops, and of the resized test images"""
    test_on_val: bool = False
    """train on 80 % of the step's training images, test on the last 20 % of the shuffled test images (no domains)"""
    val_on_trainset: bool = False
    """test on training images of all steps so far (validation stays as it is; no domains)"""
    cross_val: bool = False
    """validate on a random fifth of the training set"""
    crop_val: bool = True
    """resize and crop validation and test images (given: full size, batches of one)"""
    task: str = "19-1"
    """protocol, by its upstream name"""
    step: list[int] = field(default_factory=lambda: [0])
    """steps to train; several run one after another"""
    no_mask: bool = False
    """refused: the originals' data sets assert against it"""
    data_masking: Literal["current", "current+old", "all", "new"] = "current"
    """labels that a training image shows (voc, camvid)"""
    overlap: bool = False
    """images of a step may hold pixels of future classes"""
    disable_background: bool = False
    """refused: what it did is not documented"""
    ignore_test_bg: bool = False
    """ADE: ignore unseen classes in the test set"""
    date: str = machine_option("")
    """first part of the results file's name"""


@dataclass(frozen=True)
class TrainingOptions:
    """flags of the originals: training"""

    method: (
        Literal["FT", "LWF", "LWF-MC", "ILT", "EWC", "RW", "PI", "MiB", "PLOP", "RCIL", "VDFD"] | None
    ) = None
    """presets of the flags below; a flag that is given another value is refused (D29), but with VDFD a given
    --reg_importance holds"""
    strict_weights: bool = True
    """load --ckpt strictly (given: leave out what does not fit)"""
    base_weights: bool = False
    """refused: --test --ckpt with the checkpoint of step 0 says the same"""
    epochs: list[int] = field(default_factory=lambda: [30])
    """epochs per step; several: one number for each of --step"""
    fix_bn: bool = False
    """keep statistics and affine parameters of the norms"""
    batch_size: int = 4
    """images per process and iteration"""
    lr: list[float] = field(default_factory=lambda: [0.007])
    """learning rate; several: one for each of --step"""
    lr_old: float | None = None
    """factor of the learning rate of the old steps' classifiers"""
    momentum: float = 0.9
    """never read by the originals, where 0.9 is fixed; harmless"""
    weight_decay: float = 0.0001
    """L2 weight decay, on everything"""
    lr_policy: Literal["poly", "step"] = "poly"
    """schedule, per iteration"""
    lr_decay_step: int = 5000
    """iterations between two cuts of --lr_policy step"""
    lr_decay_factor: float = 0.1
    """factor of each cut of --lr_policy step"""
    lr_power: float = 0.9
    """power of --lr_policy poly"""
    bce: bool = False
    """binary cross-entropy per class in place of cross-entropy"""
    logdir: str = machine_option("./logs")
    """folder of the runs, unless --output_dir is given"""
    name: str = machine_option("Experiment")
    """name in checkpoints and results files"""
    sample_num: int = machine_option(0)
    """pictures after each step"""
    debug: bool = machine_option(False)
    """go on without the previous step's checkpoint, with a warning"""
    visualize: bool = machine_option(True)
    """pictures (given: none)"""
    print_interval: int = machine_option(10)
    """never read by the originals, where 10 is fixed; harmless"""
    val_interval: int = 1
    """epochs between validations; RCIL's default is 15, which its scripts name"""
    ckpt_interval: int = machine_option(1)
    """never read by the originals; harmless"""
    checkpoint: str = machine_option("")
    """folder of the per-step checkpoints; empty: checkpoints/step below --output_dir or its default (D26)"""
    code_directory: str = machine_option(".")
    """folder that holds pretrained/"""


@dataclass(frozen=True)
class NetworkOptions:
    """flags of the originals: network"""

    backbone: Literal["resnet101", "resnet50", "resnet26", "resnet18", "resnet14"] = "resnet101"
    """body; the last three are desk sizes: bottlenecks 2-2-2-2, basic blocks 2-2-2-2, bottlenecks 1-1-1-1"""
    output_stride: Literal[8, 16] = 16
    """reduction of the body"""
    no_pretrained: bool = False
    """random initial weights in place of pretrained/<backbone>_<norm_act>.pth.tar"""
    norm_act: Literal["iabn_sync", "iabn", "abn", "std", "iabn_sync_test", "pkg_iabn_sync", "pkg_iabn"] = "iabn_sync"
    """activated batch norm; pkg_: the package inplace_abn, others: PyTorch (std, iabn_sync_test: refused, D17)"""
    fusion_mode: Literal["mean", "voting", "max"] = "mean"
    """never read by the originals (there --fusion-mode); harmless"""
    pooling: int = 32
    """window of the pooled branch in evaluation"""
    test: bool = False
    """test --ckpt (or the step's checkpoint), do not train"""
    ckpt: str | None = None
    """checkpoint to start from or to test"""
    freeze: bool = False
    """do not train the body"""
    step_ckpt: str | None = None
    """checkpoint of the step before the first of --step, in place of the one in --checkpoint"""
    nb_background_modes: int = 1
    """channels for the background; only 1 is offered (D20)"""
    init_multimodal: str | None = None
    """initialisation of several background channels; refused (D20)"""
    multimodal_fusion: str = "sum"
    """fusion of several background channels; harmless with one"""
    align_weight: Literal["old", "background", "all"] | None = None
    """rows whose mean norm the newest classifier gets"""
    align_weight_frequency: Literal["never", "epoch", "task"] = "never"
    """when"""
    cosine: bool = False
    """classifiers with normalised rows and no bias"""
    init_balanced: bool = False
    """start new classes from the background's row"""


@dataclass(frozen=True)
class DistillationOptions:
    """flags of the originals: distillation and regularisers"""

    loss_de: float = 0.0
    """weight of the squared error between features"""
    loss_kd: float = 0.0
    """weight of the distillation of logits"""
    regularizer: Literal["ewc", "rw", "pi", "vdfd"] | None = None
    """penalty on changes of weights"""
    reg_importance: float = 1.0
    """weight of the penalty"""
    reg_alpha: float = 0.9
    """share of the newest squared gradient in the Fisher information"""
    reg_no_normalize: bool = False
    """do not scale importances to 0 ... 1"""
    reg_iterations: int = 10
    """RW: iterations between two scores"""
    icarl: bool = False
    """iCaRL's loss"""
    icarl_importance: float = 1.0
    """weight of its distillation"""
    icarl_disjoint: bool = False
    """one sum over old and new classes"""
    icarl_bkg: bool = False
    """with --icarl_disjoint: the background keeps its label"""
    unkd: bool = False
    """distillation that adds new classes to the background (MiB)"""
    alpha: float = 1.0
    """factor of the old logits before the softmax"""
    unce: bool = False
    """cross-entropy that adds old classes to the background (MiB)"""
    kd_new: bool = False
    """distillation on new pixels only; refused where its map has no such shape (D20)"""
    kd_mask: Literal["oldbackground", "new"] | None = None
    """pixels with distillation of logits"""
    kd_mask_adaptative_factor: bool = False
    """weight of the masked distillation by the mask's share"""
    kd_scheduling: bool = False
    """distillation times sqrt(classes / new classes)"""
    kd_bce_sig: bool = False
    """distillation by binary cross-entropy"""
    kd_bce_sig_shape: Literal["trim", "sum"] = "trim"
    """what happens to the new channels"""
    exkd_gt: bool = False
    """excluded distillation, new slot by the label"""
    exkd_sum: bool = False
    """excluded distillation, new slot by the sum"""
    temperature: float = 1.0
    """temperature of --temperature_apply"""
    temperature_semiold: float = 1.0
    """temperature of the classes between the first and the last step, in excluded distillation"""
    temperature_apply: Literal["all", "new", "old"] | None = None
    """pixels whose logits are divided by --temperature"""
    nca: bool = False
    """refused: the original raises"""
    nca_margin: float = 0.0
    """margin of --nca"""
    entropy_min: float = 0.0
    """above 0: minimise the entropy of background pixels (the value itself is not applied, as released)"""
    entropy_min_mean_pixels: bool = False
    """never read by the originals; harmless"""
    sample_weights_new: float | None = None
    """weight of every pixel"""
    focal_loss: bool = False
    """focal loss"""
    focal_loss_new: bool = False
    """focal loss on new pixels"""
    focal_loss_gamma: int = 2
    """its power"""
    ce_on_new: bool = False
    """no cross-entropy on background pixels"""
    pod: Literal["spatial", "local", "global"] | None = None
    """distillation of feature maps; with --codebase rcil the pooled-cube form, whatever the name"""
    pod_factor: float = 5.0
    """its weight"""
    pod_options: dict[str, Any] | None = None
    """JSON: other settings for single maps, {"switch": {"after": {"extra_channels", "factor", "type"}}}"""
    pod_prepro: Literal["pow", "none", "abs", "relu"] = "pow"
    """what happens to the maps first (abs: refused, D20)"""
    no_pod_schedule: bool = False
    """leave the factor sqrt(classes / new classes) out"""
    pod_apply: Literal["all", "backbone", "deeplab"] = "all"
    """never read by the originals; harmless"""
    pod_deeplab_mask: bool = False
    """last map: mask of old pixels"""
    pod_deeplab_mask_factor: float | None = None
    """its weight"""
    deeplab_mask_downscale: bool = False
    """shrink the mask in place of enlarging the map"""
    pod_interpolate_last: bool = False
    """never read by the originals; harmless"""
    pod_logits: bool = False
    """distil the small logits too"""
    pod_large_logits: bool = False
    """distil the enlarged logits too"""
    spp_scales: list[int] = field(default_factory=lambda: [1, 2, 4])
    """scales of local and global POD"""


@dataclass(frozen=True)
class PseudoLabelOptions:
    """flags of the originals: pseudo-labels"""

    pseudo: str | None = None
    """naive, confidence, median, entropy, or threshold_<confidence>"""
    threshold: float = 0.9
    """smallest (median: largest) threshold"""
    step_threshold: float | None = None
    """no effect in the original (read after use); harmless"""
    ce_on_pseudo: bool = False
    """cross-entropies of labels and pseudo-labels apart"""
    pseudo_nb_bins: int | None = None
    """bins of the histograms"""
    classif_adaptive_factor: bool = False
    """weight of an image's cross-entropy by its share of valid background"""
    classif_adaptive_min_factor: float = 0.0
    """its least value"""
    pseudo_soft: Literal["soft_certain", "soft_uncertain"] | None = None
    """soft pseudo-labels"""
    pseudo_soft_factor: float = 1.0
    """their weight"""
    pseudo_ablation: Literal["corrected_errors", "removed_errors"] | None = None
    """what an oracle does to wrong pseudo-labels"""


@dataclass(frozen=True)
class VdfdOptions:
    """VDFD (names of its classification code where it has them; all defaults that are not the paper's are derived)"""

    singular: int = 1
    """rank r of the compressed importance (paper: 1)"""
    epsilons: float = 0.001
    """added to the diagonal of the precision"""
    hypermodel_hid: int | None = None
    """hidden width of the graph network; default: the features'"""
    hypermodel_out: int | None = None
    """output width of the graph network; default: the features'"""
    hypermodel_residual: Literal["on", "off"] = "on"
    """add the graph network's input to its output"""
    hypermodel_optimizer: Literal["SGD", "Adam"] = "SGD"
    """optimiser of the graph network"""
    hypermodel_lr: float = 0.001
    """its learning rate, poly per iteration (paper)"""
    hypermodel_weight_decay: float = 0.0001
    """its weight decay"""
    vdfd_network: Literal["plop", "rcil"] = "plop"
    """whose network"""
    vdfd_score: Literal["small", "full"] = "small"
    """mean of which logits is differentiated"""
    vdfd_head: Literal["exact", "rank1", "none"] = "exact"
    """compression of the classifier: its exact row-wise form, as a convolution, or left out"""
    vdfd_prototype: Literal["current", "stored"] = "current"
    """classifier rows the graph network sees: those at the start of the step, or of each old step"""
    vdfd_svd: Literal["exact", "lowrank"] = "exact"
    """singular value decomposition: exact, or the randomised one of the classification code (D24)"""
    vdfd_sum: Literal["all", "last_squared"] = "all"
    """old steps in the penalty: all, or the last one as the class-incremental code has it (D22)"""
    vdfd_precision_eps: Literal["logdet", "both"] = "logdet"
    """terms whose precision gets --epsilons: as the code, or as the poster writes it (D21)"""


@dataclass(frozen=True)
class AddedOptions(RunOptions):
    """added by this repository"""

    output_dir: str = machine_option("")
    """folder of this run: log, series, checkpoints, record; empty: <logdir>/<task>-<dataset>/<name>, where each --step
    of one command (and each --test) has its log and record in a folder of its own"""
    seed: int | None = None
    """replaces --random_seed"""
    gpuid: list[int] = machine_option([0])
    """CUDA device number; negative: CPU; several: one for each process of torchrun"""
    codebase: Literal["plop", "rcil"] | None = None
    """whose network, maps, balanced initialisation and feature distillation; default: rcil for --method RCIL"""
    width: int = 64
    """channels of the body's stem (64: as published); the stages have 1, 2, 4, 8 times as many, bottlenecks 4 times"""
    head_width: int = 256
    """channels of head and classifier input"""
    rcil_slope: float = 1.0
    """slope inside the norms of RCIL's network (1: as its iabn_sync; its other norms keep 0.01 and activate twice)"""
    entropy_reduction: Literal["mean", "sum"] = "mean"
    """pixel entropy: mean over classes as released, or the sum of the paper (D1)"""
    median_search: Literal["released", "exact"] = "released"
    """median of a histogram: as released (adds bin numbers), or exact (D2)"""
    entropy_classes: Literal["current", "old"] = "current"
    """class count whose logarithm scales entropies against thresholds: as released, or one count (D3)"""
    rcil_start: Literal["released", "compensate"] = "released"
    """RCIL's trainable branch after merging: the old weights, or the merged ones (D5)"""
    init_balanced_bias: Literal["released", "on", "off"] = "released"
    """biases in the balanced initialisation: PLOP sets them, RCIL does not (D6)"""
    attention_maps: Literal["released", "before", "after"] = "released"
    """stage maps that are distilled: before the activation (PLOP) or after it (RCIL) (D7)"""
    pckd_spatial_factor: float | None = None
    """RCIL: weight of the spatial distillation; default: released value of the data set (D8)"""
    pckd_spatial_last_factor: float | None = None
    """RCIL: the same for the logits"""
    pckd_channel_factor: float | None = None
    """RCIL: weight of the channel distillation"""
    pckd_channel_last_factor: float | None = None
    """RCIL: the same for the head's output"""
    domain_split: Literal["released", "clean"] = "released"
    """domain protocols: lists shuffled anew for every step (test images may have been training images), or every
    domain split once (D11)"""
    test_sharding: Literal["exact", "padded"] = "exact"
    """several processes: every test image once, or padded and shuffled as released (D13)"""
    step0_ckpt: str | None = None
    """take step 0 from this checkpoint (it is tested, not trained)"""
    results: str = machine_option("")
    """folder of the results files; empty: results below --output_dir or its default"""
    eval_task_ids: bool = False
    """task-incremental test: every pixel is decided among the classes of its own step (derived)"""


@dataclass(frozen=True)
class SegmentationOptions(
    AddedOptions,
    VdfdOptions,
    PseudoLabelOptions,
    DistillationOptions,
    NetworkOptions,
    TrainingOptions,
    DataOptions,
):
    """all flags"""
