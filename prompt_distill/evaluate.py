"""Tests a finished or interrupted run again from the weights it kept after a task.

python -m prompt_distill.evaluate outputs/.../coda-p --dataroot ../data    # after the last task that it kept
python -m prompt_distill.evaluate outputs/.../coda-p --dataroot ../data --weights FOLDER --task 3
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from common.training.device import choose_device
from common.training.errors import UserError, command_line
from common.training.precision import set_backend_flags
from common.training.run import Run
from common.training.seeding import seed_everything
from prompt_distill.backbones import size_of
from prompt_distill.building import load_pair
from prompt_distill.configuration import check, seed_of
from prompt_distill.data import TaskImages
from prompt_distill.learner import PromptLearner
from prompt_distill.options import PromptDistillOptions


def kept_tasks(folder: Path) -> list[int]:
    """Tasks after which a run kept its weights."""
    return sorted(int(path.parent.name.partition("-")[2]) for path in folder.glob("models/task-*/S_class.safetensors"))


def evaluate_run(folder: Path, task: int | None, **overrides: object) -> list[dict[str, float]]:
    """Accuracies on tasks 1 .. `task`, percent, as `PromptLearner.evaluate` gives them.

    Args:
        folder: of the run (of one repetition).
        task: weights after this task; None: the last one kept.
        overrides: flags that say where things lie (gpuid, dataroot, weights).

    Raises:
        UserError: if the folder holds no such weights, or they do not fit.
    """
    kept = kept_tasks(folder)
    if not kept or (task is not None and task not in kept):
        raise UserError(f"{folder} holds no weights after task {task or 'any'}; kept: {kept or 'none'}")
    task = task or kept[-1]
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    given = {key: value for key, value in overrides.items() if value is not None}
    config = dataclasses.replace(PromptDistillOptions(**settings), **given)
    variant, device = check(config), choose_device(config.gpuid[:1])[0]
    seed = recorded_seed(folder, seed_of(config, variant, 0))
    seed_everything(seed)
    set_backend_flags(config.fast)
    with tempfile.TemporaryDirectory() as scratch:
        config = dataclasses.replace(config, output_dir=scratch)
        with Run(config, method="evaluation", paper="prompt_distill", device=device, seed=seed, quiet=True) as run:
            data = TaskImages(config, size_of(config.s_model).image, device, seed)
            pair = load_pair(config, variant, data.classes, len(data.tasks))[0].to(device)
            learner = PromptLearner(config, pair.student, pair.teacher, pair.distillation, data, run)
            load_task(learner, folder / "models" / f"task-{task}", task)
            return [learner.evaluate(earlier, task) for earlier in range(1, task + 1)]


def recorded_seed(folder: Path, otherwise: int) -> int:
    """Seed of a run by its record; a run that never wrote one was the first repetition."""
    path = folder / "record.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["seed"]) if path.is_file() else otherwise


def load_task(learner: PromptLearner, folder: Path, task: int) -> None:
    """Put kept weights into both networks.

    Raises:
        UserError: if a file is missing or does not fit.
    """
    for name, network in (("T_class", learner.teacher), ("S_class", learner.student)):
        if network is None:
            continue
        path = folder / f"{name}.safetensors"
        try:
            state = load_file(path)
            extra = {key: value for key, value in state.items() if key.startswith("distillation.")}
            network.load_learned_state({key: value for key, value in state.items() if key not in extra})
            if network is learner.student:
                names = {key.removeprefix("distillation."): value for key, value in extra.items()}
                learner.distillation.load_state_dict(names)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{path} cannot be used ({' '.join(str(error).split())[:120]})") from error
        network.prompt.task = task - 1
    learner.distillation.task = task - 1
    learner.task = task


def main(argv: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Print and return the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the run")
    parser.add_argument("--task", type=int, help="weights after this task; default: the last one kept")
    parser.add_argument("--gpuid", type=int, nargs="+", help="CUDA device number; negative: CPU")
    parser.add_argument("--dataroot", help="folder of the data sets")
    parser.add_argument("--weights", nargs="+", help="folder with the backbones' files")
    args = parser.parse_args(argv)
    with torch.no_grad():
        results = evaluate_run(args.folder, args.task, gpuid=args.gpuid, dataroot=args.dataroot, weights=args.weights)
    for name in results[0]:
        values = [result[name] for result in results]
        print(f"{name}: {' '.join(f'{value:.2f}' for value in values)} | A {sum(values) / len(values):.2f}")
    return results


if __name__ == "__main__":
    command_line(main)()
