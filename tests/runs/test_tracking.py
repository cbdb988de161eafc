"""TensorBoard and W&B get the metrics, and their failures never end a run."""

from __future__ import annotations

import builtins
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dali_asr.config import Config
from dali_asr.runs.tracking import _has_key, open_trackers
from dali_asr.training import train
from tests.training_runs import SMALL, Warnings

SECRET = "0123456789abcdef0123456789abcdef01234567"


def tracked(run: Path, *trackers: str, resume: str | None = None, epochs: int = 1) -> tuple[Path, list[str]]:
    heard = Warnings()
    options = [*SMALL, f"training.epochs={epochs}", f"tracking=[{','.join(trackers)}]", "training.log_every=5"]
    result = train(Config.load("demo", options), run=run, resume=resume, reporter=heard)
    return result.run, heard.messages


def test_tensorboard_gets_the_metrics(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, warnings = tracked(tmp_path / "run", "tensorboard")
    tracked(run, "tensorboard", resume="auto", epochs=2)
    assert warnings == []
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    found = events.Scalars("step/loss")
    assert [event.step for event in found] == [line["step"] for line in steps]
    assert [event.value for event in found] == pytest.approx([line["loss"] for line in steps])
    assert {"dev/accuracy", "train/loss", "step/learning_rate"} <= set(events.Tags()["scalars"])


@pytest.fixture
def fresh_wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make W&B read the environment again."""
    wandb = pytest.importorskip("wandb")
    names = ("API_KEY", "MODE", "BASE_URL", "PROJECT", "ENTITY", "IDENTITY_TOKEN_FILE")
    for name in (*(f"WANDB_{name}" for name in names), "NETRC"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_without_a_key_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run, warnings = tracked(tmp_path / "run", "wandb")
    assert len(warnings) == 1
    (recorded,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert warnings[0] == (
        "tracking: wandb found no key, neither of `wandb login` nor in the variable WANDB_API_KEY; its run is recorded "
        f"offline, upload it with: wandb sync {shlex.quote(str(recorded.parent))}"
    )


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_that_was_asked_to_be_offline_says_how_to_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, (warning,) = tracked(tmp_path / "a run", "wandb")
    assert warning.startswith(
        "tracking: WANDB_MODE is offline; its run is recorded offline, upload it with: wandb sync "
    )
    assert list(Path(shlex.split(warning)[-1]).glob("*.wandb"))
    assert Path(shlex.split(warning)[-1]).parent == run / "wandb"


@pytest.mark.usefixtures("fresh_wandb")
@pytest.mark.parametrize("place", ["home", "NETRC", "variable", "token"])
def test_wandb_uses_the_key_of_wandb_login(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's own writer of the file is the judge of its place and form."""
    import wandb

    write_netrc_auth = pytest.importorskip("wandb.sdk.lib.wbauth").write_netrc_auth
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = wandb.setup().settings
    assert not _has_key(settings)
    if place == "NETRC":
        monkeypatch.setenv("NETRC", str(tmp_path / "logins"))
    if place in ("home", "NETRC"):
        write_netrc_auth(host="https://wandb.example.org", api_key=SECRET)
        assert not _has_key(settings), "of another server"
        write_netrc_auth(host=settings.base_url, api_key=SECRET)
    else:
        monkeypatch.setenv({"variable": "WANDB_API_KEY", "token": "WANDB_IDENTITY_TOKEN_FILE"}[place], SECRET)
    assert _has_key(settings)


@pytest.mark.usefixtures("fresh_wandb")
def test_a_damaged_login_file_counts_as_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("NETRC", str(tmp_path / "logins"))
    (tmp_path / "logins").write_text("machine")
    assert not _has_key(wandb.setup().settings)
    (tmp_path / "logins").write_text(f"machine api.wandb.ai login user password {SECRET}\n")
    assert _has_key(wandb.setup().settings), "the key of W&B's former server"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, ("speech", "lab")), ({"WANDB_PROJECT": "mine", "WANDB_ENTITY": "me"}, ("mine", "me"))],
)
@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_gets_project_and_entity(
    variables: dict[str, str], expected: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    given: dict[str, Any] = {}

    def init(**arguments: Any) -> None:
        given.update(arguments)
        raise ValueError("enough")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = Config.load("demo", ["tracking=wandb", "wandb={project: speech, entity: lab}"])
    assert open_trackers(config, tmp_path, 0, lambda _: None) == []
    assert (given["project"], given["entity"]) == expected


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_that_cannot_reach_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is recorded offline, and no file of it contains the key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("dali_asr.runs.tracking._WAIT", 3)
    run, warnings = tracked(tmp_path / "run", "wandb")
    assert len(warnings) == 1
    assert "wandb cannot reach its server" in warnings[0]
    (recorded,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert warnings[0].endswith(f"its run is recorded offline, upload it with: wandb sync {recorded.parent}")
    assert not [path for path in run.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_package_gives_a_warning(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def refusing(module: str, *arguments: Any, **named: Any) -> Any:
        if module.startswith(name) or module == f"torch.utils.{name}":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return importing(module, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refusing)
    _, warnings = tracked(tmp_path / "run", name)
    assert len(warnings) == 1
    assert f"{name} is not installed; install it (pip install 'dali-asr[{name}]'), or remove it" in warnings[0]


def test_a_failing_tracker_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise ValueError("no\nspace")

    monkeypatch.setattr("dali_asr.runs.tracking._TensorBoard.__init__", lambda *_: None)
    monkeypatch.setattr("dali_asr.runs.tracking._TensorBoard.log", failing)
    run, warnings = tracked(tmp_path / "run", "tensorboard")
    assert warnings == ["tracking: tensorboard failed (ValueError: no space); training continues without it"]
    assert (run / "metrics.jsonl").read_text().count("\n") > 2
