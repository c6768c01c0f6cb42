"""Running cells: on this machine, by torchrun, or as Slurm arrays."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from common.training.errors import UserError
from repro import formats, jobs, launchers, records, runner
from repro.commands import app, examples, parse_seeds
from repro.registry import read_registry, repository_root, select_cells


@app.command(
    epilog=examples(
        "repro run vdfd/ti-cifar100-10 --seeds 0,1,2",
        "repro run 'vdfd/ti-*' --smoke --jobs 2",
        "repro run vdfd/ti-cifar100-10 --dry-run",
        "repro run lra-desk --seeds 0,1,2 --jobs 2 --skip-kept",
        "repro run vdfd/ti-cifar100-10 --time-budget 3600 -- --fast",
        "repro run 'rfd/rfd-*' --jobs 4 --gpus 0,1,2,3 --memory 64",
        "repro run 'rfd/rfd-*' --seeds 0,1,2 --launcher slurm --slurm partition=gpu --slurm gpus_per_node=1",
        "repro run prompt_distill/cifar-base-small-coda-kdp --launcher torchrun --processes 2",
    )
)
def run(
    context: typer.Context,
    cells: Annotated[list[str], typer.Argument(help="Cell ids or shell patterns; see `repro list`.")],
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0",
    smoke: Annotated[bool, typer.Option("--smoke", help="Short form on the embedded sample.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show commands and estimated cost.")] = False,
    time_budget: Annotated[
        float | None, typer.Option(help="Seconds for all runs together; they stop at a checkpoint.")
    ] = None,
    skip_kept: Annotated[
        bool, typer.Option("--skip-kept", help="Leave out what results/ holds a run of, cell and seed.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs' outputs.", show_default="outputs")] = None,
    at_once: Annotated[int, typer.Option("--jobs", min=1, help="Runs at once; each gets its share of the cores.")] = 1,
    memory: Annotated[
        float | None, typer.Option(help="GiB for all runs at once.", show_default="9/10 of the machine's")
    ] = None,
    gpus: Annotated[str, typer.Option(help="Device numbers, one run each, e.g. 0,1.", show_default=False)] = "",
    launcher: Annotated[str, typer.Option(help="local, slurm or torchrun")] = "local",
    processes: Annotated[
        int | None, typer.Option(min=1, help="torchrun: processes of each run.", show_default="2")
    ] = None,
    slurm: Annotated[list[str] | None, typer.Option(help="slurm: KEY=VALUE, e.g. partition=gpu; repeatable.")] = None,
) -> None:
    """Run cells by their scripts. Finished ones are skipped, stopped ones go on. Flags after -- go to the scripts."""
    launchers.check_launcher(launcher)
    options = launchers.parse_options(slurm or ())
    if options and launcher != "slurm":
        raise UserError("--slurm sets parameters of --launcher slurm; give that launcher, or leave it out")
    devices = tuple(part.strip() for part in gpus.split(",") if part.strip())
    if len(set(devices)) < len(devices):
        raise UserError(f"--gpus {gpus} names a device twice; one run each")
    if memory is not None and memory <= 0:
        raise UserError(f"--memory {memory:g}: expected more than 0 GiB")
    if processes is not None and launcher != "torchrun":
        raise UserError("--processes sets the processes of --launcher torchrun; give that launcher, or leave it out")
    if launcher == "torchrun" and devices:
        raise UserError("--gpus gives every run one device; with --launcher torchrun set CUDA_VISIBLE_DEVICES instead")
    if launcher == "slurm" and (devices or memory is not None):
        raise UserError("--gpus and --memory divide this machine; with --launcher slurm use --slurm KEY=VALUE")
    root = repository_root()
    chosen = select_cells(read_registry(root), cells)
    waiting = [cell for cell in chosen if cell.status and cell.id not in cells]
    records.print_warnings(f"left out: cell {cell.id} cannot be run: {cell.status}" for cell in waiting)
    chosen = [cell for cell in chosen if cell not in waiting]
    extra = (context.obj or {}).get("extra", ())
    folder = out or root / "outputs"
    planned = jobs.plan(chosen, parse_seeds(seeds), root, folder, smoke, extra, _known_memory(root))
    if skip_kept:
        if smoke or extra:
            raise UserError(
                f"--skip-kept with {'--smoke' if smoke else 'flags after --'}: results/ holds runs of the scripts as "
                "they are, which are no reason to leave out others; leave --skip-kept away"
            )
        kept = {(record.cell, record.content["seed"]) for record in _kept(root) if not record.changed}
        left_out = [job for job in planned if (job.cell.id, job.seed) in kept]
        records.print_warnings(f"left out: {job.name}: results/ holds a run of it" for job in left_out)
        planned = [job for job in planned if job not in left_out]
    if launcher == "torchrun":
        planned = launchers.with_torchrun(planned, processes or 2, folder / "launch")
    if dry_run:
        _show(planned, time_budget)
        return
    if launcher == "slurm":
        if time_budget is not None:
            raise UserError("--time-budget does not apply to --launcher slurm; use --slurm timeout_min=MINUTES")
        results, _ = launchers.submit(planned, folder / "slurm", options, at_once if at_once > 1 else 0)
    else:
        budget = runner.Budget(
            at_once,
            memory or 0.9 * runner.physical_memory_gib(),
            devices,
            folder / "logs",
        )
        results = runner.run_jobs(planned, time_budget, budget, lambda line: print(line, file=sys.stderr, flush=True))
    formats.print_table(_summary(results))
    raise typer.Exit(jobs.exit_code_of(results))


def _show(planned: Sequence[jobs.Job], time_budget: float | None) -> None:
    """Commands with their estimates as comments, so that the whole is a shell script."""
    for job in planned:
        hours = "cost unknown" if job.cell.cost_hours is None else f"about {job.cell.cost_hours:g} h"
        parts = [hours, job.cell.cost_hardware, f"{job.memory_gib:.1f} GiB"]
        parts = ["finished"] if jobs.finished_record(job) else parts
        variables = "".join(f"{name}={value} " for name, value in job.environment.items() if name != "PYTHONPATH")
        shown = job.shown(time_budget).replace("&& ", f"&& {variables}", 1)
        print(f"{shown}  # {', '.join(part for part in parts if part)}")
    for line in jobs.cost_lines(planned):
        print(f"# {line}")


def _summary(results: Sequence[jobs.Result]) -> Table:
    summary = Table(title="Runs", title_justify="left")
    for heading in ("cell", "seed", "status", "exit code", "seconds", "result", "output"):
        summary.add_column(heading, overflow="fold")
    for result in results:
        summary.add_row(
            result.job.cell.id,
            str(result.job.seed),
            result.status,
            "" if result.exit_code is None else str(result.exit_code),
            f"{result.seconds:.1f}",
            result.note.replace("[", r"\["),
            os.path.relpath(result.job.output_dir),
        )
    return summary


def _known_memory(root: Path) -> dict[str, float]:
    """Cell -> the most main memory that a kept run of it needed, GiB (runs on a GPU state the GPU's)."""
    found: dict[str, float] = {}
    for record in _kept(root):
        peak = record.content.get("peak_memory_gib")
        if record.cell and isinstance(peak, (int, float)) and record.content["hardware"].get("device") == "cpu":
            found[record.cell] = max(found.get(record.cell, 0.0), float(peak))
    return found


def _kept(root: Path) -> list[records.Record]:
    """Finished runs in results/ that are no short forms."""
    folders = [path for path in (root / "results").glob("*") if path.is_dir()]
    return [one for one in records.load_records(folders)[0] if one.finished and "smoke" not in one.labels]
