"""The report: one file, everything reachable and named, and, where Chromium is installed, looked at as a picture."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from repro.pictures import find_pictures, kept_folder
from repro.registry import read_registry
from repro.report import rich, write_report
from repro.report.charts import Line, draw_lines, thin
from repro.speed import keep_speed
from repro.summary_blocks import count_statuses
from repro.tables import collect
from tests.repro.speeds import MEASURED

pytestmark = pytest.mark.unit

CLAIMS = """
paper = "toy"

[[claim]]
id = "better"
statement = "full is better than contradicted <b>"
source = "Table 1"
metric = "acc"
pairs = [["toy/full", "toy/contradicted"]]
"""
REGISTER = """
paper = "toy"

[[discrepancy]]
id = "D1"
released = "a `mean`"
ours = "a sum"
"""
VOID = {"meta", "br", "img", "input", "link", "use", "path"}


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.headings: list[int] = []
        self.tables: list[dict[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.tags.append((tag, values))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "table":
            self.tables.append({"named": "aria-labelledby" in values})
        if tag == "caption":
            self.tables[-1]["named"] = True

    def all(self, tag: str) -> list[dict[str, str]]:
        return [values for name, values in self.tags if name == tag]


def png(size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((size, size)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def filled(repository):
    """Full, shortened and stopped runs with series, matrices and a picture; a claim and a deviation."""
    repository.write("repro/claims/toy.toml", CLAIMS)
    repository.write("repro/discrepancies/toy.toml", REGISTER)
    for seed, acc in enumerate((80.3, 80.6, 80.9)):
        for cell, lead in (("full", 0.0), ("contradicted", -5.0 + seed)):
            run_id = f"{cell}-s{seed}"
            fields = {"cell": f"toy/{cell}", "seed": seed, "series": f"{run_id}.series.jsonl"}
            repository.record(run_id, metrics=repository.result(acc + lead), **fields)
            points = [
                {"step": step, "task": 1, "epoch": 0, "name": name, "value": 2.0 / (1 + step)}
                for step in range(0, 50, 10)
                for name in ("train/loss", "test/acc")
            ]
            repository.write(f"results/toy/{run_id}.series.jsonl", "".join(json.dumps(one) + "\n" for one in points))
    repository.record("short", labels=["shortened"], changed={"epochs": [80, 3]}, metrics=repository.result(10.25))
    folder = repository.root / "results/toy/full-s0.pictures/images"
    folder.mkdir(parents=True)
    (folder / "epoch_0001.png").write_bytes(png())
    return repository


@pytest.fixture
def page(filled) -> str:
    path = filled.root / "site/index.html"
    warnings = write_report(path, filled.root, read_registry(filled.root), parity={"toy": (3, 4)})
    assert warnings == []
    return path.read_text(encoding="utf-8")


def test_it_holds_what_a_reviewer_asks_for(page):
    for part in ("80.60 ± 0.30 (n=3)", "within", "38.38 (Table 1) / 38.69 (log)", "3 of 4 agree", "1 registered"):
        assert part in page
    for part in ("undecided", "epoch_0001", "<code>mean</code>", "full is better than contradicted &lt;b&gt;"):
        assert part in page.replace("epoch 0001", "epoch_0001")
    assert "commit abc" in page and "cd work &amp;&amp; sh scripts/toy.sh full" in page


def test_shortened_runs_share_neither_table_nor_chart_with_full_ones(page):
    (done,) = re.findall(r'<table id="toy-done".*?</table>', page, re.S)
    (other,) = re.findall(r'<table id="toy-other".*?</table>', page, re.S)
    assert "10.25" in other and "10.25" not in done and "80.60" not in other


def test_kept_speeds_are_shown_and_a_damaged_file_is_named(filled):
    path, subprojects = filled.root / "site/index.html", read_registry(filled.root)
    keep_speed(filled.root / "results/benchmarks/toy.json", "toy", MEASURED)
    assert write_report(path, filled.root, subprojects) == []
    page = path.read_text(encoding="utf-8")
    (speed,) = re.findall(r'<table id="toy-speed-1".*?</table>', page, re.S)
    assert "python -m benchmarks.toy: toy network" in speed and "24.3" in speed and "commit 01234567" in page
    test_every_link_inside_leads_somewhere_and_every_id_is_unique(page)
    test_it_can_be_read_aloud_and_by_keyboard(page)
    test_tags_are_closed(page)
    filled.write("results/benchmarks/toy.json", "{")
    (warning,) = write_report(path, filled.root, subprojects)
    assert "results/benchmarks/toy.json: not a readable JSON file" in warning


def test_it_needs_no_network(page):
    parsed = Page(page)
    for tag, values in parsed.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            value = values.get(name, "")
            assert not value or value.startswith(("#", "data:")), (tag, value)
    (policy,) = [one["content"] for one in parsed.all("meta") if "http-equiv" in one]
    assert "default-src 'none'" in policy
    assert "@import" not in page and "url(http" not in page


def test_every_link_inside_leads_somewhere_and_every_id_is_unique(page):
    parsed = Page(page)
    ids = [values["id"] for _, values in parsed.tags if "id" in values]
    assert len(ids) == len(set(ids))
    targets = {values["href"][1:] for values in parsed.all("a")}
    assert targets and not targets - set(ids)
    for attribute in ("aria-labelledby", "for"):
        assert {values[attribute] for _, values in parsed.tags if attribute in values} <= set(ids)


def test_every_number_is_one_click_from_its_run(page):
    parsed = Page(page)
    assert {"run-full-s0", "run-full-s1", "run-full-s2", "cell-toy-full"} <= {
        one["href"][1:] for one in parsed.all("a")
    }


def test_it_can_be_read_aloud_and_by_keyboard(page):
    parsed = Page(page)
    assert parsed.all("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(parsed.all(landmark)) == 1
    assert parsed.all("a")[0]["href"] == "#" + parsed.all("main")[0]["id"]
    assert parsed.headings[0] == 1 and parsed.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert parsed.tables and all(table["named"] for table in parsed.tables)
    assert all(values.get("scope") in ("col", "row") for values in parsed.all("th"))
    assert all(values.get("alt") for values in parsed.all("img")) and parsed.all("img")
    for _, values in parsed.tags:
        if values.get("role") in ("img", "region"):
            assert values.get("aria-label") or values.get("aria-labelledby")
        if "scroll" in values.get("class", "").split():
            assert values.get("tabindex") == "0"


def test_tags_are_closed(page):
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in VOID:
                open_tags.append(tag)

        def handle_startendtag(self, tag, attributes):
            pass

        def handle_endtag(self, tag):
            if tag not in VOID:
                assert open_tags.pop() == tag, self.getpos()

    Checker().feed(page)
    assert open_tags == []


def test_a_paper_without_anything_is_shown_too(repository):
    path = repository.root / "report.html"
    assert write_report(path, repository.root, read_registry(repository.root)) == []
    text = path.read_text(encoding="utf-8")
    assert "No row of a published table has been run in full yet" in text and "none declared" in text


def test_what_cannot_be_read_is_named_and_left_out(filled):
    (filled.root / "results/toy/full-s1.series.jsonl").write_text('{"step": 1}\n')
    (filled.root / "results/toy/full-s0.pictures/images/epoch_0002.png").write_bytes(b"no picture")
    filled.write("results/toy/broken.json", "{")
    path = filled.root / "report.html"
    warnings = write_report(path, filled.root, read_registry(filled.root))
    for part in ("full-s1.series.jsonl", "epoch_0002.png", "broken.json"):
        assert any(part in warning for warning in warnings), part
    assert "Left out" in path.read_text(encoding="utf-8")


def test_counts_follow_the_status(filled):
    runs = collect(read_registry(filled.root)[0], filled.root)
    assert count_statuses(runs) == {"within": 1, "outside": 1, "too few runs": 0, "not run": 0}


def test_pictures_of_runs_are_found_beside_the_record_or_in_the_run(filled):
    run = filled.root / "outputs/run"
    for number in range(5):
        path = run / f"images/epoch_{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    (run / "record.json").write_text(json.dumps(filled.record("loose", folder="unused")))
    from repro.records import load_record

    record = load_record(run)
    assert [path.name for path in find_pictures(record, 2)] == ["epoch_0003.png", "epoch_0004.png"]
    assert kept_folder(record).name == "loose.pictures"
    for number in (9, 10):
        (run / f"images/step_{number}.png").write_bytes(png())
    assert [path.name for path in find_pictures(record, 1)] == ["step_10.png"]


def test_many_pictures_are_folded(filled):
    runs = [path.stem for path in (filled.root / "results/toy").glob("*.json")]
    for run in runs:
        folder = filled.root / f"results/toy/{run}.pictures/images"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(3):
            (folder / f"epoch_{number:04d}.png").write_bytes(png())
    path = filled.root / "report.html"
    write_report(path, filled.root, read_registry(filled.root))
    rest = 3 * len(runs) - 12
    shown, folded = path.read_text(encoding="utf-8").split(f"{rest} more pictures</summary>")
    assert rest > 0 and shown.count("<img ") == 12 and folded.count("<img ") == rest


def test_notes_and_cells_show_code_as_code():
    assert rich("see `--compat paper` <b>") == "see <code>--compat paper</code> &lt;b&gt;"


# --- charts ----------------------------------------------------------------------------------------------------------


def test_charts_take_their_colours_from_the_page_and_their_ids_are_their_own():
    lines = [Line("seed 0", (0.0, 1.0), (1.0, 2.0)), Line("authors", (0.0, 1.0), (1.0, 3.0), True)]
    first, second = (draw_lines(lines, "x", "y", name) for name in ("one", "two"))
    assert "var(--series-1)" in first and "var(--muted)" in first and "#01020" not in first
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
    assert set(re.findall(r'href="#([^"]+)"', first)) <= ids[0]
    assert first == draw_lines(lines, "x", "y", "one")


def test_long_curves_are_thinned_with_both_ends_kept():
    line = Line("", tuple(map(float, range(1000))), tuple(map(float, range(1000))))
    short = thin(line, 50)
    assert len(short.x) == 50 and short.x[0] == 0 and short.x[-1] == 999 and short.x == short.y


# --- as a picture ----------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def browse(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    return subprocess.run([CHROMIUM, *FLAGS, profile, *words], capture_output=True, text=True, timeout=120)


def brightness(path: Path) -> float:
    return ImageStat.Stat(Image.open(path).convert("L")).mean[0]


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (400, 800)])
def test_screenshots_show_something_in_light_and_dark(page, filled, tmp_path, width, height):
    address = f"file://{filled.root / 'site/index.html'}"
    shots = {}
    for scheme in (1, 0):  # Chromium counts: 0 dark, 1 light
        shots[scheme] = tmp_path / f"{width}-{scheme}.png"
        words = [f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={scheme}"]
        browse(tmp_path, *words, f"--screenshot={shots[scheme]}", address)
        colours = Image.open(shots[scheme]).convert("RGB").getcolors(1 << 24)
        assert len(colours) > 50
    assert brightness(shots[1]) > 180 and brightness(shots[0]) < 90


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_not_wider_than_the_screen(page, filled, tmp_path, width):
    """Opened everywhere, and measured by the browser itself."""
    probe = (
        "<script>document.querySelectorAll('details').forEach(function (d) { d.open = true; });"
        "document.title = document.documentElement.scrollWidth + ' of ' + window.innerWidth;</script></body>"
    )
    path = filled.write("probe.html", page.replace("</body>", probe))
    found = browse(tmp_path, f"--window-size={width},900", "--dump-dom", f"file://{path}").stdout
    match = re.search(r"<title>(\d+) of (\d+)</title>", found)
    assert match is not None
    assert int(match[1]) <= int(match[2])
