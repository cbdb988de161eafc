"""The command line: output, exit codes, and quick answers."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import struct
import subprocess
import sys
import termios
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyte
import pytest

from dali_asr import Config, Corpus
from dali_asr.cli.commands import complete_recipe, complete_setting
from dali_asr.cli.train import _why_it_trails
from tests.makers import make_course, make_features
from tests.processes import ForkServer

Run = Callable[..., Any]


def test_help_imports_nothing_heavy() -> None:
    """Help within 0.4 s is the promise. Counting imports is independent of the machine's load."""
    code = (
        "import sys; from dali_asr.cli import main; sys.argv = ['dali-asr', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'numpy', 'nvidia', 'pydantic', 'matplotlib'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in printed
    commands = "train predict evaluate export profile handin doctor data cache config model bench"
    for command in commands.split():
        assert re.search(rf"│ {command} ", printed)


def test_mistakes_in_names_are_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """All of them in one process, which has imported neither PyTorch nor DALI in the end."""
    words = tmp_path / "words.tsv"
    words.write_text("demo\tseven\n")
    mistakes = {
        f"align english-smal demo.wav {words} -o out": "english-smal: no such folder; .*; did you mean english-small",
        f"align english-small nope {words} -o out": "nope: no such file or directory; check the path",
        "align english-small demo.wav nope.tsv -o out": "nope.tsv: no such file or directory; check the path",
        "predict english-small nope.wav": "nope.wav: no such file or directory; check the path",
        "predict english-small demo --partition tset": "no partition 'tset'; it has .*; did you mean test",
        "evaluate english-small demo --partition tset": "no partition 'tset'; it has .*; did you mean test",
    }
    code = (
        "import sys; from dali_asr.cli import main\n"
        f"for command in {list(mistakes)!r}:\n"
        "    sys.argv = ['dali-asr', *command.split()]\n"
        "    try: main()\n"
        "    except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'nvidia'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "heavy: []\n"
    for line, message in zip(done.stderr.splitlines(), mistakes.values(), strict=True):
        assert re.search(message, line)


def test_the_module_prints_its_version() -> None:
    command = [sys.executable, "-m", "dali_asr", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "dali-asr 0.1.0\n"


def test_train_and_predict_print_results_and_the_next_command(run_cli: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--set", "model.hidden=[8]", "--set", "training.max_steps=5"]
    result = run_cli("train", "--run-folder", run, *small)
    assert result.exit_code == 0, result.output
    assert re.search(r"^Training [\d,]+ parameters on the", result.output)
    assert "epoch 1 (cut short)  dev" in result.output
    assert result.stdout.endswith(
        f"Next: dali-asr predict {run} demo --partition test\n  or: dali-asr evaluate {run} --partition test\n"
    )
    assert (run / "console.log").read_text() == result.output
    more = run_cli("train", "--resume", run, *small, "--set", "training.max_steps=7", "--set", "training.log_every=3")
    assert f"{run}: from step 6 on, training.max_steps 7 (was 5), training.log_every 3 (was 20)\n" in more.stdout
    assert "from step" not in more.stderr
    lost = "error: data.root: /nowhere: no such folder; set it to the corpus (--set data.root=FOLDER)"
    replaced = f"; course-tiny took the place of the configuration of {run}: leave course-tiny out to use the run's own"
    for options, message in (
        (["course-tiny", "--resume", run], f"{lost}{replaced}\n"),
        (["--resume", run], f"{lost}\n"),
        (["course-tiny"], f"{lost}\n"),
    ):
        assert run_cli("train", *options, "--set", "data.root=/nowhere").stderr == message
    for options in (["--resume", "--set", "training.epochs=2"], ["--set", "training.epochs=2", "--resume"]):
        swallowed = run_cli("train", *options)
        assert swallowed.exit_code == 2
        assert swallowed.output.startswith("error: --resume needs the path of a run (--resume RUN), or auto")
    again = run_cli("train", "--resume", run, "--set", "training.seed=1")
    assert again.exit_code == 2
    assert (run / "console.log").read_text() == result.output + more.output
    next_command = re.search(r"Next: dali-asr (.*)", result.output)
    assert next_command
    assert next_command[1] == f"predict {run} demo --partition test"
    result = run_cli("predict", run)
    assert result.exit_code == 0, result.output
    assert f"3,978 frames of 12 utterances of test, written to {run / 'test.csv'}" in result.output
    assert "Frame accuracy" in result.output
    lines = (run / "test.csv").read_text().splitlines()
    assert lines[0] == "id,label"
    assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(3978)]
    again = run_cli(*next_command[1].split())
    assert again.exit_code == 2
    assert "exists; choose another file, or overwrite it (--force)" in again.output
    assert run_cli(*next_command[1].split(), "--force").exit_code == 0
    posteriors = tmp_path / "p.npz"
    assert run_cli("predict", run, "demo", "--format", "npz", "-o", posteriors).exit_code == 0
    with np.load(posteriors) as stored:
        assert stored["posteriors"].shape == (3978, 42)
    np.save(tmp_path / "one.npy", make_features(9, dim=28))
    out = run_cli("predict", run, tmp_path / "one.npy", "--format", "json", "--frame-labels", "-o", "-")
    assert len(json.loads(out.stdout)["utterances"][0]["labels"]) == 9
    np.save(tmp_path / "two.npy", make_features(8, dim=28))
    listed = f"{tmp_path / 'two.npy'}\n\n{tmp_path / 'one.npy'}\n"
    grids = ("predict", run, "-", "--format", "textgrid", "-o", tmp_path / "grids")
    done = run_cli(*grids, stdin=listed)
    assert f"17 frames of 2 utterances, written to {tmp_path / 'grids'}" in done.output
    assert sorted(path.name for path in (tmp_path / "grids").iterdir()) == ["one.TextGrid", "two.TextGrid"]
    again = run_cli(*grids, stdin=listed)
    assert "two.TextGrid: exists; choose another file, or overwrite it (--force)" in again.stderr
    ctm = run_cli("predict", run, "-", "--format", "ctm", "--decode", "median:3", "-o", "-", stdin=listed)
    names = [line.split(" ")[0] for line in ctm.stdout.splitlines()]
    assert list(dict.fromkeys(names)) == ["two", "one"]
    assert run_cli("predict", run, "-", stdin="\n").stderr.startswith("error: -: standard input lists no paths; write")
    unknown = run_cli("predict", run, "demo", "--decode", "best", "-o", "-")
    assert "decode 'best'; expected none, viterbi, or median:K" in unknown.stderr
    assert run_cli("train", "--run-folder", run, *small).exit_code == 2


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (["model.dropout=0", "loader.masking=null"], "Train accuracy is the mean over an epoch; dev .* after it$"),
        (["model.dropout=0.1", "loader.masking=null"], "over an epoch, with dropout; dev .* after it, without$"),
        (["model.dropout=0", "loader.masking={}"], "over an epoch, with masks; dev .* after it, without$"),
        (["model.dropout=0.1", "loader.masking={}"], "over an epoch, with dropout and masks; dev .*, without$"),
    ],
)
def test_why_train_accuracy_trails_is_said_of_what_the_run_has(changed: list[str], line: str) -> None:
    assert re.search(line, _why_it_trails(Config.load("demo", changed)))


def test_data_packs_and_shows_corpora(run_cli: Run, course: Path, tmp_path: Path) -> None:
    dest = tmp_path / "packed"
    packed = run_cli("data", "pack", course, dest, "--dtype", "float16", "--partition", "train", "--partition", "test")
    assert packed.exit_code == 0, packed.output
    assert f"Packed 61 frames of 2 partitions into {dest}" in packed.output
    assert run_cli("data", "verify", dest).exit_code == 0
    shown = run_cli("data", "info", dest, "--labels")
    assert shown.exit_code == 0, shown.output
    assert "5 features per frame, float16, normalized: utterance, 42 symbols" in shown.output
    as_it_is = run_cli("data", "info", course).output
    assert "5 features per frame, float32, normalized: utterance (as packed; the files are not changed), 42" in as_it_is
    assert re.search(r"train +0\.5 s +4 +50 +yes +\d+ of 42", shown.output)
    assert re.search(r"test +0\.1 s +2 +11 +no +–", shown.output)
    labels = Corpus.open(dest).partition("train").labels()
    assert labels is not None
    most = np.bincount(labels).max()
    assert f"{most / 50:.2%}" in shown.output
    assert run_cli("data", "pack", course, dest).exit_code == 2
    assert (
        run_cli("data", "pack", course, dest, "--force", "--normalization", "global", "--train", "train").exit_code == 0
    )
    assert Corpus.open(dest).normalization.kind == "global"
    demo = run_cli("data", "info", "demo")
    assert re.search(r"^train +\d\.\d min .*yes +40 of 42$", demo.output, flags=re.MULTILINE)
    assert re.search(r"^test +39\.8 s ", demo.output, flags=re.MULTILINE), "of 3,978 frames"
    assert "did you" not in run_cli("data", "chekc").output
    assert "dali-asr data info warns of what is odd" in run_cli("data", "check", "demo").output
    assert len(demo.output.splitlines()) == 7, "the table does not scroll away"


def test_config_lists_shows_copies_and_validates(run_cli: Run, tmp_path: Path) -> None:
    listed = run_cli("config", "list").output
    names = ("train-clean-100", "train-clean", "dev-clean", "test-clean", "train", "dev", "test")
    make_course(tmp_path / "course", {name: [9] for name in names})
    for name in ("demo", "course-tiny", "course-full", "so762-mini"):
        assert name in listed
        assert "max_gradient_norm: null" in run_cli("config", "show", name, "--full").output
        shown = run_cli("config", "show", name)
        assert shown.output.startswith("# ")
        file = tmp_path / f"{name}.yaml"
        assert run_cli("config", "copy", name, file).exit_code == 0
        assert file.read_text() == shown.output
        validated = run_cli("config", "validate", file, "--set", f"data.root={tmp_path / 'course'}")
        assert validated.output.startswith(
            f"{file}: valid; all but the first utterances are checked when its corpus is packed"
        )
    assert run_cli("config", "copy", "demo", tmp_path / "demo.yaml").exit_code == 2
    assert json.loads(run_cli("config", "schema").output)["additionalProperties"] is False
    file.write_text("loader: {contxt: 3}\ntraining: {epochs: 0}")
    bad = run_cli("config", "validate", file)
    assert bad.exit_code == 2
    assert "2 mistakes" in bad.output
    assert "loader.contxt: unknown key" in bad.output
    assert "did you mean context?" in bad.output


def test_model_shows_layers_and_parameters(run_cli: Run) -> None:
    shown = run_cli("model", "show", "course-full")
    assert "18,864,938 parameters" in shown.output
    assert re.search(r"Linear 1708 -> 2048 +\[B, 2048\] +3,500,032", shown.output)
    assert "[B, 61, 28]" in shown.output


def test_doctor_compares_windows_with_numpys(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_cli("doctor")
    assert result.exit_code == 0, result.output
    assert "windows cut by DALI equal NumPy's" in result.output
    assert "Ready: dali-asr train" in result.output
    from dali_asr.cli import doctor

    monkeypatch.setattr(doctor, "_check_windows", lambda *_: "windows differ from NumPy's")
    result = run_cli("doctor")
    assert result.exit_code == 1
    assert re.search(r"Not ready: (cpu|cuda:0): graph (stock|fused): windows differ", result.output)


def test_doctor_says_why_the_fused_graph_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dali_asr.cli import doctor

    tried: list[str] = []
    monkeypatch.setattr(doctor, "_check_windows", lambda _device, graph: tried.append(graph))
    monkeypatch.setattr("dali_asr.loading.fused_problem", lambda _device: "no C compiler was found; install gcc")
    state, problem = doctor._check_device(torch.device("cuda", 0))
    assert (tried, problem) == (["stock"], None)
    assert state.endswith("(graph stock); graph fused cannot be used: no C compiler was found; install gcc")
    assert "fused" not in doctor._check_device(torch.device("cpu"))[0], "the CPU does not need it"
    monkeypatch.setattr("dali_asr.loading.fused_problem", lambda _device: None)
    assert doctor._check_device(torch.device("cuda", 0))[0].endswith("(graph stock and fused)")


def test_progress_on_a_terminal_leaves_piped_output_alone(tmp_path: Path) -> None:
    code = (
        "import sys; from dali_asr.cli.console import counting, say\n"
        "with counting() as report:\n    report('stage', 1, 2); say('result'); report('stage', 2, 2)"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    main, terminal = os.openpty()
    command = [sys.executable, str(script)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=terminal, check=True, env=os.environ | {"TERM": "xterm"}
    )
    os.close(terminal)
    shown = os.read(main, 100_000).decode()
    os.close(main)
    assert done.stdout == b"result\n"
    assert "stage" in shown
    assert "result" not in shown


@pytest.mark.parametrize(
    ("columns", "details"),
    [
        (40, "  340/31440"),
        (60, "  340/31440  loss 2.345"),
        (80, "  340/31440  loss 2.345  accuracy 45.1%"),
        (120, "  340/31440  loss 2.345  accuracy 45.1%  1,123,456 frames/s"),
    ],
)
def test_a_narrow_bar_keeps_the_steps_whole_and_leaves_out_the_last_details(
    columns: int, details: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from dali_asr.cli import console

    terminal = Console(file=io.StringIO(), force_terminal=True, width=columns, color_system=None)
    monkeypatch.setattr(console, "stdout", terminal)

    def drawn(description: str, total: int | None, shown: str) -> str:
        bar = console.progress_bar()
        bar.add_task(description, total=total, completed=340, shown=shown)
        with terminal.capture() as captured:
            terminal.print(bar.get_renderable())
        (line,) = captured.get().splitlines()
        assert len(line) <= columns - len("^C^C")
        return line.rstrip()

    line = drawn("epoch 12/40", 31440, "loss 2.345  accuracy 45.1%  1,123,456 frames/s")
    assert re.fullmatch(rf"epoch 12/40 [╸╺ ]{{10,}} {re.escape(details)}", line), line
    assert re.fullmatch(r"loading ━+", drawn("loading", None, "")), "without count and time"


@pytest.mark.parametrize("columns", [80, 120])
def test_lines_and_warnings_leave_no_piece_of_the_bar_on_a_terminal(columns: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time; from dali_asr.cli.console import progress_bar, say, warn\n"
        "with progress_bar() as bar:\n"
        "    task = bar.add_task('training', total=9, shown='')\n"
        "    for at in range(9):\n"
        "        bar.update(task, completed=at, shown='loss ' + '1' * at); time.sleep(0.03); bar.refresh()\n"
        "        say(f'epoch {at}') if at % 2 else warn('w' * (columns // 2))\n".replace("columns", str(columns))
    )
    main, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    with subprocess.Popen([sys.executable, str(script)], stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        screen = pyte.Screen(columns, 40)
        stream, strikes = pyte.ByteStream(screen), 0
        with suppress(OSError):  # the other end is closed
            while written := os.read(main, 100_000):
                stream.feed(written)
                if strikes < 2 and re.search(rb"[0-4]/9", written):
                    os.write(main, b"\x03")  # Ctrl-C, shown as ^C; nobody is interrupted
                    strikes += 1  # more at once, as on a busy machine, would not fit beside the bar
    os.close(main)
    assert process.returncode == 0
    warning = "warning: " + "w" * (columns // 2)
    assert [line.rstrip() for line in screen.display if line.strip()] == [
        f"epoch {at}" if at % 2 else warning for at in range(9)
    ]


def shown_on_a_terminal(text: str, columns: int, tmp_path: Path) -> list[str]:
    """Return the lines of a warning on a terminal."""
    script = tmp_path / "script.py"
    script.write_text(f"from dali_asr.cli.console import warn; warn({text!r})")
    main, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    subprocess.run([sys.executable, str(script)], stderr=terminal, env=environment, check=True)
    os.close(terminal)
    shown = os.read(main, 100_000).decode()
    os.close(main)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in shown.splitlines()]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_long_warning_is_wrapped_between_words(columns: int, tmp_path: Path) -> None:
    path = "/" + "long-folder/" * 12
    lines = shown_on_a_terminal("some words " * 12 + f"{path} more words", columns, tmp_path)
    assert path in lines
    assert all(len(line) <= columns for line in lines if line != path)
    assert " ".join(lines).split() == ["warning:", *("some words " * 12).split(), path, "more", "words"]


def test_a_command_is_not_broken_so_that_it_can_be_copied(tmp_path: Path) -> None:
    command = f"dali-asr train --resume 'my runs/{'long-name-' * 3}' --set training.epochs=3"
    message = f"interrupted at step 12 of 330; the checkpoint is saved, continue with: {command}"
    *before, last = shown_on_a_terminal(message, 80, tmp_path)
    assert last == command
    assert " ".join(before) == f"warning: {message.removesuffix(command)}".strip()


def test_lists_of_mistakes_keep_their_indent(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from dali_asr.cli import console

    text = io.StringIO()
    monkeypatch.setattr(console, "stderr", Console(file=text, force_terminal=True, width=40, color_system=None))
    console.complain("a.yaml: 1 mistake\n  model.hidden: received 512; expected a list such as [512, 512]")
    first, *lines = text.getvalue().splitlines()
    assert first == "a.yaml: 1 mistake"
    assert [len(line) - len(line.lstrip()) for line in lines] == [2, 4]


def test_recipes_and_settings_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "course-mine.yaml").touch()
    assert complete_recipe("course-") == ["course-best", "course-full", "course-tiny", "course-mine.yaml"]
    assert complete_setting("loader.masking.t") == ["loader.masking.time.count=", "loader.masking.time.width="]
    assert "training.optimizer.learning_rate=" in complete_setting("training.")


def test_flags_are_shown_as_flags(run_cli: Run) -> None:
    for arguments in ([], ["config", "show"], ["predict"], ["data", "pack"]):
        assert "<bool>" not in run_cli(*arguments, "--help").output


def test_a_wrong_choice_is_named_without_the_words_of_a_library(run_cli: Callable[..., Any]) -> None:
    done = run_cli("predict", "run", "demo", "--format", "csv")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: predict: --format: 'csv' is not one of 'kaggle', ")


def test_training_goes_on_when_nobody_reads_its_output(fork_server: ForkServer, tmp_path: Path) -> None:
    """As in `dali-asr train | head -1`."""
    read, write = os.pipe()
    os.close(read)
    options = ["loader.device=cpu", "loader.subset=9", "training.max_steps=3", "model.hidden=[8]"]
    overrides = [part for option in options for part in ("--set", option)]
    done = subprocess.run(
        [fork_server.dali_asr, "train", "--run-folder", tmp_path / "run", *overrides],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "run/checkpoints/epoch-0000-step-00000003").is_dir()


@pytest.mark.parametrize("arguments", [["data", "info", "demo"], ["config", "schema"], ["--version"]])
def test_output_that_cannot_be_written_is_one_warning_and_an_exit_code(
    arguments: list[str], fork_server: ForkServer
) -> None:
    command = [fork_server.dali_asr, *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "warning: standard output: no space left on device; what follows is not printed\n"


def test_texts_are_printed_as_they_are(run_cli: Run, tmp_path: Path) -> None:
    result = run_cli("config", "copy", "demo", tmp_path / ":fire: [red].yaml")
    assert f"Copied to {tmp_path}/:fire: [red].yaml." in result.stdout


@pytest.mark.parametrize("module", ["torch", "nvidia.dali"])
def test_doctor_names_a_missing_package(module: str) -> None:
    """In a process of its own, in which nothing is imported yet."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; from dali_asr.cli import main; sys.argv = ['', 'doctor']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"Not ready: {module} cannot be imported" in done.stdout
    assert "pip install '" in done.stdout
    assert "Traceback" not in done.stderr


def test_unexpected_errors_are_one_line(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(Corpus, "open", breaks)
    result = run_cli("data", "info", "demo")
    assert result.exit_code == 1
    assert result.output == (
        "error: unexpected RuntimeError: first second; please report it with the output of the command with --debug\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "nothing"], 2, "error: nothing: no such file or recipe"),
        (["train", "--set", "loader.batch_size=0"], 2, "loader.batch_size: received 0"),
        (["train", "--set", "data.root=/nowhere"], 1, "error: data.root: /nowhere: no such folder; set it"),
        (["train", "--set", "loader.device=cuda:99"], 1, "error: device cuda:99"),
        (
            ["predict", "demo.wav"],
            2,
            "error: predict: the model is missing before demo.wav; name it first, as in dali-asr predict english-small "
            "demo.wav\n",
        ),
        (["predict", "/nowhere", "demo"], 1, "error: /nowhere: no such folder; give the folder of a run"),
        (["data", "pack", "/nowhere", "/nowhere-either"], 1, "error: /nowhere: no such folder"),
        (["data", "info", "/nowhere"], 1, "error: /nowhere: no such folder"),
        (["bench", "loader", "nothing"], 2, "error: nothing: no such file or recipe"),
        (["config", "copy", "demo", "/etc/passwd/x.yaml"], 1, "is not a writable folder"),
        (["trian"], 2, "error: trian: no such command; did you mean train?\n"),
        (["zzz"], 2, "error: zzz: no such command; see dali-asr --help\n"),
        (["data", "inf"], 2, "error: data: inf: no such command; did you mean info?\n"),
        (["train", "--epochs", "3"], 2, "error: --epochs: no such option of train; write --set training.epochs=3\n"),
        (["train", "--batch-size=64", "demo"], 2, "write --set loader.batch_size=64\n"),
        (["train", "--lr", "--set", "a.b=1"], 2, "write --set training.optimizer.learning_rate=VALUE\n"),
        (["train", "--hidden", "[8, 8]"], 2, "write --set 'model.hidden=[8, 8]'\n"),
        (["train", "--dtype", "float16"], 2, "write --set data.dtype=float16 or --set loader.dtype=float16\n"),
        (["train", "--momentum", "0.9"], 2, "write --set training.optimizer.betas=VALUE\n"),
        (["train", "--set", "data.root="], 2, "data.root: received nothing; "),
        (["pack", "a", "b"], 2, "error: pack: no such command; did you mean dali-asr data pack?\n"),
        (["loader"], 2, "error: loader: no such command; did you mean dali-asr bench loader?\n"),
        (["train", "--nothing"], 2, "error: train: --nothing: no such option; see dali-asr train --help\n"),
        (["--nothing"], 2, "error: --nothing: no such option; see dali-asr --help\n"),
        (["predict", "--devic", "cpu"], 2, "error: predict: --devic: no such option; did you mean --device?\n"),
        (["train", "--set"], 2, "error: option '--set' requires an argument\n"),
        (["train", "--set", "training.epochs", "3"], 2, "stands apart; write --set training.epochs=3\n"),
        (["train", "demo", "--set", "model.hidden", "[8, 8]"], 2, "write --set 'model.hidden=[8, 8]'\n"),
        (["bench", "loader", "--set", "loader.context", "2"], 2, "write --set loader.context=2\n"),
        (["train", "demo", "x.yaml", "--set", "run.name=a"], 2, "error: train: unexpected argument x.yaml; usage:"),
        (["train", "--set", "training.epochs", "demo"], 2, "--set training.epochs: not a setting; write section"),
        (["data", "info"], 2, "error: data info: CORPUS is missing; usage: dali-asr data info CORPUS\n"),
        (["predict"], 2, "error: predict: RUN is missing; usage: dali-asr predict RUN [SOURCE...]\n"),
        (
            ["align", "a", "b", "c"],
            2,
            "error: align: --output is missing; usage: dali-asr align RUN RECORDINGS TRANSCRIPTS --output OUTPUT\n",
        ),
        (
            ["evaluate", "english-small", "--decode", "median:4"],
            2,
            "error: decode 'median:4'; expected none, viterbi, or",
        ),
        (
            ["predict", "english-small", "demo.wav", "--decode", "best"],
            2,
            "error: decode 'best'; expected none, viterbi, or",
        ),
        (
            ["predict", "english-small", "demo.wav", "--format", "ctm", "-o", "one.json"],
            2,
            "error: one.json: the format is ctm, and .json the suffix of json; name a .ctm file, or take --format "
            "json\n",
        ),
        (
            ["predict", "english-small", "demo.wav", "--format", "textgrid", "-o", "one.txt"],
            2,
            "and .txt the suffix of audacity; name a .TextGrid file or a folder, or take --format audacity\n",
        ),
        (["audit", "a", "b"], 2, "error: audit: unexpected argument b; usage: dali-asr audit CORPUS\n"),
        (["audit", "english-small", "demo"], 2, "error: english-small: is a run, and audit takes a corpus alone, "),
        (["audit", "english-small"], 2, "on which it trains models of its own; write dali-asr audit CORPUS\n"),
        (["bench", "loader", "--json", "/etc/passwd/x.json"], 1, "is not a writable folder"),
        (["bench", "loader", "--frames", "10000", "--batch-size", "6000"], 2, "10000 frames are too few for batches"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(run_cli: Run, arguments: list[str], code: int, message: str) -> None:
    result = run_cli(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Usage:" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["train", "profile"])
def test_a_run_in_the_place_of_a_recipe_is_told_its_configuration(run_cli: Run, command: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    result = run_cli(command, tmp_path)
    config = tmp_path / "config.yaml"
    assert result.output == (
        f"error: {tmp_path}: is the folder of a run; name its configuration, {config}, or continue it by dali-asr "
        f"train --resume {tmp_path}\n"
    )


def test_debug_shows_the_traceback(run_cli: Run) -> None:
    for arguments in (["--debug", "data", "info"], ["data", "--debug", "info"], ["data", "info", "--debug"]):
        result = run_cli(*arguments, "/nowhere")
        assert type(result.exception).__name__ == "DataError"
    assert type(run_cli("data", "info", "--", "--debug").exception).__name__ == "SystemExit", "the name of a folder"


def test_piped_output_has_no_progress_and_no_colors(fork_server: ForkServer) -> None:
    command = [fork_server.dali_asr, "data", "info", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_a_warning_of_the_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dali_asr.errors import DaliAsrWarning

    app = import_module("dali_asr.cli.app")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(app, "app", lambda: warnings.warn("loader: something is slower", DaliAsrWarning, stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        app.main()
    assert capsys.readouterr().err == "warning: loader: something is slower\n"
