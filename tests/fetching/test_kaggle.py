"""Kaggle's client with a fake home, pointed at a server on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dali_asr.errors import DataError, UsageError
from dali_asr.fetching.fetch import fetch
from dali_asr.fetching.transfer import Patience
from tests.fetching import server as servers
from tests.fetching.archives import archive, names_beside, tree
from tests.fetching.server import HURRIED, FileServer, serving

FILES = {"train/mfcc/a.npy": os.urandom(120_000), "sample_submission.csv": b"id,label\n"}
KEY = "Basic " + base64.b64encode(b"someone:right").decode()


class Api(BaseHTTPRequestHandler):
    """Kaggle's API: redirects to where an archive is stored, if the key is right and the rules are accepted."""

    stored, silent = "", False

    def do_POST(self) -> None:
        if self.silent:
            time.sleep(1)
            return
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        statuses = {"with-rules": 403, "unknown": 404, "hw1p2": 302}
        status = statuses[asked["competitionName"]] if self.headers["Authorization"] == KEY else 401
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.stored)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stored() -> Iterator[FileServer]:
    with serving({"/signed.zip": archive(FILES, "zip")}) as running:
        yield running


@pytest.fixture(autouse=True)
def home(stored: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a home with a right key; the client asks the server above."""
    from kagglesdk import kaggle_env

    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: "kagglehub")  # which reads the source of the stack
    home = tmp_path / "home"
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle/kaggle.json").write_text('{"username": "someone", "key": "right"}')
    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / ".kaggle"))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    Api.stored = stored.url("/signed.zip")
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as api:
        endpoint = f"http://127.0.0.1:{api.server_port}"
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, endpoint)
        Thread(target=api.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield home
        api.shutdown()


def refused(competition: str, tmp_path: Path) -> str:
    with pytest.raises(DataError) as error:
        fetch(f"kaggle:{competition}", tmp_path / "data/out", patience=HURRIED)
    assert names_beside(tmp_path / "data/out") == set()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_data_of_a_competition_becomes_a_folder(stored: FileServer, tmp_path: Path) -> None:
    """Across a broken connection: the archive is asked for again, and its rest at the new address."""
    stored.mischief += [servers.as_usual, servers.breaks(50_000)]
    done = fetch("kaggle:hw1p2", tmp_path / "out", patience=HURRIED)
    assert tree(tmp_path / "out") == FILES
    assert done.record.source == "kaggle:hw1p2"
    assert [asked for _, asked in stored.requests] == [None, None, None, "bytes=50000-"]  # Kaggle's client follows too


def test_no_key(home: Path, tmp_path: Path) -> None:
    (home / ".kaggle/kaggle.json").unlink()
    message = refused("hw1p2", tmp_path)
    assert "no Kaggle key found; make one at https://www.kaggle.com/settings/api and save it as" in message
    (home / ".kaggle/kaggle.json").write_text("{")
    assert "Invalid Kaggle credentials file" in refused("hw1p2", tmp_path)


def test_a_wrong_key(home: Path, tmp_path: Path) -> None:
    (home / ".kaggle/kaggle.json").write_text('{"username": "someone", "key": "wrong"}')
    assert "Kaggle does not accept the key (HTTP 401); make one at https://www" in refused("hw1p2", tmp_path)


def test_rules_that_are_not_accepted(tmp_path: Path) -> None:
    assert refused("with-rules", tmp_path).endswith(
        "accept them at https://www.kaggle.com/competitions/with-rules/rules and start again"
    )


def test_an_unknown_competition(tmp_path: Path) -> None:
    assert "Kaggle has no such competition (HTTP 404)" in refused("unknown", tmp_path)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, "http://no-such-host.invalid")
    message = refused("hw1p2", tmp_path)
    assert "kaggle:hw1p2: the host of the Kaggle API is unknown" in message
    assert message.endswith("or fetch it on a machine that has one and give its path here")


def test_a_silent_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Api, "silent", True)
    with pytest.raises(
        DataError, match=r"no answer of the Kaggle API for 0\.1 seconds; check the link and the network"
    ):
        fetch("kaggle:hw1p2", tmp_path / "out", patience=Patience(attempts=2, wait=0, timeout=0.1))


def test_an_archive_that_arrives_damaged_is_not_kept(stored: FileServer, tmp_path: Path) -> None:
    """Its MD5 is announced by Google Cloud Storage, where Kaggle keeps it."""
    stored.headers["x-goog-hash"] = f"md5={base64.b64encode(hashlib.md5(b'other').digest()).decode()}"
    assert "arrived damaged (its MD5 differs from the server's); fetch it again" in refused("hw1p2", tmp_path)


def test_kagglehub_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub.clients", None)
    with pytest.raises(UsageError, match=r"needs kagglehub; pip install 'dali-asr\[kaggle\]'"):
        fetch("kaggle:hw1p2", tmp_path / "out")
