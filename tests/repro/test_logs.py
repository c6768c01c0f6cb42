"""Our epochs beside the authors' log: what must agree is judged, what depends on random numbers is shown."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re

import pytest

from common.training.errors import UserError
from repro import logs
from repro.records import load_record
from repro.registry import read_registry
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.unit

LOG = """
[[log]]
cell = "toy/full"
epochs = "epochs.csv"
iterations = "n_iters"
exact = ["lr_head", "n_iters", "epoch"]
matrix = "matrix.csv"
average = "average.csv"
[log.series]
lr_head = "lr/head"
train_loss = "train/epoch_loss"
train_reg = "train/epoch_reg"
val_acc = "val/accuracy"
"""
TASKS, EPOCHS, STEPS = 2, 12, 3
COLUMNS = {"lr_head": "lr/head", "train_loss": "train/epoch_loss", "val_acc": "val/accuracy"}
RUN = "outputs/full/seed0"


def authors_row(task: int, epoch: int) -> dict[str, float]:
    """Rates halve at epoch 6; the loss of task 2 turns negative."""
    rate = 0.001 if epoch < 6 else 0.0005
    return {"lr_head": rate, "train_loss": (2 - task) + 0.5 - epoch / 20, "train_reg": 0.1, "val_acc": 40.0 + epoch}


def planted_points(tasks: int = TASKS, epochs: int = EPOCHS, change=None, drop=()) -> list[dict]:
    """A series that equals the authors' log; `change(task, epoch, column, value)` disturbs it.

    `drop` lists (task, epoch) without any point. Steps count on over dropped epochs.
    """
    points, step = [], 0
    for task in range(1, tasks + 1):
        for epoch in range(epochs):
            step += STEPS
            row = {column: authors_row(task, epoch)[column] for column in COLUMNS}
            row = {column: change(task, epoch, column, value) if change else value for column, value in row.items()}
            where = {"step": step, "task": task, "epoch": epoch}
            if (task, epoch) not in drop:
                points += [{**where, "name": COLUMNS[column], "value": value} for column, value in row.items()]
        where = {"step": step, "task": task, "epoch": epochs}
        points += [{**where, "name": f"test/task_{j}", "value": 50.0 + j} for j in range(1, task + 1)]
        points.append({**where, "name": "test/avg", "value": 60.0})
    return points


@pytest.fixture
def released(repository):
    """The test's repository with a released log of toy/full, and `plant`, which writes a run of ours."""
    repository.experiments.write_text(repository.experiments.read_text() + LOG)
    header = "task,epoch,lr_head,n_iters,train_loss,train_reg,val_acc\n"
    rows = [(task, epoch, authors_row(task, epoch)) for task in range(1, TASKS + 1) for epoch in range(EPOCHS)]
    lines = [f"{t},{e},{r['lr_head']},3,{r['train_loss']},{r['train_reg']},{r['val_acc']}\n" for t, e, r in rows]
    repository.write("repro/paper/toy/epochs.csv", header + "".join(lines))
    repository.write("repro/paper/toy/matrix.csv", "after_task,eval_task,acc\n1,1,51\n2,1,41\n2,2,50\n")
    repository.write("repro/paper/toy/average.csv", "after_task,avg_acc_seen_classes\n1,51\n2,45.5\n")

    def plant(points=None, folder=RUN, **fields):
        fields = {"series": "series.jsonl", **fields}
        content = repository.record("full-s0-1", folder="unused", **fields)
        repository.write(f"{folder}/record.json", json.dumps(content))
        points = planted_points() if points is None else points
        repository.write(f"{folder}/series.jsonl", "".join(json.dumps(point) + "\n" for point in points))
        return repository.root / folder

    repository.plant = plant
    return repository


def sections(call, *words, code=0) -> dict[str, list[dict]]:
    """Rows of the JSON output by kind: exact, values, test, authors."""
    found, out, err = call("logs", "toy", "--format", "json", *words)
    assert found == code, out + err
    return {section["section"].removeprefix("toy-logs-"): section["rows"] for section in json.loads(out)}


