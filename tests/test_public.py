"""The library's surface, and the direction in which its parts import each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dali_asr

PACKAGE = Path(dali_asr.__file__).parent

# What each room may import besides itself: the stages before it, and never a later one.
BASE = {"errors", "files", "signals"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "environment": set(),
    "signals": set(),
    "files": {"errors"},
    "cache": BASE,
    "device": {"errors"},
    "inventory": BASE,
    "model": BASE,
    "segments": {"errors"},
    "pretrained": set(),
    "plan": BASE,
    "config": BASE | {"inventory", "plan", "audio"},
    "fetching": BASE,
    "audio": BASE | {"inventory", "segments", "fetching", "corpus"},
    "corpus": BASE | {"inventory", "cache", "fetching", "segments"},
    "demo": BASE | {"inventory", "audio", "corpus"},
    "loading": BASE | {"device", "plan", "corpus"},
    "build": BASE | {"device", "inventory", "model", "plan", "config", "corpus", "demo", "loading"},
    "runs": BASE
    | {"environment", "device", "inventory", "model", "pretrained", "config", "audio", "corpus", "loading", "build"}
    | {"segments"},
    "training": BASE
    | {"audio", "device", "inventory", "model", "plan", "config", "corpus", "loading", "build", "runs"},
    "sweeps": BASE | {"device", "config", "corpus", "loading", "build", "runs", "training"},
    "inference": BASE
    | {"audio", "device", "inventory", "model", "segments", "plan", "config", "corpus", "loading", "build", "runs"},
    "alignment": BASE
    | {"device", "inventory", "segments", "config", "audio", "corpus", "build", "runs", "training", "inference"},
    "reports": BASE
    | {"audio", "environment", "device", "fetching", "inventory", "model", "segments", "config", "corpus", "loading"}
    | {"build", "pretrained", "runs", "training", "inference"},
    "export": BASE | {"environment", "model", "pretrained", "config", "corpus", "runs", "inference"},
    "bench": BASE
    | {"environment", "device", "inventory", "model", "plan", "config", "corpus", "loading", "build", "training"},
}


def imported(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)  # perhaps modules
            if node.module == "dali_asr":
                names.update(f"dali_asr.{dali_asr._HOME.get(alias.name, alias.name)}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def files_of(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_stage_imports_only_the_stages_before_it(room: str) -> None:
    for path in files_of(room):
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("dali_asr.")}
        assert rooms <= ROOMS[room] | {room}, path


def test_every_room_is_known() -> None:
    found = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert found - {"__init__", "__main__", "cli"} == set(ROOMS)


def test_dali_is_imported_in_loading_and_audio_alone() -> None:
    users = {p.relative_to(PACKAGE).parts[0] for p in PACKAGE.rglob("*.py") if any("nvidia" in n for n in imported(p))}
    assert users <= {"loading", "audio"}


def module_name(path: Path) -> str:
    parts = ("dali_asr", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


def test_no_module_imports_itself_through_others() -> None:
    """No circle, imports for type checking included; the top-level package imports lazily."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    del modules["dali_asr"]
    graph = {}
    for name, path in modules.items():
        found = {n for n in imported(path) if n in modules and n != name}
        # `from package import module` imports the module, not what the package exports.
        graph[name] = {n for n in found if not any(other.startswith(f"{n}.") for other in found) or n in name}
        graph[name] -= {name.rpartition(".")[0]}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize(
    "room", ["fetching", "corpus", "cache", "plan", "files", "segments", "signals", "inventory", "errors"]
)
def test_the_corpus_needs_neither_torch_nor_dali(room: str) -> None:
    """But for the tensors of one layout, whose reader imports torch when it is called."""
    for path in files_of(room):
        heavy = {name.split(".")[0] for name in imported(path)} & {"torch", "nvidia"}
        assert heavy <= ({"torch"} if path.name == "libriphone.py" else set()), path
        at_import = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import)]
        assert "torch" not in {alias.name for node in at_import for alias in node.names}, path


def test_public_names_are_the_documented_ones() -> None:
    for name in dali_asr.__all__:
        assert getattr(dali_asr, name).__doc__, name
    assert set(dali_asr._HOME) == set(dali_asr.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = dali_asr.nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'nvidia.dali', 'pydantic'}"
    code = f"import sys, dali_asr, dali_asr.cli; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_test_modules_do_not_import_each_other() -> None:
    """What they share is in modules that are not collected."""
    for path in Path(__file__).parent.rglob("test_*.py"):
        assert not [name for name in imported(path) if name.startswith("tests.") and ".test_" in name], path
