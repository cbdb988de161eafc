"""The report of a run, read back from the page and in a browser."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch
import yaml

from dali_asr import PackedWriter, predict
from dali_asr.config import Config
from dali_asr.corpus import Corpus
from dali_asr.demo import DEMO_CORPUS
from dali_asr.inference.evaluate import Evaluation
from dali_asr.inference.scores import UtteranceScores, score_labels, score_utterances
from dali_asr.inventory import ARPABET, Inventory
from dali_asr.reports import report as reporting
from dali_asr.reports.examples import MAX_FRAMES, Example, choose, make_examples
from dali_asr.reports.figures import draw_metric, thinned
from dali_asr.reports.posteriorgram import draw_posteriorgram
from dali_asr.reports.record import settings
from dali_asr.reports.report import confusion_rows, report
from dali_asr.runs import Reporter
from dali_asr.runs.checkpoint import load_checkpoint
from dali_asr.training import train
from tests.makers import make_course
from tests.reports.browser import dump
from tests.training_runs import SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with its report."""
    path = train(
        Config.load("demo", [*SMALL, "training.epochs=2", "training.seed=3"]),
        run=tmp_path_factory.mktemp("r") / "a<b>&'run",
        recipe="demo",
    ).run
    report(path, device="cpu")
    return path