def values_of(rows, task, series):
    (found,) = [row for row in rows["values"] if (row["task"], row["series"]) == (task, series)]
    return found


# --- what must agree --------------------------------------------------------------------------------------------------


def test_an_equal_series_agrees(released, call):
    rows = sections(call, "--run", released.plant())
    assert [row["exact"] for row in rows["exact"]] == ["yes", "yes"]
    assert [(row["epochs"], row["epochs_authors"], row["missing"]) for row in rows["exact"]] == [(12, 12, [])] * 2
    assert rows["exact"][1]["checked"] == {"lr_head": 12, "n_iters": 12}
    assert all(row.get("max_abs", 0) == 0 for row in rows["values"])


def test_one_learning_rate_off_is_named_and_exits_with_1(released, call):
    wrong = {(2, 6): 0.001, (2, 9): 0.00051}
    points = planted_points(change=lambda t, e, c, v: wrong.get((t, e), v) if c == "lr_head" else v)
    rows = sections(call, "--run", released.plant(points), code=1)
    assert [row["exact"] for row in rows["exact"]] == ["yes", "NO"]
    first, second = rows["exact"][1]["disagreements"]
    assert first == "epoch 6: lr_head 0.001, authors 0.0005"
    assert second == "epoch 9: lr_head 0.00051, authors 0.0005"
    code, out, _ = call("logs", "toy", "--run", released.root / RUN, "--format", "md")
    assert code == 1 and "epoch 6: lr_head 0.001, authors 0.0005 (and 1 more)" in out
    assert "not the experiment of the released log" in out


def test_a_readme_shows_kept_runs_beside_the_log(released, call):
    path = released.write("README.md", "<!-- repro:logs toy -->\n<!-- /repro:logs -->\n")
    assert call("readme")[0] == 0 and "the authors' log in short" in path.read_text()
    released.plant(folder="results/toy/kept")
    assert call("readme", "--check")[0] == 1
    assert call("readme")[0] == 0 and "what must agree; 24 of 24 epochs" in path.read_text()


def test_decimal_rounding_is_no_disagreement(released, call):
    points = planted_points(change=lambda t, e, c, v: v * (1 + 1e-13) if c == "lr_head" else v)
    sections(call, "--run", released.plant(points))


def test_an_epoch_with_one_more_step_is_found_once(released, call):
    points = planted_points()
    for point in points:
        point["step"] += (point["task"], point["epoch"]) >= (2, 0)
    rows = sections(call, "--run", released.plant(points), code=1)
    assert [row["disagreements"] for row in rows["exact"]] == [[], ["epoch 0: n_iters 4, authors 3"]]


@pytest.mark.parametrize(("epochs", "status"), [(11, "finished"), (13, "finished"), (11, "stopped"), (13, "stopped")])
def test_a_completed_task_of_another_length_disagrees(released, call, epochs, status):
    folder = released.plant(planted_points(epochs=epochs), status=status)
    rows = sections(call, "--run", folder, code=1)
    assert [row["disagreements"] for row in rows["exact"]] == [[f"epochs of the task: {epochs}, authors 12"]] * 2
    assert [row["epochs"] for row in rows["exact"]] == [min(epochs, 12)] * 2


@pytest.mark.parametrize(
    ("epochs", "status", "expected"),
    [
        (11, "finished", ["NO", "NO"]),  # the record says that the last task is over
        (11, "stopped", ["NO", "yes"]),  # task 1 is over because task 2 began
        (13, "stopped", ["NO", "NO"]),  # already too long
    ],
)
def test_lengths_are_judged_without_test_accuracies(released, call, epochs, status, expected):
    points = [point for point in planted_points(epochs=epochs) if not point["name"].startswith("test")]
    rows = sections(call, "--run", released.plant(points, status=status), code=1)
    assert [row["exact"] for row in rows["exact"]] == expected


