"""Fixtures that all tests share."""

from __future__ import annotations

import faulthandler
import functools
import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.makers import make_course

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.figure import Figure

    from tests.processes import ForkServer
    from tests.training_runs import Forker


REAL_SPEECH = Path(__file__).parents[2] / "shared" / "data" / "so762-mini"

SLOW = {
    "test_train.py",
    "test_readme.py",
    "test_distributed.py",
    "test_resume.py",
    "test_lifecycle.py",
    "test_kernel.py",
}

os.environ["COLUMNS"] = "200"  # so that messages are not broken into lines
os.environ["OMP_NUM_THREADS"] = "1"  # each worker has a core, and the same bits as the processes that it starts
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # otherwise torch starts processes that compile


# A busy machine is no fault of the code.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def pytest_configure() -> None:
    """Let Ctrl-C end the programs that tests start: shells ignore it in background jobs, and so would all programs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files, so that both workers end at about the same time."""
    items.sort(key=lambda item: item.path.name not in SLOW)


def pytest_collection_finish() -> None:
    """Make later collections of garbage quick: they pass over what is imported."""
    gc.collect()
    gc.freeze()


_command_of = functools.cache(get_command)  # which takes longer than many of the commands


@pytest.fixture
def small_roofs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the rates that benchmarks compare with on little data."""
    from dali_asr.bench import measure

    monkeypatch.setitem(measure._MATRIX_SIZE, "cpu", 256)
    monkeypatch.setitem(measure._COPIED_BYTES, "cpu", 1 << 20)


def pytest_unconfigure() -> None:
    """Limit what happens after the last test: garbage is collected and pipelines are shut down."""
    gc.unfreeze()  # so that nothing is left when the interpreter exits
    faulthandler.dump_traceback_later(120, exit=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("DALI_ASR_CACHE", raising=False)


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Return a server that starts programs in little time."""
    from tests.processes import ForkServer

    server = ForkServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def forker(fork_server: ForkServer) -> Forker:
    """Return a starter of training runs."""
    from tests.training_runs import Forker  # which imports torch

    return Forker(fork_server)


@pytest.fixture(scope="session", autouse=True)
def no_curves() -> Iterator[None]:
    """Leave out the plots of runs, which take longer than their training, unless a test asks for `curves_of_runs`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dali_asr.runs.folder.draw_curves", lambda *_: None)
        yield


@pytest.fixture
def curves_of_runs() -> Iterator[None]:
    """Plot the curves of runs."""
    from dali_asr.runs.curves import draw_curves

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dali_asr.runs.folder.draw_curves", draw_curves)
        yield


@pytest.fixture
def real_speech() -> Path:
    """Return the folder of real recorded speech."""
    if not REAL_SPEECH.is_dir():
        pytest.skip(f"real speech is not at {REAL_SPEECH}; the tests that need it cannot run")
    return REAL_SPEECH


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Return a small course folder: partitions train and dev, labelled, and test, unlabelled."""
    root = tmp_path / "course"
    make_course(root, {"train": [7, 1, 30, 12], "dev": [9, 4], "test": [5, 6]}, unlabelled=("test",))
    return root


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs the command line in this process."""
    from dali_asr.cli import app

    monkeypatch.setattr("typer.testing._get_command", _command_of)
    runner = CliRunner()

    def run(*arguments: object, stdin: str | None = None) -> Any:
        return runner.invoke(app, [str(a) for a in arguments], input=stdin)

    return run


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig

    def saving(figure: Figure, *arguments: Any, **named: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", saving)
    return figures
