"""What can be checked: recorded numbers, the registry, the register of discrepancies, claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from common.training.errors import UserError
from repro import artefacts, claim, discrepancy, evidence, formats, logs, records
from repro.claim_sheets import claims_sheet
from repro.commands import Format, Paper, Records, app, examples, existing_folders, write
from repro.published import PublishedTables, check_published
from repro.registry import Subproject, read_registry, repository_root, select_papers


@app.command(
    "parity",
    epilog=examples(
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
    format: Format = "text",
    verbose: Annotated[bool, typer.Option("--verbose", help="Every deviation and traceback of a failure.")] = False,
) -> None:
    """Replay recorded fixtures of the originals through our code; exit 1 on any failure or missing counterpart."""
    from repro import parity, parity_report  # why: torch takes seconds to import
    from repro import self_test as disturbing

    formats.check_format(format)
    root = repository_root()
    subprojects = read_registry(root)
    entries = parity.select_entries(subprojects, root, name, fixtures)
    adapters = parity.load_adapters(subprojects, entries)
    check = disturbing.self_test if self_test else parity.replay
    shown = track(entries, description="fixtures", console=Console(stderr=True), transient=True)
    outcomes = [check(entry, adapters) for entry in shown]
    if format == "json":
        print(parity_report.as_json(outcomes, self_test))
    elif format != "text":
        write(formats.render([parity_report.outcomes_sheet(outcomes, self_test)], format, Path.cwd()))
    else:
        parity_report.print_outcomes(outcomes, Console(), verbose)
        print(parity_report.summary_line(outcomes, self_test))
    if any(parity_report.is_bad(outcome) for outcome in outcomes):
        raise typer.Exit(1)


@app.command("check", epilog=examples("repro check"))
def check_registry() -> None:
    """Check that every cell, discrepancy and claim is well described, and that everything they name exists."""
    root = repository_root()
    subprojects = read_registry(root)
    check_published(subprojects, PublishedTables(root))
    released = logs.check_logs(subprojects, root)
    registers = [(one, discrepancy.read_register(root, one.paper)) for one in subprojects]
    found = [(one, register) for one, register in registers if register is not None]
    problems = [line for one, register in found for line in discrepancy.find_problems(register, one, root)]
    claims = [(one, claim.read_claims(root, one)) for one in subprojects]
    problems += [line for one, stated in claims for line in claim.find_problems(stated, one, root)]
    problems += artefacts.find_problems(root)
    if problems:
        print("\n".join(problems))
        raise typer.Exit(1)
    cells = sum(len(one.cells) for one in subprojects)
    entries = sum(len(register.entries) for _, register in found)
    print(
        f"{cells} cells of {len(subprojects)} papers, {released} released logs, {entries} discrepancies and "
        f"{sum(len(stated) for _, stated in claims)} claims are in order"
    )


@app.command(
    "deviations",
    epilog=examples("repro deviations vdfd", "repro deviations --format json", "repro deviations lra --check"),
)
def show_deviations(
    paper: Paper = None,
    format: Format = "text",
    check: Annotated[
        bool, typer.Option("--check", help="Look up every test, fixture and switch; exit 1 if one is missing.")
    ] = False,
) -> None:
    """Where papers, released code and this repository differ: effect, what was measured, switch, tests."""
    formats.check_format(format)
    root = repository_root()
    problems, sheets = [], []
    for subproject in select_papers(read_registry(root), paper):
        register = discrepancy.read_register(root, subproject.paper)
        if register is None:
            continue
        sheets.append(discrepancy.register_sheet(register, f"{subproject.title}: deviations"))
        if check:
            problems += discrepancy.find_problems(register, subproject, root)
            problems += discrepancy.unknown_switches(register, discrepancy.program_helps(register, root))
    if not check:
        write(formats.render(sheets, format, Path.cwd()))
        return
    entries = sum(len(sheet.rows) for sheet in sheets)
    print("\n".join([*problems, f"{entries} discrepancies, {len(problems)} problems"]))
    if problems:
        raise typer.Exit(1)


@app.command(
    "claims",
    epilog=examples("repro claims", "repro claims lra --verify", "repro claims --format json"),
)
def judge_claims(
    paper: Paper = None,
    format: Format = "text",
    verify: Annotated[bool, typer.Option("--verify", help="Run the tests and fixtures of claims about code.")] = False,
    folders: Records = None,
) -> None:
    """The papers' central claims, judged from run records: supported, not supported, undecided or not run."""
    formats.check_format(format)
    root, more = repository_root(), existing_folders(folders)
    sheets, warnings = [], []
    for subproject in select_papers(read_registry(root), paper):
        verdicts, found = claim.judge_paper(subproject, root, more)
        warnings += found
        if verify:
            verdicts = [evidence.verify(verdict, subproject, root) for verdict in verdicts]
        if verdicts:
            sheets.append(claims_sheet(subproject.paper, f"{subproject.title}: claims", verdicts, root))
    records.print_warnings(warnings)
    write(formats.render(sheets, format, Path.cwd()))


@app.command(
    "report",
    epilog=examples(
        "repro report", "repro report vdfd --quick", "repro report --out site/index.html --records outputs"
    ),
)
def make_report(
    paper: Paper = None,
    out: Annotated[Path | None, typer.Option(help="The HTML file.", show_default="site/index.html")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Replay no fixture, run no test of a claim about code.")
    ] = False,
    folders: Records = None,
) -> None:
    """One HTML file: tables, claims, learning curves, accuracy matrices, pictures, deviations, provenance. Minutes."""
    from repro.report import write_report  # why: templates and charts are needed by this command alone

    root = repository_root()
    chosen = select_papers(read_registry(root), paper)
    parity_of, verdicts, more = {}, {}, existing_folders(folders)
    if not quick:
        parity_of = _replay_papers(chosen, root)
        for subproject in chosen:
            found, _ = claim.judge_paper(subproject, root, more)
            verdicts[subproject.paper] = [evidence.verify(one, subproject, root) for one in found]
    path = out or root / "site" / "index.html"
    records.print_warnings(write_report(path, root, chosen, more, parity_of, verdicts))
    print(f"written: {path}")


def _replay_papers(chosen: Sequence[Subproject], root: Path) -> dict[str, tuple[int, int]]:
    """Paper -> (fixtures that agree, fixtures replayed)."""
    from repro import parity  # why: torch takes seconds to import

    found = {}
    for subproject in chosen:
        entries = parity.read_entries(subproject, root)
        if entries:
            adapters = parity.load_adapters([subproject], entries)
            shown = track(entries, description=subproject.paper, console=Console(stderr=True), transient=True)
            outcomes = [parity.replay(entry, adapters) for entry in shown]
            found[subproject.paper] = (sum(one.status == parity.PASSED for one in outcomes), len(outcomes))
    return found


@app.command("manifest", epilog=examples("repro manifest", "repro manifest --format json"))
def write_manifest(
    paper: Paper = None,
    format: Format = "text",
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a file differs.")] = False,
) -> None:
    """Shipped artefacts: size, hash, licence, the command that rebuilds them; writes repro/artefacts.json."""
    formats.check_format(format)
    root = repository_root()
    if check:
        if paper is not None:
            raise UserError("--check compares the files of the whole repository; leave the paper away")
        problems = artefacts.find_problems(root)
        print("\n".join(problems) or "every artefact is as the manifest says")
        if problems:
            raise typer.Exit(1)
        return
    name = None if paper is None else select_papers(read_registry(root), paper)[0].paper
    artefacts.write_manifest(root)
    write(formats.render([artefacts.artefacts_sheet(root, name)], format, Path.cwd()))