@pytest.fixture(autouse=True, scope="module")
def few_pictures() -> Iterator[None]:
    """Draw one utterance of either kind, which is quicker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "_EXAMPLES", 1)
        yield


PAGE = "report-dev.html"


class Reader(HTMLParser):
    """Collects what a page refers to, its identifiers, and the rows of its tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.identifiers: list[str] = []
        self.rows: list[list[str]] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                self.references.append(value or "")
            if name == "id":
                self.identifiers.append(value or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        self._open = tag in ("td", "th", "button") or (self._open and tag != "tr")

    def handle_data(self, data: str) -> None:
        if self._open and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_the_page_holds_everything_that_it_shows(run: Path) -> None:
    page = (run / PAGE).read_text(encoding="utf-8")
    read = Reader(page)
    assert all(reference.startswith(("#", "data:")) for reference in read.references)
    assert not re.search(r"@import|url\((?!#)", page)
    assert len(set(read.identifiers)) == len(read.identifiers)
    assert {reference[1:] for reference in read.references if reference.startswith("#")} <= set(read.identifiers)
    assert "a<b>" not in page
    assert "a&lt;b&gt;&amp;&#39;run" in page
    assert len(page) < 5e6


def test_the_tables_are_those_of_an_evaluation_of_its_own(run: Path) -> None:
    """Frames, recall and confusions, counted here from predicted labels."""
    prediction = predict(run, "demo", partition="dev", device="cpu")
    true = Corpus.open(DEMO_CORPUS).partition("dev").labels()
    assert true is not None
    page = (run / PAGE).read_text(encoding="utf-8")
    assert f"<dd>{(prediction.labels == true).mean():.2%}</dd>" in page
    rows = {row[0]: row for row in Reader(page).rows if len(row) == 6 and row[3].endswith("%")}
    symbols = prediction.inventory.symbols
    assert set(rows) >= {symbols[label] for label in np.unique(true)}
    for label in np.unique(true):
        mine = true == label
        assert rows[symbols[label]][1] == f"{mine.sum():,}"
        assert rows[symbols[label]][3] == f"{(prediction.labels[mine] == label).mean():.1%}"
    cells = re.findall(r"data-n=\"(\d+)\"", page)
    pairs = set(zip(true.tolist(), prediction.labels.tolist(), strict=True))
    assert (len(cells), sum(map(int, cells))) == (len(pairs), len(true))


def test_the_configuration_shows_what_differs_from_the_recipe(run: Path) -> None:
    rows = Reader((run / PAGE).read_text(encoding="utf-8")).rows
    changed = {row[0]: tuple(row[1:]) for row in rows if len(row) == 3 and row[2]}
    own = yaml.safe_load(Path("configs/demo.yaml").read_text(encoding="utf-8"))
    assert changed["training.seed"] == ("3", json.dumps(own.get("training", {}).get("seed", 0)))
    assert changed["model.hidden"] == ("[8]", "null")
    assert "training.label_smoothing" not in changed
    of_corpus = {"data.inventory", "data.normalization", "data.dtype"}  # which neither the recipe nor the run sets
    assert not of_corpus & set(changed)
    assert of_corpus <= set(settings(Config.load(run / "config.yaml")))


@pytest.mark.parametrize("masked", [True, False])
def test_a_section_that_is_null_on_one_side_is_one_row_of_what_differs(
    masked: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masking = {"time": {"width": [1, 2]}}
    ours, theirs = (masking, None) if masked else (None, masking)
    own = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "config.yaml").write_text(yaml.safe_dump(own | {"loader": own["loader"] | {"masking": ours}}))
    recipe = Config.check({"loader": {"masking": theirs}})
    monkeypatch.setattr(Config, "load", lambda source, load=Config.load: recipe if source == "demo" else load(source))
    report(copy, device="cpu", overwrite=True)
    page = (copy / PAGE).read_text(encoding="utf-8")
    rows = [row for row in Reader(page).rows if row[0].startswith("loader.masking") and len(row) == 3]
    (key, value, other), *inner = rows
    assert key == "loader.masking"
    section, none = (value, other) if masked else (other, value)
    assert none == "null"
    assert section.startswith("{")
    assert "time.width: [1, 2]" in section
    assert [row[0] for row in inner] == [key for key in settings(Config.load(copy / "config.yaml")) if "masking" in key]
    if masked:
        assert ["loader.masking.time.width", "[1, 2]", "–"] in inner


def test_the_table_sorts_and_the_matrix_answers_to_keys(run: Path, tmp_path: Path) -> None:
    script = """
      const press = (element, key) => element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
      const table = document.querySelector("#phonemes ~ div table");
      const button = table.tHead.rows[0].cells[1].querySelector("button");
      button.click();
      const sorted = [...table.tBodies[0].rows].map((row) => Number(row.cells[1].dataset.value));
      const downwards = sorted.every((value, at) => !at || value <= sorted[at - 1]);
      const announced = table.tHead.rows[0].cells[1].getAttribute("aria-sort");
      const matrix = document.querySelector(".matrix");
      const sum = () => [...matrix.tBodies[0].rows].map((row, at) => row.cells[at + 1].dataset.n ?? 0)
        .reduce((a, b) => a + Number(b), 0);
      const diagonal = sum();
      const menu = document.getElementById("order");
      menu.value = "frames";
      menu.dispatchEvent(new Event("change"));
      const frames = [...matrix.tBodies[0].rows].map((row) => Number(row.dataset.frames));
      const ordered = frames.every((value, at) => !at || value <= frames[at - 1]);
      const label = (row) => row.cells[0].textContent.trim();
      menu.value = "name";
      menu.dispatchEvent(new Event("change"));
      const named = [...matrix.tBodies[0].rows].map(label);
      const alphabetical = named.join() === [...named].sort((a, b) => a.localeCompare(b)).join();
      matrix.tBodies[0].rows[0].cells[1].focus();
      press(document.activeElement, "ArrowRight");
      press(document.activeElement, "ArrowDown");
      press(document.activeElement, "ArrowLeft");
      const row = matrix.tBodies[0].rows[1];
      const names = [row, matrix.tHead.rows[0]].map((of, at) => of.cells[at].textContent.trim());
      const expected = `${names[0]} taken for ${names[1]}: `;
      const readout = document.getElementById("readout").textContent;
      const page = document.documentElement;
      return [downwards, announced, sum() === diagonal, ordered, alphabetical, readout.startsWith(expected),
        page.scrollWidth <= page.clientWidth, matchMedia("(prefers-color-scheme: dark)").matches].join(" ");
    """
    found = dump(run / PAGE, script, tmp_path, "--window-size=390,800", "--blink-settings=preferredColorScheme=0")
    assert found == "true descending true true true true true true"


def test_the_command_keeps_a_page_that_exists(run: Path, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    done = run_cli("report", run, "--device", "cpu")
    assert (done.exit_code, "exists; choose another file, or overwrite it (--force)" in done.stderr) == (2, True)
    page = tmp_path / "new" / "page.html"
    done = run_cli("report", run, "--device", "cpu", "--partition", "test", "-o", page)
    assert done.exit_code == 0, done.output
    assert f"Report: {page}" in done.stdout
    assert "evaluated on test" in page.read_text(encoding="utf-8")


class Stopping(Reporter):
    def advanced(self, step: int) -> None:
        if step == 2:
            raise RuntimeError("stopped")


def test_a_run_without_evaluations_is_reported_by_its_last_checkpoint(
    run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    plain = [*SMALL, "training.save_every=1", "loader.subset=90"]
    with pytest.raises(RuntimeError, match="stopped"):
        train(Config.load("demo", plain), run=tmp_path / "run", recipe="own", reporter=Stopping())
    path = tmp_path / "run"
    done = run_cli("report", path)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "no best checkpoint, because none was evaluated yet; use the last one (--checkpoint last)" in done.stderr
    done = run_cli("report", path, "--checkpoint", "last", "--device", "cpu")
    assert done.exit_code == 0, done.output
    page = (path / PAGE).read_text(encoding="utf-8")
    assert "No epoch was timed" in page
    saved = max(path.name for path in (path / "checkpoints").iterdir())
    assert f"The run was cut short: 0 of 4 epochs are complete, the last step is {int(saved[-8:]):,}." in page
    assert "differs from the defaults" in page


def test_a_full_disk_is_said_and_leaves_the_page_that_was_there(
    run: Path, run_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = run_cli("report", run, "--device", "cpu", "-o", page, "--force")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "free some space" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert page.read_text() == "before"


def test_damaged_old_and_cut_short_runs_are_said_in_one_line(
    run: Path, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    def refused(path: Path, *options: object) -> str:
        done = run_cli("report", path, "--device", "cpu", "-o", tmp_path / "page.html", *options)
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
        assert not (tmp_path / "page.html").exists()
        return str(done.stderr)

    assert "not a run, it has no config.yaml" in refused(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    lines = (copy / "metrics.jsonl").read_text()
    (copy / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 1}\n' + lines)
    assert "line 1 is damaged or of another version" in refused(copy)
    (copy / "metrics.jsonl").write_text(lines)
    make_course(tmp_path / "other", {"dev": [60]}, dim=5)
    assert "5 features per frame" in refused(copy, tmp_path / "other")
    shutil.rmtree(copy / "checkpoints")
    assert "the run ended before its first checkpoint" in refused(copy)
    config = (copy / "config.yaml").read_text().replace("epochs: 2", "epochs: 9")
    shutil.copytree(run / "checkpoints", copy / "checkpoints")
    (copy / "config.yaml").write_text(config)
    (copy / "metrics.jsonl").write_text(lines + '{"kind": "st')  # a kill in the middle of a line
    timings = [json.loads(line) for line in (copy / "timings.jsonl").read_text().splitlines()]
    timings[0] |= {"data_stall": 0.0321}
    timings[1] |= {"data_stall": 0.455, "from_step": 1018}  # the run was resumed there
    (copy / "timings.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in timings))
    report(copy, device="cpu", overwrite=True)
    page = (copy / PAGE).read_text(encoding="utf-8")
    assert "cut short: 2 of 9 epochs are complete" in page
    assert "<dt>Data stall</dt><dd>3.2%</dd>" in page
    ((epoch, *_, stall),) = (row for row in Reader(page).rows if row[0].startswith("2 ("))
    assert (epoch, stall[:5]) == ("2 (from step 1,018)", "45.5%")  # what follows the table is read into its last cell
    assert "An epoch in which the run was resumed is timed from that step on" in page
    assert "timed from" not in (run / PAGE).read_text(encoding="utf-8")


def test_utterances_can_be_heard(run: Path, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    """The sound is that of the frames shown; a recording that is missing is said once."""
    demo = Corpus.open(DEMO_CORPUS).partition("dev").pick([0, 1])
    labels = demo.labels()
    assert labels is not None
    with PackedWriter(
        tmp_path / "corpus",
        inventory=demo.inventory,
        normalization="utterance",
        dtype="float16",
        recordings_folder=tmp_path / "gone",
    ) as writer:
        for number, frames in enumerate(demo.frames()):
            part = labels[slice(*demo.offsets[number : number + 2])]
            writer.add("dev", demo.utterances[number], frames, part, recording=f"{number}.wav")
    soundfile.write(tmp_path / "1.wav", np.arange(160_000) / 160_000, 16_000, subtype="PCM_16")
    page = tmp_path / "page.html"
    done = run_cli("report", run, tmp_path / "corpus", "--recordings", tmp_path, "-o", page)
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines() == [
        f"warning: {tmp_path}/0.wav: no such file; the page lacks the sound of it: say where recordings "
        "are now (--recordings)"
    ]
    content = page.read_text(encoding="utf-8")
    assert content.count("No sound: its recording is missing or cannot be read.") == 1
    ((name, flac),) = re.findall(r'aria-label="Sound of ([^"]*)" src="data:audio/flac;base64,([^"]*)"', content)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(flac)))
    shown = min(int(demo.lengths[1]), MAX_FRAMES)
    assert name == demo.utterances[1]
    assert len(samples) == pytest.approx((0.0075 + 0.01 * shown) * rate, abs=1)
    np.testing.assert_allclose(samples, np.arange(len(samples)) / 160_000, atol=4e-5)


def test_curves_of_many_steps_are_means_of_as_many() -> None:
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = [
        {"kind": "step", "step": at + 1, "epoch": 1, "loss": loss, "accuracy": None if at == 3 else 0.5}
        for at, loss in enumerate(rng.random(5000).tolist())
    ]
    lines.append({"kind": "epoch", "epoch": 1, "step": 5000, "train": None, "dev": {"loss": 1.0, "accuracy": 0.5}})
    thin = thinned(lines)
    assert [line["step"] for line in thin[:-1]] == list(range(5, 5001, 5))
    losses = np.array([line["loss"] for line in lines[:-1]]).reshape(1000, 5)
    assert [line["loss"] for line in thin[:-1]] == pytest.approx(losses.mean(axis=1).tolist())
    assert (thin[0]["accuracy"], thin[-1]) == (0.5, lines[-1])
    assert thinned(lines[-101:]) == lines[-101:]
    assert len(draw_metric("loss", lines)) < 100_000


def test_the_worst_and_the_best_are_those_of_a_plain_sort() -> None:
    frames = np.array([60, 49, 3, 900, 51, 200, 0, 75, 100])
    right = np.array([30, 49, 0, 90, 50, 100, 0, 75, 10])
    judged = sorted((right[at] / count, at) for at, count in enumerate(frames) if count >= 50)
    worst, best = choose(UtteranceScores(frames, right, frames, frames), 2)
    assert worst == [at for _, at in judged[:2]] == [3, 8]
    assert best == [at for _, at in judged[:-3:-1]]
    few = np.array([4, 0, 6])
    assert choose(UtteranceScores(few, few // 2, few, few), 3) == ([0, 2], [])


def test_examples_are_the_beginnings_of_utterances_with_their_posteriors(run: Path) -> None:
    """Beside what `predict` gives, whose windows are cut by DALI."""
    partition = Corpus.open(DEMO_CORPUS).partition("dev")
    expected = predict(run, "demo", partition="dev", posteriors=True, device="cpu")
    true, offsets = partition.labels(), partition.offsets
    assert true is not None
    assert expected.posteriors is not None
    counts = score_utterances(expected.labels, true, offsets)
    chosen = [2, int(partition.lengths.argmax())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dali_asr.reports.examples.MAX_FRAMES", 240)
        made = make_examples(chosen, load_checkpoint(run), partition, counts, torch.device("cpu"))
    for at, example in zip(chosen, made, strict=True):
        shown = slice(offsets[at], min(offsets[at + 1], offsets[at] + 240))
        assert (example.name, example.position) == (partition.utterances[at], at)
        assert example.complete == (partition.lengths[at] <= 240)
        np.testing.assert_array_equal(example.true, true[shown])
        np.testing.assert_allclose(example.posteriors, expected.posteriors[shown], atol=1e-6)
    assert not made[1].complete


def test_a_posteriorgram_shows_posteriors_true_labels_and_errors() -> None:
    rng = np.random.default_rng(0)
    posteriors = rng.dirichlet(np.full(42, 0.1), 90).astype(np.float32)
    true = np.repeat(rng.permutation(40)[:9], 10)
    true[:10] = -100
    example = Example("<u>", 0, 80, 0.5, true, posteriors, complete=True)
    symbols = ARPABET.symbols
    svg = ElementTree.fromstring(draw_posteriorgram(example, symbols))
    (image,) = svg.iter("image")
    names = [text.text for text in svg.iter("text") if text.attrib.get("text-anchor") == "end"]
    rows = [symbols.index(str(name)) for name in names if name not in ("true", "given")]
    shown = matplotlib.image.imread(io.BytesIO(base64.b64decode(image.attrib["href"].partition(",")[2])), format="png")
    np.testing.assert_allclose(shown[..., 3], posteriors.T[rows], atol=0.5 / 32 + 1e-2)
    assert set(true[10:].tolist()) <= set(rows)
    outlines, errors = (
        [tuple(map(float, box)) for box in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v", path)]
        for color in ("text", "series-1")
        for path in [found.attrib["d"] for found in svg.iter("path") if f"var(--{color})" in found.attrib.values()]
    )
    assert outlines == [(2.0 * at, 14.0 * rows.index(true[at]), 20.0) for at in range(10, 90, 10)]
    wrong = np.zeros(90, np.bool_)
    for x, _, width in errors:
        wrong[round(x / 2) : round((x + width) / 2)] = True
    np.testing.assert_array_equal(wrong, (posteriors.argmax(axis=1) != true) & (true >= 0))


def test_of_many_symbols_the_most_frequent_are_shown() -> None:
    inventory = Inventory(tuple(f"s{at}" for at in range(500)))
    true = np.repeat(np.arange(500), np.arange(500))
    predicted = np.where(np.arange(len(true)) % 4 == 0, (true + 1) % 500, true)
    scores = score_labels(
        predicted, np.ones(len(true), np.float32), predicted == true, true, np.array([0, len(true)]), inventory
    )
    rows = confusion_rows(Evaluation("dev", "c", scores, inventory))
    labels = [row.label for row in rows]
    assert labels == list(range(420, 500))
    for row in rows:
        counts = [int(((true == row.label) & (predicted == label)).sum()) for label in labels]
        assert [count for count, _ in row.cells] == counts
        assert [shade**2 for _, shade in row.cells] == pytest.approx([count / row.label for count in counts])
