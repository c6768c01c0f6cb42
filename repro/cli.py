"""The command line of the audit desk; each command is a few lines around the module that does the work.

Exit codes: 0 fine, 1 a check or a run failed, 2 bad input, 75 a run stopped at a checkpoint (the same command goes on).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from common.training.errors import UserError, command_line
from repro import compare as comparing
from repro import formats, logs, readme, records, runner, tables
from repro.keep import keep_record, machine_paths
from repro.published import PublishedTables, check_published
from repro.registry import read_registry, repository_root, select_cells, select_papers

app = typer.Typer(
    name="repro",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Audit desk: what the papers published, what we ran, and whether our code computes what theirs computes.",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets: what is there, and how to get the rest.")
app.add_typer(data_app, name="data")

Paper = Annotated[str | None, typer.Argument(help="One paper, e.g. vdfd; all if left out.", show_default=False)]
Format = Annotated[str, typer.Option("--format", help="text, md, csv, html or json")]
Records = Annotated[list[Path] | None, typer.Option("--records", help="One more folder with run records; repeatable.")]


def _examples(*lines: str) -> str:
    """Examples below a command's help, one per line."""
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


@app.command("list", epilog=_examples("repro list", "repro list vdfd --missing", "repro list vdfd --format json"))
def list_cells(
    paper: Paper = None,
    format: Format = "text",
    missing: Annotated[bool, typer.Option("--missing", help="Only cells without a full run.")] = False,
    folders: Records = None,
) -> None:
    """Every cell of every paper table: command, published values, number of our runs."""
    formats.check_format(format)
    root = repository_root()
    runs = [tables.collect(one, root, _existing(folders)) for one in select_papers(read_registry(root), paper)]
    _warn(runs)
    _write(formats.render([tables.list_sheet(one, missing) for one in runs], format, Path.cwd()))


@app.command(
    epilog=_examples("repro table vdfd", "repro table vdfd --format md > table.md", "repro table --records outputs")
)
def table(paper: Paper = None, format: Format = "text", folders: Records = None) -> None:
    """Published against ours, from CSV files and run records; shortened runs apart from full ones."""
    formats.check_format(format)
    root = repository_root()
    runs = [tables.collect(one, root, _existing(folders)) for one in select_papers(read_registry(root), paper)]
    _warn(runs)
    _write(formats.render([sheet for one in runs for sheet in tables.table_sheets(one, root)], format, Path.cwd()))


@app.command("readme", epilog=_examples("repro readme", "repro readme --check"))
def update_readme(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a table is out of date.")] = False,
) -> None:
    """Regenerate the tables between `<!-- repro:table PAPER -->` and `<!-- /repro:table -->` in README files."""
    root = repository_root()
    stale, warnings = readme.update_readmes(root, check)
    records.print_warnings(warnings)
    for path in stale:
        print(f"{'out of date' if check else 'updated'}: {path.relative_to(root)}")
    if check and stale:
        print("run `repro readme` and commit the result")
        raise typer.Exit(1)


@app.command(
    epilog=_examples(
        "repro run vdfd/ti-cifar100-10 --seeds 0,1,2",
        "repro run 'vdfd/ti-*' --smoke",
        "repro run vdfd/ti-cifar100-10 --dry-run",
        "repro run vdfd/ti-cifar100-10 --time-budget 3600 -- --fast",
    )
)
def run(
    context: typer.Context,
    cells: Annotated[list[str], typer.Argument(help="Cell ids or shell patterns; see `repro list`.")],
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0",
    smoke: Annotated[bool, typer.Option("--smoke", help="Short form on the embedded sample.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the commands.")] = False,
    time_budget: Annotated[
        float | None, typer.Option(help="Seconds for all runs together; they stop at a checkpoint.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs' outputs.", show_default="outputs")] = None,
    launcher: Annotated[str, typer.Option(help="local or slurm")] = "local",
) -> None:
    """Run cells by their scripts. Finished ones are skipped, stopped ones go on. Flags after -- go to the scripts."""
    runner.check_launcher(launcher)
    root = repository_root()
    chosen = select_cells(read_registry(root), cells)
    waiting = [cell for cell in chosen if cell.status and cell.id not in cells]
    records.print_warnings(f"left out: cell {cell.id} cannot be run: {cell.status}" for cell in waiting)
    chosen = [cell for cell in chosen if cell not in waiting]
    extra = (context.obj or {}).get("extra", ())
    jobs = runner.plan(chosen, _seeds(seeds), root, out or root / "outputs", smoke, extra)
    if dry_run:
        for job in jobs:
            print(job.shown(time_budget))
        return
    results = runner.run_jobs(jobs, time_budget)
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
            result.note,
            os.path.relpath(result.job.output_dir),
        )
    formats.print_table(summary)
    raise typer.Exit(runner.exit_code_of(results))


