"""The wheel contains recipes and demo corpus, and trains when it is installed outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dali_asr.config import recipe_names

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_contains_recipes_and_the_demo_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"dali_asr/configs/{name}.yaml" for name in recipe_names()} <= set(names)
    assert "dali_asr/demo/corpus/frames.npy" in names
    assert {"dali_asr/reports/templates/base.html", "dali_asr/reports/templates/audit.html"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks")) or "__pycache__" in name]
    assert sum(zipfile.ZipFile(wheel).getinfo(n).file_size for n in names if "demo/corpus" in n) < 5e6


def test_the_installed_wheel_trains_on_the_demo(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import dali_asr; print(dali_asr.__file__)").startswith(str(site))
    listed = [line.split()[0] for line in run("-m", "dali_asr", "config", "list").splitlines()]
    assert listed == recipe_names()
    small = ("--set", "training.max_steps=5", "--set", "model.hidden=[8]")
    printed = run("-m", "dali_asr", "train", *small, "--run-folder", "run")
    assert "epoch 1  dev" in printed
    assert list((tmp_path / "run/checkpoints").glob("*/model.safetensors"))
