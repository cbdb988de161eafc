"""Make the folder of a pretrained model from a run, and measure it.

    dali-asr prepare RECORDINGS corpus --preset course
    dali-asr train english-small --set data.root=corpus --run-folder runs/english-small
    python benchmarks/pretrained.py runs/english-small corpus --json benchmarks/results/english-small_MACHINE_DATE.json

Writes the best checkpoint of the run, with its matrices as float16 and without the state of training, and the run's
configuration into `dali_asr/pretrained/NAME`. Then evaluates both on the partitions dev and test of the corpus, which
shows what float16 costs. The model card beside the checkpoint, README.md, is written by hand.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from harness import parser, write
from safetensors.torch import load_file, save_file

from dali_asr import evaluate
from dali_asr.config import Config
from dali_asr.model import parameter_count
from dali_asr.pretrained import PRETRAINED
from dali_asr.runs.checkpoint import find_checkpoint, load_checkpoint
from dali_asr.runs.run_path import CONFIG

if TYPE_CHECKING:
    from dali_asr.inference.evaluate import Evaluation

WEIGHTS, SUMS = "model.safetensors", "SHA256SUMS"
KEPT = ("checkpoint.json", "segments.json")


def make(run: Path, folder: Path) -> None:
    """Write the best checkpoint of a run, and its configuration, into a folder."""
    source = find_checkpoint(run, "best")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    dest = folder / "checkpoints" / source.name
    dest.mkdir(parents=True)
    weights = load_file(source / WEIGHTS)
    save_file({name: one.half() if one.ndim > 1 else one for name, one in weights.items()}, dest / WEIGHTS)
    (dest / WEIGHTS).chmod(0o644)  # safetensors makes it private
    for name in KEPT:
        shutil.copy(source / name, dest / name)
    sums = [f"{hashlib.sha256((dest / name).read_bytes()).hexdigest()}  {name}\n" for name in (WEIGHTS, *KEPT)]
    (dest / SUMS).write_text("".join(sums))
    config = Config.load(run / CONFIG, ["data.root=corpus"])
    (folder / CONFIG).write_text(config.to_yaml(), encoding="utf-8")


def scores(evaluation: Evaluation) -> dict[str, Any]:
    """Return the scores of an evaluation, without those of each symbol."""
    values = evaluation.to_json()
    names = ("accuracy", "accuracy_without_silence", "top3_accuracy", "calibration_error", "decodings", "frames")
    return {name: values[name] for name in names}


def main() -> None:
    """Make the model and print its scores beside those of the run."""
    arguments = parser(__doc__)
    arguments.add_argument("run", type=Path, help="the run")
    arguments.add_argument("corpus", help="the packed corpus")
    arguments.add_argument("--name", default="english-small")
    arguments.add_argument("--folder", type=Path, default=PRETRAINED, help="where the model's folder is written")
    given = arguments.parse_args()
    folder = given.folder / given.name
    make(given.run, folder)
    results = {}
    for partition in ("dev", "test"):
        for kind, model in (("float32", given.run), ("float16", folder)):
            found = scores(evaluate(model, given.corpus, partition=partition, device="cpu"))
            results[f"{partition}, {kind}"] = found
            print(partition, kind, f"{found['accuracy']:.4f}, without silence {found['accuracy_without_silence']:.4f}")
            for one in found["decodings"]:
                within = one["boundaries"]
                print(" ", one["decode"], f"{one['accuracy']:.4f} {one['phoneme_error_rate']:.4f}", within)
    parameters = parameter_count(load_checkpoint(folder).description.build())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{parameters:,} parameters, {size:,} bytes")
    write(given.json, "pretrained", torch.device("cpu"), parameters=parameters, bytes=size, results=results)


if __name__ == "__main__":
    main()