@app.command(epilog=_examples("repro keep outputs/vdfd/ti-cifar100-10/seed0/record.json"))
def keep(record: Annotated[Path, typer.Argument(help="record.json of a finished run, or its folder.")]) -> None:
    """Copy a finished run's record and series into results/<paper>/, where the tables find them."""
    root = repository_root()
    loaded = records.load_record(record)
    records.print_warnings(
        f"{place} holds the path of a machine; run with relative paths to keep it out"
        for place in machine_paths(loaded.content)
    )
    for path in keep_record(record, root):
        print(f"kept: {path.relative_to(root)}")


@app.command(
    "compare",
    epilog=_examples(
        "repro compare outputs/a/record.json outputs/b/record.json",
        "repro compare outputs/a outputs/b --plots plots",
        "repro compare outputs/vdfd outputs/finetune --expect acc=8 --expect bwt=20",
    ),
)
def compare_records(
    paths: Annotated[list[Path], typer.Argument(help="record.json files, or folders of runs.", metavar="RECORD...")],
    plots: Annotated[Path | None, typer.Option(help="Folder for PNG files with the learning curves.")] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(help="METRIC=POINTS: the first record leads the second by at least so much; else exit 1."),
    ] = None,
) -> None:
    """Accuracy matrices, ACC and BWT of several runs side by side."""
    loaded = [records.load_record(path) for path in paths]
    verdicts = comparing.check_expectations(loaded, expect or ())
    console = Console()
    comparing.print_comparison(loaded, console if console.is_terminal else Console(width=formats.WIDTH_OF_FILES))
    for path in comparing.write_plots(loaded, plots) if plots else ():
        print(f"written: {path}")
    for sentence, _ in verdicts:
        print(sentence)
    if not all(holds for _, holds in verdicts):
        raise typer.Exit(1)


@app.command(
    "logs",
    epilog=_examples(
        "repro logs vdfd",
        "repro logs vdfd --run outputs/vdfd/ci-cifar100-10x10/seed0 --plots plots",
        "repro logs vdfd --records outputs --format md",
    ),
)
def compare_logs(
    paper: Annotated[str, typer.Argument(help="Paper whose authors released logs, e.g. vdfd.")],
    runs: Annotated[
        list[Path] | None,
        typer.Option("--run", help="record.json or folder of a run; repeatable.", show_default="results/PAPER"),
    ] = None,
    folders: Records = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for one PNG file per run and task.")] = None,
    format: Format = "text",
    any_run: Annotated[bool, typer.Option("--any", help="Also smoke, sub-sampled and desk-scale runs.")] = False,
) -> None:
    """Our epochs beside the logs that the authors released; exit 1 where learning rates or lengths disagree."""
    formats.check_format(format)
    root = repository_root()
    if runs and folders:
        raise UserError("--run names the runs and --records looks for all there are; give one of them")
    subproject = select_papers(read_registry(root), paper)[0]
    comparisons, sheets, warnings = logs.compare_paper(subproject, root, runs or (), _existing(folders), any_run)
    records.print_warnings(warnings)
    _write(formats.render(sheets, format, Path.cwd()))
    for path in [path for run in comparisons for path in logs.write_plots(run, plots)] if plots else ():
        print(f"written: {path}", file=sys.stderr)  # why: standard output may be a table for a program
    if not all(run.agrees for run in comparisons):
        raise typer.Exit(1)


