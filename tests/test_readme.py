"""The READMEs: their commands and examples run as written, and their figures are the recorded ones."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from dali_asr.config import recipe_names
from dali_asr.demo import DEMO_RECORDING
from dali_asr.demo.sentences import TEST
from dali_asr.reports.audit import auditing
from tests.makers import make_course
from tests.processes import ForkServer

pytestmark = pytest.mark.usefixtures("small_roofs")

ROOT = Path(__file__).parents[1]
README, CONFIGS, LOADING, CORPUS, AUDIO, ALIGNMENT, INFERENCE, CARD, BENCHMARKS = (
    (ROOT / folder / "README.md").read_text(encoding="utf-8")
    for folder in (
        ".",
        "configs",
        "dali_asr/loading",
        "dali_asr/corpus",
        "dali_asr/audio",
        "dali_asr/alignment",
        "dali_asr/inference",
        "dali_asr/pretrained/english-small",
        "benchmarks",
    )
)
INSTALL = ["pip install -e . && dali-asr train", "pip install -e '.[dev]' && pytest"]
# Ten minutes are too long for a test.
QUICK = {
    "dali-asr bench loader": " --frames 20000 --batch-size 256 --dtype float32 --workers 0 --repeats 1 --seconds 0.01",
    "dali-asr bench train": " --frames 20000 --batch-size 64 --model tiny --repeats 1 --seconds 0.01",
    "python benchmarks/start.py": " --repeats 1",
    "python benchmarks/shuffle.py": " --batch-size 32 --budgets 0.5",
    "python benchmarks/sweep.py": " --repeats 1 --seeds 2 --steps 2",
    "python benchmarks/ablation.py": " --seeds 1 --only reference",
    "python benchmarks/decoding.py": " --seeds 1 --repeats 1 --seconds 1",
    "torchrun": " --set training.epochs=1",
    "dali-asr train --init english-small": " --set training.max_steps=2 --set loader.batch_size=64",
    "dali-asr train --set training.init=english-small": " --set training.max_steps=2 --set loader.batch_size=64",
    "dali-asr align runs/new": " --set training.max_steps=2 --set loader.batch_size=64 --force",
    "dali-asr train --resume runs/two": " --set training.epochs=2",
    "python benchmarks/audit.py": " --seeds 1 --folds 2 --utterances 8",
    "python benchmarks/make_course_tree.py": " --utterances 40 --mean 100",
    "python benchmarks/features.py": " --repeats 1 --alone",
    "python benchmarks/alignment.py": " --repeats 1 --alone",
    "python benchmarks/pack.py": " --repeats 1",
    "python benchmarks/export.py": " --models tiny --repeats 1 --frames 100 --no-memory",
}


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(text: str) -> list[str]:
    """Return the lines of all shell blocks."""
    return [line for block in blocks(text, "sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with course data in it, small and otherwise like the course's."""
    path = tmp_path_factory.mktemp("readme")
    lengths = {"train-clean-100": [900, 1300, 400], "dev-clean": [300, 200], "test-clean": [150, 90]}
    make_course(path / "hw1p2", lengths, dim=28, unlabelled=("test-clean",))
    make_recordings(path / "recordings")
    return path


def make_recordings(folder: Path) -> None:
    """Make a second of a tone per speaker, in the partitions that the recipe names, with TIMIT's alignments."""
    for partition in ("train", "dev", "test"):
        (folder / partition).mkdir(parents=True)
        for speaker in range(4):
            soundfile.write(
                folder / f"{partition}/s{speaker}.wav", np.sin(np.arange(16_000) / (3 + speaker)) / 2, 16_000
            )
            (folder / f"{partition}/s{speaker}.phn").write_text("0 8000 h#\n8000 16000 iy\n")


def shape(text: str) -> str:
    """Replace the numbers, dates and devices that a command prints."""
    text = re.sub(r"the (CPU|cuda).*?\)", "the DEVICE", text)
    return re.sub(r"[\d.,]+(-\d+)?", "N", text)


