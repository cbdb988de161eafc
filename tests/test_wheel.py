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
    templates = (ROOT / "dali_asr/reports/templates").iterdir()
    assert {f"dali_asr/reports/templates/{path.name}" for path in templates} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks")) or "__pycache__" in name]
    assert sum(zipfile.ZipFile(wheel).getinfo(n).file_size for n in names if "demo/corpus" in n) < 5e6


def test_the_installed_wheel_trains_on_the_demo(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # which is all that pip does with a wheel of Python files
    code = (
        "import dali_asr, dali_asr.config, sys\n"
        "from dali_asr.cli import main\n"
        "print(dali_asr.__file__, *dali_asr.config.recipe_names())\n"
        "main()"
    )
    small = ("--set", "training.max_steps=5", "--set", "model.hidden=[8]")
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *small, "--run-folder", "run"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    place, *recipes = done.stdout.splitlines()[0].split()
    assert place.startswith(str(site))
    assert recipes == recipe_names()
    assert "epoch 1 (cut short)  dev" in done.stdout
    assert list((tmp_path / "run/checkpoints").glob("*/model.safetensors"))
