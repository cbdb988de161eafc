"""`dali-asr prepare`: the commands of the README, what is printed, and exit codes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import dali_asr
from dali_asr.corpus.packed import Manifest

README = Path(dali_asr.__file__).parent / "audio" / "alignments" / "README.md"
QUICK = ["model.hidden=[4]", "model.preset=null", "training.max_steps=2", "loader.batch_size=8", "loader.context=1"]


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(len(name)).normal(0, 0.1, 8_000).astype(np.float32), 16_000)
        path.with_suffix(".phn").write_text("0 2000 SIL\n2000 5000 AH\n5000 8000 T\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with the recordings that the README speaks of."""
    make(tmp_path / "recordings", "ann_1", "bob_1", "bob_2", "cid_1")
    names = ("84/1/84-1-0000", "85/2/85-2-0000", "86/3/86-3-0000")
    make(tmp_path / "LibriSpeech" / "dev-clean", *names)
    for name in names:
        (tmp_path / "LibriSpeech" / "dev-clean" / f"{name}.phn").unlink()
        grid = tmp_path / "librispeech-textgrids" / f"{name}.TextGrid"
        grid.parent.mkdir(parents=True)
        grid.write_text('"ooTextFile" "TextGrid" 0 0.5 <exists> 1 "IntervalTier" "phones" 0 0.5 1 0 0.5 "AH1"')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_readme_run(folder: Path, run_cli: Callable[..., Any]) -> None:
    """The corpus trains with nothing said about it but its place."""
    text = README.read_text(encoding="utf-8")
    found = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(found) == 8
    for command in found:
        words = shlex.split(command)[1:]
        more = [part for value in QUICK for part in ("--set", value)] if words[0] == "train" else []
        done = run_cli(*words, *more)
        assert done.exit_code == 0, done.output


def test_what_is_printed(folder: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli("prepare", "recordings", "corpus", "--seed", "3", "--preset", "kaldi")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "layout: recordings with alignments, .phn files of TIMIT's form (4)",
        "speakers: by the prefix of the file name",
        "partitions: 0.8 train, 0.1 dev, 0.1 test, split by speaker, seed 3",
        "labels: 42 symbols, folded by arpabet",
    ]
    assert [line.split()[0] for line in lines[4:8]] == ["partition", "train", "dev", "test"]
    assert lines[8] == "Packed into corpus; next: dali-asr train --set data.root=corpus"
    manifest = Manifest.read(folder / "corpus")
    assert manifest.features is not None
    assert manifest.features["preset"] == "kaldi"
    assert manifest.recordings_folder == folder / "recordings"
    assert sorted(r for p in manifest.partitions for r in p.recordings) == [
        f"{n}.flac" for n in ("ann_1", "bob_1", "bob_2", "cid_1")
    ]


def test_recordings_without_alignments_are_one_error(folder: Path, run_cli: Callable[..., Any]) -> None:
    for path in (folder / "recordings").glob("*.phn"):
        path.unlink()
    assert run_cli("prepare", "recordings", "corpus").stderr == (
        "error: recordings: recordings have no alignments there; name their folder (--alignments FOLDER), or make them "
        "with dali-asr align\n"
    )


def test_exit_codes(folder: Path, run_cli: Callable[..., Any]) -> None:
    (folder / "recordings" / "bob_2.phn").unlink()
    done = run_cli("prepare", "recordings", "corpus")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "error: recordings/bob_2.flac: has no alignment; align it, or remove it",
        "error: recordings: 1 fault, nothing is written; repair the files, or leave these out (--keep-going)",
    ]
    done = run_cli("prepare", "recordings", "corpus", "--keep-going", "--tier", "phones")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[1:] == [
        "warning: tier 'phones': only TextGrids have tiers; .phn files of TIMIT's form (3) are read whole",
        "warning: 1 file was left out, for the reasons above",
    ]
    assert done.stdout.splitlines()[-2:] == [
        "Packed into corpus; next, from the weights of english-small, which knows these symbols: dali-asr train --init "
        "english-small --set data.root=corpus --set loader.batch_size=12 --set training.schedule.warmup_steps=1",
        "Or from random weights: dali-asr train --set data.root=corpus",
    ]
    assert Manifest.read(folder / "corpus").partitions
    assert run_cli("prepare", "recordings", "corpus").exit_code == 2
    for command in ("prepare", "features"):
        done = run_cli(command, "recordings", "more.WAV")
        assert done.exit_code == 2
        assert done.stderr.startswith("error: more.WAV: is named as a recording, and a corpus is a folder; name one")
    assert run_cli("prepare", "recordings", "other", "--split", "1,1,1").exit_code == 2