def shell(command: str, folder: Path, server: ForkServer) -> str:
    """Run a command by the shell."""
    environment = server.environment() | {"XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def execute(
    folder: Path,
    run_cli: Callable[..., Any],
    fork_server: ForkServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], str]:
    """Return a function that runs a command: ours in this process, which is quicker, others by the shell."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    # A process of its own would import torch again.
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", lambda jobs, *_, **__: ThreadPoolExecutor(jobs))
    for name in ("OF_FRAMES", "OF_SEGMENTS"):
        monkeypatch.setattr(auditing, name, replace(getattr(auditing, name), epochs=1))

    def run(command: str) -> str:
        words = shlex.split(command)
        if words[0] == "python":
            monkeypatch.setattr(sys, "argv", words[1:])
            monkeypatch.syspath_prepend(folder / "benchmarks")  # where the scripts find `harness`
            runpy.run_path(words[1], run_name="__main__")
            return ""
        if words[0] != "dali-asr":
            return shell(command, folder, fork_server)
        done = run_cli(*words[1:])
        assert done.exit_code == 0, f"{command}\n{done.output}"
        return str(done.stdout)

    return run


def quickly(command: str) -> str:
    """Return a command with options that make it quick."""
    return command + next((options for start, options in QUICK.items() if command.startswith(start)), "")


def run_examples(text: str, folder: Path, server: ForkServer) -> None:
    """Run the Python blocks of a README, in order, as one file."""
    device = "cuda" if torch.cuda.is_available() else "auto"
    examples = [example.replace('device="cuda"', f'device="{device}"') for example in blocks(text, "python")]
    assert examples
    (folder / "examples.py").write_text("\n".join(examples))
    shell("python examples.py", folder, server)


def test_the_two_commands_stand_on_the_first_screen_and_ci_runs_them() -> None:
    first_screen = README.splitlines()[:24]
    assert all(command in first_screen for command in INSTALL)
    assert commands(README)[:2] == INSTALL
    assert f"{INSTALL[1]} || exit 1" in (ROOT / ".ci/run").read_text().splitlines()


def test_the_main_job_prints_what_the_readme_shows(folder: Path, fork_server: ForkServer) -> None:
    """The lines that follow the installation are the README's, except for numbers and dates."""
    printed = shell(INSTALL[0].split(" && ")[1], folder, fork_server)
    shown = blocks(README, "text")

    assert shape(printed) == shape(shown[0])
    accuracies = [float(a) for a in re.findall(r"dev .*accuracy ([\d.]+)%", printed)]
    assert accuracies[-1] > 75
    following = re.search(r"Next: (.*)", printed)
    assert following
    assert shape(shell(following[1], folder, fork_server)) == shape(shown[1])


def test_every_other_command_of_the_readme_runs(
    folder: Path, execute: Callable[[str], str], fork_server: ForkServer
) -> None:
    printed = {command: execute(quickly(command)) for command in commands(README)[2:]}
    labelled = printed["dali-asr predict english-small demo.wav --format textgrid"]
    assert shape(labelled) == shape(blocks(README, "text")[2])
    lines = (folder / "submission.csv").read_text().splitlines()
    assert lines[0] == "id,label"
    assert len(lines) == 1 + 240
    run_examples(README + CORPUS, folder, fork_server)


def test_every_command_about_configuration_runs(
    folder: Path, execute: Callable[[str], str], fork_server: ForkServer
) -> None:
    printed = {command: execute(quickly(command)) for command in commands(CONFIGS)}
    (by_torchrun,) = [text for command, text in printed.items() if command.startswith("torchrun")]
    assert by_torchrun.count(" parameters on 2 processes, the first on the ") == 1
    assert by_torchrun.count("Next: dali-asr predict") == 1
    run_examples(CONFIGS, folder, fork_server)


