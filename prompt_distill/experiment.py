"""From flags to a record: builds data, networks and learner, goes through the tasks, sums up."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from common.training.device import choose_device
from common.training.errors import RunStopped, UserError
from common.training.files import write_atomically, write_json
from common.training.options import as_dict
from common.training.parallel import Processes, SharedRun
from common.training.precision import set_backend_flags
from common.training.seeding import seed_everything
from prompt_distill.backbones import size_of
from prompt_distill.building import load_pair
from prompt_distill.configuration import check, labels_of, seed_of, smoke_form, virtual_devices
from prompt_distill.data import TaskImages
from prompt_distill.learner import PromptLearner
from prompt_distill.options import PromptDistillOptions
from prompt_distill.prompts import PROMPTS
from prompt_distill.summary import RunAccuracies, summarise, write_histories, write_result_yaml
from prompt_distill.variant import JULY, Variant

PAPER = "prompt_distill"


def run_experiment(config: PromptDistillOptions, changed: dict[str, list[Any]]) -> dict[str, Any]:
    """Run every repetition; finished ones are skipped, interrupted ones go on.

    Returns:
        {"runs": [metrics of each run]}, and mean and standard deviation of A and F.
    """
    begin = time.monotonic()
    if config.smoke:
        config = smoke_form(config)
    variant = check(config)
    # what a run follows stands in its record, and stays when it goes on elsewhere
    config = dataclasses.replace(config, variant=variant.tag, virtual_devices=virtual_devices(config))
    processes = Processes()
    device, notice = choose_device(processes.device_number(config.gpuid))
    if processes.count > 1 and config.virtual_devices != processes.count:
        raise UserError(
            f"{processes.count} processes add up their prompt losses as so many devices do; give --virtual_devices "
            f"{processes.count} (or as many numbers to --gpuid)"
        )
    set_backend_flags(config.fast)
    processes.start(device)
    base = Path(config.output_dir or config.log_dir)
    summaries, seconds = [], []
    try:
        for repetition in range(config.repeat):
            folder = base / f"repeat_{repetition}" if config.repeat > 1 else base
            seed = seed_of(config, variant, repetition)
            with SharedRun(
                config,
                processes=processes,
                folder=folder,
                method=f"{PROMPTS[config.learner_name].name}-{config.KD_method}",
                paper=PAPER,
                device=device,
                seed=seed,
                changed=changed,
                begin=begin,
            ) as run:
                if notice:
                    run.note(notice)
                if run.finished:
                    run.note(f"finished already: {folder}")
                    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
                    summaries.append(record["metrics"])
                    seconds.append(record["wall_seconds"])
                else:
                    seed_everything(seed)
                    set_backend_flags(config.fast)
                    summaries.append(train_one(config, variant, run, seed, processes))
                    seconds.append(run.seconds())
    finally:
        processes.stop()
    if processes.rank == 0:
        write_result_yaml(base, summaries, seconds)
    return sum_up(summaries, base if processes.rank == 0 else None)


def train_one(
    config: PromptDistillOptions, variant: Variant, run: SharedRun, seed: int, processes: Processes
) -> dict[str, Any]:
    """One run from its start or its newest checkpoint to its record; returns the metrics."""
    data = TaskImages(config, size_of(config.s_model).image, run.device, seed)
    devices = virtual_devices(config)
    pair, sources = load_pair(config, variant, data.classes, len(data.tasks), devices // processes.count)
    pair.to(run.device)
    for source in sources:
        run.note(source)
    learner = PromptLearner(
        config,
        pair.student,
        pair.teacher,
        pair.distillation,
        data,
        run,
        student_rates=config.student_schedule or variant.student_schedule,
        devices=devices,
        processes=processes,
        hashes=pair.hashes,
    )
    accuracies = RunAccuracies()
    run.register("accuracies", accuracies)
    run.restore()
    write_settings(run.folder / "args.yaml", config)

    def record(finished: bool) -> dict[str, Any]:
        metrics, labels = summarise(accuracies), labels_of(config, run.changed, data.train_set.copy)
        run.write_record(metrics, data.describe() | {"backbones": sources}, labels, finished=finished)
        return metrics

    try:
        for task in range(accuracies.tasks_done + 1, len(data.tasks) + 1):
            learner.fit_task(task)
            accuracies.add([learner.evaluate(earlier, task) for earlier in range(1, task + 1)])
            note_task(run, learner, accuracies)
            if processes.rank == 0:
                write_histories(run.folder, accuracies, july=variant.tag == JULY)
                if config.save_tasks:
                    save_task(run.folder / "models" / f"task-{task}", learner)
            run.save()
    except RunStopped:
        record(finished=False)
        raise
    metrics = record(finished=True)
    run.note(f"Acc | mean: {metrics['acc']:.3f}")
    run.note(f"Forgetting: {metrics['forgetting']:.3f}")
    run.note(f"finished in {run.seconds() / 3600:.2f} h; record: {run.folder / 'record.json'}")
    return metrics


def note_task(run: SharedRun, learner: PromptLearner, accuracies: RunAccuracies) -> None:
    """Log what was measured after a task."""
    where = {"task": learner.task, "epoch": len(learner.rates)}
    for name, matrix in (("student", accuracies.student), ("teacher", accuracies.teacher)):
        if not matrix.rows:
            continue
        prefix = "test" if name == "student" else "test_teacher"
        for task, accuracy in enumerate(matrix.rows[-1], start=1):
            run.log_value(f"{prefix}/task_{task}", accuracy, **where)
        average = matrix.average_accuracy()[-1]
        run.log_value(f"{prefix}/acc", average, **where)
        values = " ".join(f"{accuracy:.2f}" for accuracy in matrix.rows[-1])
        run.note(f" * Val {name.title()} Acc {values} | A {average:.2f}")


def save_task(folder: Path, learner: PromptLearner) -> None:
    """Learned weights of both networks after a task (backbones left out): `T_class` and `S_class` of the original."""
    for name, network in (("T_class", learner.teacher), ("S_class", learner.student)):
        if network is None:
            continue
        state = {key: value.detach().cpu().contiguous() for key, value in network.learned_state().items()}
        if network is learner.student:
            state |= {
                f"distillation.{key}": value.detach().cpu().contiguous()
                for key, value in learner.distillation.state_dict().items()
            }
        folder.mkdir(parents=True, exist_ok=True)
        incoming = folder / f"{name}.incoming"
        save_file(state, incoming)
        incoming.replace(folder / f"{name}.safetensors")


def write_settings(path: Path, config: PromptDistillOptions) -> None:
    """All settings, as the original's args.yaml."""
    text = yaml.safe_dump(as_dict(config), sort_keys=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def sum_up(summaries: list[dict[str, Any]], folder: Path | None) -> dict[str, Any]:
    """Mean and population standard deviation over all repetitions."""
    total: dict[str, Any] = {"runs": summaries}
    for name in ("acc", "forgetting"):
        values = [summary[name] for summary in summaries]
        total[name], total[f"{name}_std"] = statistics.fmean(values), statistics.pstdev(values)
    if folder is not None and len(summaries) > 1:
        write_json(folder / "summary.json", total)
    return total