@app.command(
    "parity",
    epilog=_examples(
        "repro parity",
        "repro parity vdfd.reg",
        "repro parity vdfd --self-test",
        "repro parity --fixtures ../other/vdfd --verbose",
    ),
)
def replay_fixtures(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Paper, beginning of a fixture's id, or pattern.", metavar="[PAPER|ID]", show_default=False
        ),
    ] = None,
    fixtures: Annotated[
        Path | None,
        typer.Option(help="Folder with a manifest.json, or a folder of such folders.", show_default="registered ones"),
    ] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Disturb everything by 1 % and expect failures.")
    ] = False,
    format: Annotated[str, typer.Option("--format", help="text or json")] = "text",
    verbose: Annotated[bool, typer.Option("--verbose", help="Every deviation and traceback of a failure.")] = False,
) -> None:
    """Replay recorded fixtures of the originals through our code; exit 1 on any failure or missing counterpart."""
    from repro import parity, parity_report  # why: torch takes seconds to import
    from repro import self_test as disturbing

    formats.check_format(format, ("text", "json"))
    root = repository_root()
    subprojects = read_registry(root)
    entries = parity.select_entries(subprojects, root, name, fixtures)
    adapters = parity.load_adapters(subprojects, entries)
    check = disturbing.self_test if self_test else parity.replay
    shown = track(entries, description="fixtures", console=Console(stderr=True), transient=True)
    outcomes = [check(entry, adapters) for entry in shown]
    if format == "json":
        print(parity_report.as_json(outcomes, self_test))
    else:
        parity_report.print_outcomes(outcomes, Console(), verbose)
        print(parity_report.summary_line(outcomes, self_test))
    if any(parity_report.is_bad(outcome) for outcome in outcomes):
        raise typer.Exit(1)


@app.command("check", epilog=_examples("repro check"))
def check_registry() -> None:
    """Check that every cell is well described and every published value and released log that it names exists."""
    root = repository_root()
    subprojects = read_registry(root)
    check_published(subprojects, PublishedTables(root))
    released = logs.check_logs(subprojects, root)
    cells = sum(len(one.cells) for one in subprojects)
    print(f"{cells} cells of {len(subprojects)} papers and {released} released logs are in order")


@data_app.command("list", epilog=_examples("repro data list", "repro data list --root /scratch/data"))
def data_list(
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.", show_default="data")] = None,
) -> None:
    """Which data sets are there, where, and how to get the others."""
    from common.data.prepare import list_datasets  # why: torch takes seconds to import

    listing = Table()
    for heading in ("name", "present", "where", "size", "how to get it"):
        listing.add_column(heading, overflow="fold")
    for status in list_datasets(root or repository_root() / "data"):
        size = f"{status.size / 1e6:.1f} MB" if status.size else ""
        listing.add_row(status.name, "yes" if status.present else "no", str(status.where), size, status.how)
    formats.print_table(listing)


@data_app.command(
    "prepare", epilog=_examples("repro data prepare CIFAR100", "repro data prepare CIFAR100 --from cifar100.zip")
)
def data_prepare(
    name: Annotated[str, typer.Argument(help="Name of the data set; see `repro data list`.")],
    source: Annotated[Path | None, typer.Option("--from", help="Archive that was downloaded by hand.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.", show_default="data")] = None,
) -> None:
    """Check, unpack or download one data set."""
    from common.data.prepare import prepare

    print(prepare(name, root or repository_root() / "data", source))


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        argv: arguments without the program's name; None takes those of the process. What follows "--" is handed to the
            scripts of `repro run`.

    Raises:
        SystemExit: with the exit code, also 0.
        UserError: for bad input.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    extra: list[str] = []
    if "--" in words:
        words, extra = words[: words.index("--")], words[words.index("--") + 1 :]
        if words[:1] != ["run"]:
            raise UserError("flags after -- go to the scripts of `repro run`; no other command takes them")
    typer.main.get_command(app).main(args=words, prog_name="repro", obj={"extra": tuple(extra)})


app_main = command_line(main)
"""The console script `repro`."""


def _existing(folders: Sequence[Path] | None) -> list[Path]:
    for folder in folders or ():
        if not folder.is_dir():
            raise UserError(f"--records {folder}: no such folder")
    return list(folders or ())


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text!r}: expected whole numbers separated by commas, e.g. 0,1,2") from None
    return list(dict.fromkeys(seeds))


def _warn(runs: Sequence[tables.PaperRuns]) -> None:
    records.print_warnings(dict.fromkeys(warning for one in runs for warning in one.warnings))


def _write(text: str) -> None:
    sys.stdout.write(text)
