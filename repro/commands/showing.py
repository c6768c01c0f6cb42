"""What there is: cells, tables, README blocks, kept records, comparisons, the authors' logs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.training.errors import UserError
from repro import compare as comparing
from repro import formats, logs, planted, readme, records, table_sheets, tables, unanswered
from repro.commands import Format, Paper, Records, app, examples, existing_folders, warn, write
from repro.keep import keep_record, machine_paths
from repro.pictures import MOST_PER_RUN
from repro.registry import read_registry, repository_root, select_papers


@app.command(
    "list",
    epilog=examples(
        "repro list", "repro list vdfd --missing", "repro list vdfd --format json", "repro list --coverage"
    ),
)
def list_cells(
    paper: Paper = None,
    format: Format = "text",
    missing: Annotated[bool, typer.Option("--missing", help="Only cells without a full run.")] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Instead: per published table, how many of its rows a cell answers.")
    ] = False,
    folders: Records = None,
) -> None:
    """Every cell of every paper table: command, published values, number of our runs."""
    formats.check_format(format)
    root = repository_root()
    if coverage:
        if missing or folders:
            raise UserError("--coverage counts published tables, whatever was run; leave --missing and --records away")
        sheets = unanswered.coverage_sheets(select_papers(read_registry(root), paper), root)
        write(formats.render(sheets, format, Path.cwd()))
        return
    runs = [tables.collect(one, root, existing_folders(folders)) for one in select_papers(read_registry(root), paper)]
    warn(runs)
    write(formats.render([table_sheets.list_sheet(one, missing) for one in runs], format, Path.cwd()))


@app.command(
    epilog=examples(
        "repro table vdfd",
        "repro table vdfd --format md > table.md",
        "repro table --records outputs",
        "repro table --self-test",
    )
)
def table(
    paper: Paper = None,
    format: Format = "text",
    folders: Records = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Plant wrong numbers in a copy; exit 1 if one is not caught.")
    ] = False,
) -> None:
    """Published against ours, from CSV files and run records; desk-scale and shortened runs apart from full ones."""
    formats.check_format(format)
    root = repository_root()
    if self_test:
        if paper is not None or folders:
            raise UserError("--self-test tries the tables of the whole repository; leave paper and --records away")
        found = planted.plant_everything(root)
        for one in found:
            print(f"{'caught' if one.caught else 'NOT CAUGHT'}: {one.what}")
        if not all(one.caught for one in found):
            raise typer.Exit(1)
        return
    runs = [tables.collect(one, root, existing_folders(folders)) for one in select_papers(read_registry(root), paper)]
    warn(runs)
    sheets = [sheet for one in runs for sheet in table_sheets.table_sheets(one, root)]
    write(formats.render(sheets, format, Path.cwd()))


@app.command("readme", epilog=examples("repro readme", "repro readme --check"))
def update_readme(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a table is out of date.")] = False,
) -> None:
    """Regenerate what stands between `<!-- repro:KIND ... -->` and `<!-- /repro:KIND -->` in READMEs and statements."""
    root = repository_root()
    stale, warnings = readme.update_readmes(root, check)
    records.print_warnings(warnings)
    for path in stale:
        print(f"{'out of date' if check else 'updated'}: {path.relative_to(root)}")
    if check and stale:
        print("run `repro readme` and commit the result")
        raise typer.Exit(1)


@app.command(epilog=examples("repro keep outputs/vdfd/ti-cifar100-10/seed0/record.json"))
def keep(
    record: Annotated[Path, typer.Argument(help="record.json of a finished run, or its folder.")],
    pictures: Annotated[int, typer.Option(min=0, help="Newest pictures to take along, at most.")] = MOST_PER_RUN,
) -> None:
    """Copy a finished run's record, series and newest pictures into results/<paper>/, where the tables find them."""
    root = repository_root()
    loaded = records.load_record(record)
    records.print_warnings(
        f"{place} holds the path of a machine; run with relative paths to keep it out"
        for place in machine_paths(loaded.content)
    )
    for path in keep_record(record, root, pictures):
        print(f"kept: {path.relative_to(root)}")


@app.command(
    "compare",
    epilog=examples(
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
    epilog=examples(
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
    comparisons, sheets, warnings = logs.compare_paper(subproject, root, runs or (), existing_folders(folders), any_run)
    records.print_warnings(warnings)
    write(formats.render(sheets, format, Path.cwd()))
    for path in [path for run in comparisons for path in logs.write_plots(run, plots)] if plots else ():
        print(f"written: {path}", file=sys.stderr)  # why: standard output may be a table for a program
    if not all(run.agrees for run in comparisons):
        raise typer.Exit(1)