def test_a_task_beyond_the_authors_last_one_disagrees(released, call):
    rows = sections(call, "--run", released.plant(planted_points(tasks=3)), code=1)
    assert [row["exact"] for row in rows["exact"]] == ["yes", "yes", "NO"]
    assert rows["exact"][2]["disagreements"] == ["epochs of the task: 12, authors 0"]


def test_missing_epochs_are_named_and_nothing_is_made_up_for_them(released, call):
    rows = sections(call, "--run", released.plant(planted_points(drop=[(1, 3), (1, 7)])))
    first = rows["exact"][0]
    assert (first["epochs"], first["missing"], first["exact"]) == (10, [3, 7], "yes")
    assert first["checked"] == {"lr_head": 10, "n_iters": 8}, "the steps of epochs 4 and 8 cannot be told"
    assert values_of(rows, 1, "val/accuracy")["epochs"] == 10


def test_a_task_that_is_missing_altogether_disagrees(released, call):
    points = [point for point in planted_points() if point["task"] == 2]
    rows = sections(call, "--run", released.plant(points), code=1)
    assert rows["exact"][0]["disagreements"] == ["epochs of the task: 0, authors 12"]
    assert rows["exact"][1]["checked"]["n_iters"] == 11


def test_a_stopped_run_is_compared_as_far_as_it_went(released, call):
    points = [p for p in planted_points() if p["task"] == 1 or (p["epoch"] < 5 and not p["name"].startswith("test"))]
    # the rate is written when an epoch begins: this one did not end, and is not compared
    points.append({"step": 51, "task": 2, "epoch": 5, "name": "lr/head", "value": 7.0})
    folder = released.plant(points, status="stopped", metrics={})
    rows = sections(call, "--run", folder)
    assert [(row["epochs"], row["exact"], row["is_over"]) for row in rows["exact"]] == [
        (12, "yes", True),
        (5, "yes", False),
    ]
    assert values_of(rows, 2, "val/accuracy")["epoch"] == 4
    out = call("logs", "toy", "--run", folder)[1]
    assert "17 of 24 epochs" in out and "5 of 12" in out and "stopped" in out and "task not over" in out


def test_what_was_not_logged_does_not_count_as_agreement(released, call):
    points = [point for point in planted_points() if point["name"] != "lr/head"]
    rows = sections(call, "--run", released.plant(points))
    assert [row["exact"] for row in rows["exact"]] == ["not logged: lr_head"] * 2
    assert rows["exact"][0]["checked"]["lr_head"] == 0


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_differences_of_losses_and_accuracies(released, call):
    apart = {0: -4.0, 1: 1.0, 11: 2.0}  # of the validation accuracy of task 1; else none
    points = planted_points(change=lambda t, e, c, v: v + apart.get(e, 0) if (c, t) == ("val_acc", 1) else v)
    rows = sections(call, "--run", released.plant(points))
    found = values_of(rows, 1, "val/accuracy")
    assert (found["epoch"], found["ours"], found["authors"], found["difference"]) == (11, 53.0, 51.0, 2.0)
    assert found["mean_abs"] == pytest.approx(7 / 12)
    assert (found["max_abs"], found["max_abs_epoch"]) == (4.0, 0)
    assert (found["last_epochs"], found["last_difference"]) == (10, pytest.approx(0.2))
    assert "last_difference" not in values_of(rows, 1, "train/epoch_loss")
    assert values_of(rows, 2, "val/accuracy")["max_abs"] == 0


def test_fewer_than_ten_epochs_are_said_so(released, call):
    points = planted_points(tasks=1, epochs=4, change=lambda t, e, c, v: v + e if c == "val_acc" else v)
    folder = released.plant([p for p in points if not p["name"].startswith("test")], status="stopped", metrics={})
    assert "+1.50 (4 epochs)" in call("logs", "toy", "--run", folder)[1]


