"""Flags: the original's (command line and YAML keys alike), and what is added.

Source: IRVLUTD/CDL@d980577 run.py; values of `configs/cifar-100_prompt.yaml` are the defaults of the YAML keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.training.options import RunOptions, machine_option


@dataclass(frozen=True)
class OriginalOptions:
    """flags of the original"""

    random_s: int = 10
    """seed; repetition r takes random_s + r (July 2024 has no such flag: repetition r takes r + 2 there)"""
    repeat: int = 1
    """repetitions (July 2024)"""
    gpuid: list[int] = machine_option([0])
    """CUDA device number; negative: CPU; several: their number is that of the virtual devices, see --virtual_devices"""
    log_dir: str = machine_option("outputs/out")
    """folder of the run, unless --output_dir is given"""
    learner_type: Literal["prompt"] = "prompt"
    """module of the learner"""
    learner_name: Literal["CODAPrompt", "DualPrompt", "L2P", "APT"] = "CODAPrompt"
    """prompt method"""
    debug_mode: Literal[0] = 0
    """does nothing in the original; only 0 is taken"""
    overwrite: Literal[0, 1] = machine_option(0)
    """0: go on with what is in the folder; 1: start over"""
    upper_bound_flag: bool = False
    """one task with all classes"""
    memory: Literal[0] = 0
    """replayed images; the original crashes above 0, so only 0 is taken"""
    DW: bool = False
    """class balancing; has no effect in the original and is refused"""
    prompt_param: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    """numbers of the prompt method: CODAPrompt pool, length, penalty; DualPrompt experts, expert length, general
    length; L2P pool, length, deep if above 0; APT a ratio that is never used"""
    t_model: str = "vit_base_patch16_224"
    """teacher"""
    s_model: str = "vit_tiny_patch16_224"
    """student; also gives the query of both networks"""
    kd_alpha: float = 0.5
    """weight of the distillation; the cross-entropy gets 1 - kd_alpha"""
    Soft_T: float = 2.0
    """temperature of KD"""
    config: str | None = machine_option(None)
    """YAML file with values for any flag; the command line wins"""
    KD_method: Literal["CDL-Prompt", "KD_Token", "KD", "DKD", "FitNets", "ReviewKD", "none"] = "CDL-Prompt"
    """distillation method; none: the student alone"""
    kd_prompt_param: list[int] = field(default_factory=lambda: [5, 6])
    """student layers with KD prompts, length of each"""
    ema_coeff: float = 0.5
    """share of the old buffer when APT merges"""


@dataclass(frozen=True)
class YamlOptions:
    """keys of the original's YAML files"""

    dataset: Literal["CIFAR100", "ImageNet_R", "ImageNet_A", "DomainNet", "Sample"] = "CIFAR100"
    """data set; CIFAR10 is missing in the original's transform table and here"""
    first_split_size: int = 10
    """classes of the first task"""
    other_split_size: int = 10
    """classes of every other task"""
    schedule: list[int] = field(default_factory=lambda: [20])
    """milestones of --schedule_type decay; the last number is the number of epochs"""
    schedule_type: Literal["cosine", "decay"] = "cosine"
    """learning rate within a task"""
    batch_size: int = 64
    """images per step, and per test batch"""
    optimizer: Literal["Adam", "amsgrad", "SGD", "RMSprop"] = "Adam"
    """optimiser of both networks, new for every task"""
    lr: float = 0.001
    """initial learning rate"""
    momentum: float = 0.9
    """first beta of Adam; momentum of the others"""
    weight_decay: float = 0.0
    """L2 weight decay"""
    model_type: Literal["zoo"] = "zoo"
    """family of the network"""
    model_name: Literal["vit_pt_imnet"] = "vit_pt_imnet"
    """pretrained ViT with prompts"""
    max_task: int = -1
    """stop after this many tasks, which also share the pools; -1: all"""
    dataroot: str = machine_option("data")
    """folder of the data sets"""
    workers: int = machine_option(4)
    """loader processes, for images that are read from disk"""
    validation: bool = False
    """train on 80 % of the training images and test on the others"""
    train_aug: bool = True
    """augment training images (given: do not; the original ignores the key and always does)"""
    rand_split: bool = False
    """kept for old YAML files; the original ignores it, see --class_order"""


@dataclass(frozen=True)
class AddedOptions(RunOptions):
    """added by this repository"""

    output_dir: str = machine_option("")
    """folder of this run: log, series, checkpoints, record; empty: --log_dir"""
    seed: int | None = None
    """replaces --random_s; repetition r takes seed + r"""
    variant: (
        Literal["cdl_prompt_2024_07", "kd_token_2024_12", "kd_token_2025_01", "kdp_2025_03", "d_cdl_2026_04"] | None
    ) = None
    """dated state of the original; default: the newest that has the method"""
    weights: list[str] | None = machine_option(None)
    """folder with the backbones' files, or one file for teacher and one for student"""
    weights_tag: str = "augreg_in21k_ft_in1k"
    """checkpoint of the timm names; timm: whatever the installed version takes for the bare name (D19)"""
    virtual_devices: int | None = None
    """parts of a batch whose prompt and feature losses are added up, as the original's data parallelism does (D8);
    default: as many as --gpuid names"""
    student_schedule: Literal["schedule", "constant"] | None = None
    """learning rate of the student; default: constant in July 2024, else as --schedule_type (D3)"""
    key_loss: Literal["mean", "sum"] | None = None
    """key loss of DualPrompt and L2P; default: as the variant has it (D4)"""
    class_order: Literal["natural", "seeded"] = "natural"
    """seeded: CODA-Prompt's shuffle by the seed (D1)"""
    normalise: bool = False
    """give the backbones inputs of mean 0.5, std 0.5, as their checkpoints want (D7)"""
    mapping_growth: bool = False
    """let CDL-Prompt's mapping take new components at every task (D11)"""
    merge_before_student: bool = False
    """APT: merge the teacher's prompts before the student's phase (D9)"""
    images_per_class: int | None = None
    """training images per class (a sub-sampled run); default: all"""
    save_tasks: bool = machine_option(True)
    """keep the learned weights of both networks after every task, below models/ (given: do not)"""


@dataclass(frozen=True)
class PromptDistillOptions(AddedOptions, YamlOptions, OriginalOptions):
    """all flags"""