def test_the_command_about_recordings_and_its_example_run(
    tmp_path: Path, execute: Callable[[str], str], fork_server: ForkServer
) -> None:
    samples = np.sin(np.arange(4_000) / 3) / 2
    (tmp_path / "recordings").mkdir()
    for path in ("recordings/a.flac", "a.flac", "b.wav"):
        soundfile.write(tmp_path / path, samples, 16_000)
    (command,) = commands(AUDIO)
    printed = execute(command.replace("RECORDINGS corpus", f"{tmp_path}/recordings {tmp_path}/corpus"))
    assert "Computed the features of 1 of 1 recordings" in printed
    run_examples(AUDIO, tmp_path, fork_server)


def test_the_commands_about_labelling_and_aligning_recordings_run(
    tmp_path: Path, execute: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    for name in ("demo", "demo2"):
        shutil.copy(DEMO_RECORDING, tmp_path / f"recordings/{name}.wav")
    table = "".join(f"{name}\t{TEST[1]}\n" for name in ("demo", "demo2"))
    (tmp_path / "recordings/transcripts.tsv").write_text(table)
    for command in commands(ALIGNMENT):
        execute(quickly(command.replace(" RUN ", " english-small ")))
    assert (tmp_path / "aligned/demo2.TextGrid").is_file()
    make_recordings(tmp_path / "phones")
    execute("dali-asr prepare phones corpus")
    for command in dict.fromkeys(commands(INFERENCE) + commands(CARD)):
        execute(quickly(command))


def test_every_command_about_benchmarks_runs(folder: Path, execute: Callable[[str], str]) -> None:
    """All but `gpu.sh`, which runs the same commands, for minutes and on a GPU: its syntax is checked."""
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", ignore=lambda *_: ["results", "__pycache__"])
    (folder / "benchmarks/results").mkdir()
    make_course(folder / "root", {"train-clean": [30] * 40, "dev-clean": [100]}, dim=28)
    execute("dali-asr data pack root packed-root")
    values = {"CORPUS": "packed-root", "PARTITION": "train-clean", "ROOT": "root", "RECORDINGS": "tones"}
    (folder / "tones").mkdir()
    for number in range(3):
        soundfile.write(folder / f"tones/{number}.flac", np.sin(np.arange(4_000) / (3 + number)) / 2, 16_000)
        (folder / f"tones/{number}.phn").write_text("0 1600 SIL\n1600 4000 IY\n")
    (folder / "tones/transcripts.tsv").write_text("0\tann\te\n1\tann\te\n2\tbob\te\n")
    first, *others = commands(BENCHMARKS)
    assert first == "benchmarks/gpu.sh FOLDER"
    execute("bash -n benchmarks/gpu.sh")
    for command in others:
        execute(quickly(" ".join(values.get(word, word) for word in command.split(" "))))
    written = {path.name.partition("_")[0] for path in (folder / "benchmarks/results").glob("*.json")}
    assert written == {
        "ablation",
        "alignment",
        "audit",
        "decoding",
        "export",
        "features",
        "loader",
        "pack",
        "pack-archive",
        "shuffle",
        "start",
        "sweep",
        "train",
    }


def test_the_library_example_runs_as_it_stands() -> None:
    example = blocks(README, "python")[0]
    assert all(name in example for name in ("batch.windows", "batch.labels", "batch.frame_ids"))
    exec(example, {})


def test_the_first_page_is_short_and_honest_about_gpus() -> None:
    assert len(README.split()) <= 1200
    first = next(paragraph for paragraph in README.split("\n\n") if "GPU" in paragraph)
    assert "on a GPU are not yet measured" in " ".join(first.split())


def test_every_recipe_is_described() -> None:
    for name in recipe_names():
        assert f"| `{name}` |" in CONFIGS


def test_the_figures_are_the_recorded_ones() -> None:
    table = dict(re.findall(r"^\| ([^|]*?) \| (.*) \|$", BENCHMARKS, flags=re.MULTILINE))
    chart = re.search(r"!\[.*\]\((results/loader_.*)\.png\)", BENCHMARKS)
    assert chart
    recorded = json.loads((ROOT / f"benchmarks/{chart[1]}.json").read_text())["cases"]
    cases = [case for case in recorded if case["dtype"] == "float32" and case["batch_size"] < 16384]
    expected = [(batch_size, masks) for batch_size in (512, 4096) for masks in (False, True)]
    assert [(case["batch_size"], case["masks"]) for case in cases] == expected
    best = [max(r["median"] for r in case["results"] if r["name"].startswith("dataloader")) for case in cases]
    assert table["`DataLoader`, best of 0, 2, 4 workers"] == " | ".join(f"{b / 1e3:,.0f}" for b in best)
    for row, name in (
        ("NumPy gather by batch", "numpy gather"),
        ("torch gather by batch", "torch gather"),
        ("**dali-asr**, graph `stock`", "dali stock"),
        ("**dali-asr**, streamed", "dali streamed"),
    ):
        medians = [next(r["median"] for r in case["results"] if r["name"] == name) for case in cases]
        cells = [f"{m / 1e3:,.0f} ({m / b:.1f} ×)" for m, b in zip(medians, best, strict=True)]
        assert table[row] == " | ".join(cells)


def test_the_figures_of_the_first_page_are_the_recorded_ones() -> None:
    """Three lines, taken from the same records as the tables of benchmarks/README.md, and one chart."""
    (chart,) = re.findall(r"!\[Windows.*\]\((.*)\.png\)", README)
    cases = json.loads((ROOT / f"{chart}.json").read_text())["cases"]
    plain, masked = (
        {r["name"]: r["median"] for r in case["results"]}
        for case in cases
        if case["batch_size"] == 4096 and case["dtype"] == "float32"
    )
    text = " ".join(README.split())
    ours, best = masked["dali stock"], max(v for name, v in masked.items() if name.startswith("dataloader"))
    assert f"{ours / 1e3:.0f},000 masked windows per second in batches of 4,096" in text
    assert f"{ours / best:.1f} × a `DataLoader` with its best number of workers" in text
    assert f"and {ours / masked['torch gather']:.1f} × a torch gather" in text
    assert plain["torch gather"] > plain["dali stock"]
    training, packed, shuffled = (
        json.loads(next((ROOT / "benchmarks/results").glob(f"{name}_*.json")).read_text())
        for name in ("train", "pack", "shuffle")
    )
    tiny = next(r for r in training["results"] if r["model"] == "tiny")
    assert shuffled["partition"]["utterances"] == packed["utterances"]
    frames_per_second = tiny["batch_size"] * median(tiny["trained"])
    assert f"{frames_per_second / 1e3:.0f},000 frames per second with the `tiny` model" in text
    assert (
        f"or {shuffled['partition']['frames'] / frames_per_second / 60:.0f} minutes per epoch of train-clean-100"
        in text
    )
    assert f"takes {1 - median(tiny['fed']) / median(tiny['fixed']):.1%} of a step" in text
    assert (
        f"{median(packed['packing_seconds']):.1f} s for {packed['utterances']:,} utterances "
        f"with {shuffled['partition']['frames'] / 1e6:.1f} million frames"
    ) in text


def test_the_figures_of_packing_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("pack_*.json")
    values = json.loads(recorded.read_text())
    seconds = values["packing_seconds"]
    text = " ".join(BENCHMARKS.split())
    assert f"takes {median(seconds):.1f} s from a warm page cache" in text
    assert f"({min(seconds):.1f} to {max(seconds):.1f} s in five repeats)" in text
    assert f"and {values['peak_anonymous_MiB']:.0f} MiB of memory" in text
    assert f"takes {median(values['course_loop_seconds']):.1f} s. The packed corpus" in text


def test_the_figures_of_packing_an_archive_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("pack-archive-1gb_*.json")
    values = json.loads(recorded.read_text())
    alone, packing = (median(values[f"{side}_seconds"]) for side in ("decompressing", "packing"))
    text = " ".join(BENCHMARKS.split())
    assert f"[{values['bytes'] / 1e9:.2f} GB]" in text
    assert f"in {values['members']:,} members takes {packing:.1f} s to pack and {alone:.1f} s to decompress" in text
    assert f"{alone / packing:.0%}".replace("%", " %") + " of the rate, the median of five repeats" in text
    assert f"with {values['peak_anonymous_MiB']:.0f} MiB of memory" in text


def test_the_figures_of_training_and_start_are_the_recorded_ones() -> None:
    (training,), (starting,) = ((ROOT / "benchmarks/results").glob(f"{name}_*.json") for name in ("train", "start"))
    sides = {
        r["model"]: [median(r[side]) for side in ("fixed", "fed", "trained")]
        for r in json.loads(training.read_text())["results"]
    }
    stall = {model: 1 - fed / fixed for model, (fixed, fed, _) in sides.items()}
    overhead = {model: fixed / trained - 1 for model, (fixed, _, trained) in sides.items()}
    text = " ".join(BENCHMARKS.split())
    assert f"the data stall is {stall['tiny']:.1%} of a step for the `tiny` model and {stall['full']:.1%} for" in text
    assert f"costs {overhead['tiny']:.1%} and {overhead['full']:.1%} of a bare loop" in text
    started, copied = (min(json.loads(starting.read_text())[side]) for side in ("start", "copy"))
    assert f"is there after {started:.2f} s; copying its frames alone takes {copied:.2f} s" in text


def test_the_figures_of_the_forms_of_a_model_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("export_*.json")
    values = json.loads(recorded.read_text())
    ten_minutes, hour = str(values["frames"]), str(values["hour"])
    for result in values["results"]:
        for form, seconds in result["seconds"].items():
            speed = f"{values['frames'] / median(seconds):,.0f}"
            peak = result["peak_MiB"]
            longest = f"{peak[hour][form]:,.0f}" if form in peak[hour] else ""
            cells = [f"`{result['model']}`", f"`{form}`", speed, *(f"{peak[n][form]:,.0f}" for n in ("1", ten_minutes))]
            assert f"| {' | '.join(cells)} | {longest} |" in BENCHMARKS
        assert result["peak_MiB"][hour]["onnx"] < 1024
    (alone,) = (ROOT / "benchmarks/results").glob("export-tiny_*.json")
    peak = json.loads(alone.read_text())["results"][0]["peak_MiB"][hour]
    text = " ".join(BENCHMARKS.split())
    assert f"took {peak['windows']:,.0f} MiB by windows and {peak['convolution']:,.0f} MiB by convolution" in text


def test_the_figures_of_sweeps_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("sweep_*.json")
    values = json.loads(recorded.read_text())
    whole, steps = (
        [median(repeat[name] for repeat in values[side]) for side in ("apart", "together")]
        for name in ("seconds", "training")
    )
    text = " ".join(BENCHMARKS.split())
    assert f"of {values['seeds']} seeds of `tiny`, {values['steps']} steps each, takes" in text
    assert f"takes {whole[0]:.0f} s one after another and {whole[1]:.0f} s together" in text
    assert f"its training steps alone take {steps[0]:.0f} s and {steps[1]:.0f} s" in text
    ratios = [a["training"] / b["training"] for a, b in zip(values["apart"], values["together"], strict=True)]
    assert f"the steps were {min(ratios):.2f} to {max(ratios):.2f} times as fast together" in text
    assert values["device"] == "cpu"
    assert median(ratios) < 1.05, "or the text has to change"


def test_the_figures_of_features_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("features_*.json")
    values = json.loads(recorded.read_text())
    rows = [
        line.split(" | ")[1:] for line in BENCHMARKS.splitlines() if line.startswith(("| `dali-asr f", "| `librosa."))
    ]
    for name, row in zip(("course", "kaldi", "librosa"), rows, strict=True):
        seconds, core_seconds = median(values[name]["seconds"]), median(values[name]["core_seconds"])
        rate = values["seconds_of_audio"] / seconds
        expected = f"{seconds:.1f} | {core_seconds:.1f} | {rate:,.0f} | {values[name]['peak_MiB']:,.0f} |"
        assert " | ".join(row) == expected


def test_the_figures_of_decoding_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("decoding_*.json")
    values = json.loads(recorded.read_text())
    for runs in zip(*values["results"], strict=True):
        columns = [[one[key] for one in runs] for key in ("accuracy", "phoneme_error_rate")]
        columns += [[one["phoneme_error_rate_without_silence"] for one in runs]]
        columns += [[one["boundaries"][key] for one in runs] for key in ("matched", "within_20_ms")]
        cells = [f"{100 * mean(column):.1f} ± {100 * stdev(column):.1f} %" for column in columns]
        assert f"| `{runs[0]['decode']}` | {' | '.join(cells)} |" in BENCHMARKS
    text = " ".join(BENCHMARKS.split())
    majority, viterbi = (one["speech"] / median(one["seconds"]) for one in values["speed"])
    assert f"labels {viterbi:,.0f} seconds of speech per second" in text
    assert f"the majority {majority:,.0f}" in text
    assert f"{values['speed'][1]['peak_MiB']:.0f} MiB beside the posteriors" in text


def test_the_figures_of_streaming_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("shuffle_*.json")
    for line in json.loads(recorded.read_text())["results"]:
        budget = f"{line['budget']:.0%}".replace("%", " %") + (" (full shuffle)" if line["budget"] == 1 else "")
        share = f"{line['largest_share']:.3%}".replace("%", " %")
        assert f"| {budget} | {line['groups']} | {share} | {line['utterances']:,.0f} |" in LOADING


def test_the_figures_of_accuracy_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("ablation_*.json")
    reference, *others = json.loads(recorded.read_text())["results"]
    for result in (reference, *others):
        last = [accuracy[-1] for accuracy in result["accuracy"]]
        cell = f"{100 * mean(last):.2f} ± {100 * stdev(last):.2f} %"
        gain = f"{100 * (mean(last) - reference['mean']):+.2f} " if result is not reference else ""
        assert f"| {result['variant']} | {cell} | {gain}|" in BENCHMARKS
        assert result["parameters"] <= 1_500_000
    best = mean(max(accuracy) for accuracy in reference["accuracy"])
    assert f"The reference is at its best, {100 * best:.2f} %" in BENCHMARKS


def test_the_figures_of_the_audit_are_the_recorded_ones() -> None:
    (recorded,) = (ROOT / "benchmarks/results").glob("audit_*.json")
    results = json.loads(recorded.read_text())["results"]
    for result in results:
        kinds = {name: [run["recall"][name] for run in result["runs"]] for name in result["runs"][0]["recall"]}
        assert mean(row[-1] for row in kinds["swapped segments"]) >= 0.80
        assert mean(row[-1] for row in kinds["exchanged transcripts"]) >= 0.95
        for name, rows in kinds.items():
            percents = [[100 * value for value in column] for column in zip(*rows, strict=True)]
            cells = [f"{mean(column):.0f} % ({min(column):.0f}–{max(column):.0f})" for column in percents]
            assert f"| {result['corpus']}: {name} | {' | '.join(cells)} |" in BENCHMARKS
    (hour,) = (result["runs"] for result in results if result["corpus"] == "so762")
    seconds = median(run["processor_seconds"] for run in hour)
    assert f"{hour[0]['frames']:,} frames take {seconds:.0f} s of one core" in " ".join(BENCHMARKS.split())


def test_links_lead_somewhere() -> None:
    for path in (
        ROOT / folder / "README.md"
        for folder in (".", "configs", "dali_asr", "dali_asr/audio", "dali_asr/loading", "benchmarks")
    ):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (path.parent / target).exists(), target