def test_a_series_that_we_do_not_log_is_not_compared(released, call):
    folder = released.plant()
    assert values_of(sections(call, "--run", folder), 1, "train/epoch_reg")["epochs"] == 0
    out = call("logs", "toy", "--run", folder, "--format", "csv")[1]
    (row, _) = [row for row in csv.DictReader(io.StringIO(out)) if row["series"] == "train/epoch_reg"]
    assert (row["ours"], row["difference"]) == ("not logged", "")


def test_test_accuracies_after_each_task(released, call):
    first, second = sections(call, "--run", released.plant())["test"]
    assert (first["ours"], first["authors"], first["difference"], first["max_abs"]) == (60.0, 51.0, 9.0, 0.0)
    assert (second["difference"], second["mean_abs"], second["max_abs"], second["max_abs_task"]) == (14.5, 6.0, 10.0, 1)


def test_a_kept_and_packed_series_gives_the_same(released, call):
    folder = released.plant()
    plain = sections(call, "--run", folder)
    content = json.loads((folder / "record.json").read_text()) | {"series": "full-s0-1.series.jsonl.gz"}
    kept = released.write("results/toy/full-s0-1.json", json.dumps(content))
    (kept.parent / content["series"]).write_bytes(gzip.compress((folder / "series.jsonl").read_bytes()))
    assert sections(call, "--run", kept) == plain
    assert sections(call) == plain, "kept runs are found by themselves"


def test_runs_are_found_below_folders_of_records(released, call):
    released.plant()
    assert [row["run"] for row in sections(call, "--records", "outputs")["exact"]] == ["full-s0-1"] * 2


def test_bars_in_headings_open_no_further_columns_in_markdown(released, call):
    lines = call("logs", "toy", "--run", released.plant(), "--format", "md")[1].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    starts = [index for index, row in enumerate(rows) if set(row) <= set("|- ")]
    assert any("difference" in rows[start - 1] for start in starts)
    for start in starts:
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in rows[start - 1 : start + 2]}) == 1


@pytest.mark.parametrize("format", ["text", "md", "csv", "html", "json"])
def test_labels_and_verdict_stand_in_every_format(released, call, format):
    folder = released.plant(labels=["shortened", "fast"], numerics={"fast": True}, changed={"max_tasks": [None, 2]})
    code, out, _ = call("logs", "toy", "--run", folder, "--format", format)
    assert code == 0
    assert "shortened" in out and "fast" in out and "yes" in out and "val/accuracy" in out
    if format != "csv":
        assert "max_tasks" in out


def test_without_a_run_the_authors_log_is_shown_in_short(released, call):
    rows = sections(call)["authors"]
    assert [(row["ours"], row["task"], row["length"]) for row in rows] == [
        ("not run", "1", "12"),
        ("not run", "2", "12"),
    ]
    assert (rows[0]["lr_head"], rows[0]["n_iters"], rows[0]["val_acc"]) == ("0.001 → 0.0005", "3", "51")
    assert (rows[0]["end"], rows[1]["average"]) == ("46.50", "45.50")
    assert "not run" in call("logs", "toy")[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": ["smoke"], "config": {"smoke": True}},
        {"labels": ["sub-sampled"], "data": {"copy": "sub-sampled"}},
        {"labels": ["desk-scale", "shortened"]},
    ],
)
def test_runs_on_other_data_are_compared_on_request_only(released, call, fields):
    folder = released.plant(**fields)
    label = fields["labels"][0]
    code, out, err = call("logs", "toy", "--run", folder)
    assert code == 2 and not out and f"a {label} run" in err and "--any" in err
    code, out, err = call("logs", "toy", "--records", "outputs")
    assert code == 0 and "warning: left out" in err and "no run to compare (1 left out)" in out
    for words in (("--run", folder), ("--records", "outputs")):
        code, out, err = call("logs", "toy", *words, "--any")
        assert code == 0 and f"labels: {', '.join(load_record(folder).labels)}" in out and not err


def test_help_shows_examples(released, call):
    code, out, _ = call("logs", "--help")
    assert code == 0 and "repro logs vdfd" in out.split("Examples:")[1]


# --- plots ------------------------------------------------------------------------------------------------------------


def comparison_of(released, folder):
    (subproject,) = read_registry(released.root)
    ((run,), _, _) = logs.compare_paper(subproject, released.root, [folder])
    return run


def test_plots_draw_ours_over_the_authors(released, call):
    folder = released.plant(planted_points(drop=[(1, 11)]), status="stopped")
    run = comparison_of(released, folder)
    accuracy, loss = logs.draw_task(run, 1).axes
    authors, ours = accuracy.lines
    assert (authors.get_label(), ours.get_label()) == ("authors' log", "ours")
    assert list(authors.get_xdata()) == list(range(12)) and list(ours.get_xdata()) == list(range(11))
    assert ours.get_ydata()[-1] == 50.0 and ours.get_zorder() >= authors.get_zorder()
    assert "%" in accuracy.get_ylabel() and "epoch" in accuracy.get_xlabel() and "no unit" in loss.get_ylabel()
    assert (accuracy.get_yscale(), loss.get_yscale()) == ("linear", "log")
    assert logs.draw_task(run, 2).axes[1].get_yscale() == "symlog", "a loss below zero is drawn, too"
    assert "labels: none" in logs.draw_task(run, 1).get_suptitle()


def test_plots_are_png_files_apart_from_standard_output(released, call):
    folder = released.plant()
    code, out, err = call("logs", "toy", "--run", folder, "--format", "json", "--plots", "plots")
    assert code == 0 and json.loads(out)
    files = sorted((released.root / "plots").iterdir())
    assert [file.name for file in files] == ["full-s0-1_task_01.png", "full-s0-1_task_02.png"]
    for file in files:
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 5000 and file.name in err


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(call, *words) -> str:
    code, out, err = call("logs", *words)
    assert code == 2 and not out
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    return err


def test_bad_arguments_are_one_line(released, call):
    folder = released.plant()
    assert "known: toy" in refused(call, "vdfd")
    assert "pdf" in refused(call, "toy", "--format", "pdf")
    assert "no such file" in refused(call, "toy", "--run", "absent")
    assert "no such folder" in refused(call, "toy", "--records", "absent")
    assert "give one of them" in refused(call, "toy", "--run", folder, "--records", "outputs")
    assert "named twice" in refused(call, "toy", "--run", folder, "--run", folder / "record.json")
    released.plant(cell="toy/contradicted")
    assert "toy/contradicted" in refused(call, "toy", "--run", folder)


def test_a_paper_without_a_released_log_says_so(repository, call):
    assert "[[log]]" in refused(call, "toy")


def test_series_that_cannot_be_believed_are_refused_or_left_out(released, call):
    folder = released.plant()
    series = folder / "series.jsonl"
    sound = series.read_text()
    twice = {"step": 3, "task": 1, "epoch": 0, "name": "val/accuracy", "value": 1.0}
    infinite = {"step": 99, "task": 9, "epoch": 0, "name": "val/accuracy", "value": float("inf")}
    for text, expected in [
        ("{\n" + sound, "JSONDecodeError"),
        (sound + json.dumps(twice) + "\n", "val/accuracy, task 1, epoch 0"),
        (sound + json.dumps(infinite) + "\n", "not finite"),
        (sound + '{"name": "val/accuracy"}\n', "step"),
        ("", "no val/accuracy or train/accuracy"),
    ]:
        series.write_text(text)
        assert expected in refused(call, "toy", "--run", folder)
        code, out, err = call("logs", "toy", "--records", "outputs")
        assert code == 0 and expected in err and "no run to compare (1 left out)" in out
    series.unlink()
    assert "no series beside it" in refused(call, "toy", "--run", folder)


def test_an_incomplete_last_line_is_ignored(released, call):
    folder = released.plant()
    with (folder / "series.jsonl").open("a") as file:
        file.write('{"step": 73, "ta')
    sections(call, "--run", folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("epochs.csv", "lr_head,", "lr,", "no column 'lr_head'"),
        ("epochs.csv", "1,3,0.001", "1,3,fast", "line 5 of epochs.csv"),
        ("epochs.csv", "\n1,3,", "\n1,2,", "second row for task 1, epoch 2"),
        ("epochs.csv", "\n1,3,", "\n,3,", "line 5 of epochs.csv"),
        ("epochs.csv", ",0.1,", ",,", "column 'train_reg' of epochs.csv is empty"),
        ("matrix.csv", "eval_task", "task", "no column 'eval_task'"),
        ("average.csv", "51", "a half", "line 2 of average.csv"),
    ],
)
def test_mistakes_in_the_authors_files_are_named(released, call, file, old, new, expected):
    path = released.root / "repro/paper/toy" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    message = refused(call, "toy")
    assert expected in message and "toy/full" in message
    code, _, err = call("check")
    assert code == 2 and expected in err


def test_a_missing_file_of_the_authors_is_named(released, call):
    (released.root / "repro/paper/toy/matrix.csv").unlink()
    assert "repro/paper/toy/matrix.csv" in refused(call, "toy")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('cell = "toy/full"', 'cell = "toy/absent"', "no such cell"),
        ('exact = ["lr_head", ', 'exact = ["lr", ', "exact names 'lr'"),
        ('epochs = "epochs.csv"\n', "", "epochs is missing"),
        ("matrix =", "matrices =", "unknown key matrices"),
        ("[log.series]", "[log.series", "TOML"),
        ('val_acc = "val/accuracy"\n', 'val_acc = "val/accuracy"\n' + LOG, "two logs name the same cell"),
    ],
)
def test_mistakes_in_the_description_are_named(released, old, new, expected):
    text = released.experiments.read_text()
    assert old in text
    released.experiments.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=expected) as error:
        read_registry(released.root)
    assert "work/experiments.toml" in str(error.value)


# --- the authors' real logs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["vdfd/ci-cifar100-10x10", "vdfd/ci-cifar100-10x10-ssl"])
@pytest.mark.parametrize("logged_at", ["start", "end"])
def test_rates_logged_at_the_end_of_epochs_would_be_found(repository, cell, logged_at):
    """The authors print the rates when an epoch begins; those after its last step differ in the milestone epoch."""
    subproject = next(one for one in read_registry(REPOSITORY) if one.paper == "vdfd")
    (log,) = [log for log in subproject.logs if log.cell == cell]
    authors = logs.read_authors(log, "vdfd", REPOSITORY)
    assert len(authors.epochs) == 1000 and len(authors.tests) == 55 and len(authors.averages) == 10
    points = []
    for n, ((task, epoch), row) in enumerate(sorted(authors.epochs.items()), start=1):
        where = {"step": 313 * n, "task": task, "epoch": epoch}
        rates = row if logged_at == "start" else authors.epochs.get((task, epoch + 1), row)
        points.append({**where, "name": "val/accuracy", "value": row["val_acc"]})
        points += [{**where, "name": log.series[c], "value": rates[c]} for c in ("lr_head", "lr_backbone")]
    repository.record("a", folder="run", paper="vdfd", cell=cell, series="series.jsonl")
    repository.write("run/series.jsonl", "".join(json.dumps(point) + "\n" for point in points))
    run = logs.compare_run(load_record(repository.root / "run/a.json"), log, authors)
    assert [task.verdict for task in run.tasks] == ["yes" if logged_at == "start" else "NO"] * 10
    assert logged_at == "start" or run.tasks[0].disagreements[0].startswith("epoch 50: lr_head")
