"""`dali-asr data submit`, with the real client of Kaggle and a server on loopback in Kaggle's place."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dali_asr.config import Config
from dali_asr.inventory import ARPABET_SYMBOLS
from dali_asr.runs.checkpoint import find_checkpoint
from tests.reports.kaggle_server import KEY, TOKEN, KaggleServer, serve

kaggle_env = pytest.importorskip("kagglesdk.kaggle_env", reason="the kaggle package is not installed")
Run = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home in which the client, imported anew, looks for its key."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "kaggle"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/.kaggle").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def kaggle(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """Yield a server in Kaggle's place, whose user has a key at home."""
    (home / ".kaggle/access_token").write_text(TOKEN)
    with serve() as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
        server.files["sample_submission.csv"] = sample(70)
        yield server


def sample(rows: int, *symbols: str) -> bytes:
    spelled = symbols or ("[SIL]", "AA", "AE", "AH", "AO")
    return "".join(["id,label\n", *(f"{at},{spelled[at % len(spelled)]}\n" for at in range(rows))]).encode()


def submission(path: Path, rows: int, *symbols: str) -> Path:
    path.write_bytes(sample(rows, *symbols))
    return path


def submit(run_cli: Run, run: Path, *options: object, competition: str = "speech") -> Any:
    return run_cli("data", "submit", run, "--competition", competition, "-m", "first try", *options)


def test_a_run_is_predicted_checked_and_sent(run_cli: Run, copy: Path, kaggle: KaggleServer) -> None:
    run, checkpoint = copy, find_checkpoint(copy, "best")
    corpus = Config.load(run / "config.yaml").data.root
    (run / "test.csv").write_text("another prediction")
    kaggle.files["sample_submission.csv"] = sample(
        70,
        *ARPABET_SYMBOLS,
    )
    done = submit(run_cli, run)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"Predicted test of {corpus} by {checkpoint.name}, frame by frame",
        "70 rows, with the ids and the label symbols of the sample submission",
        "Kaggle: Successfully submitted to Speech",
        "Scores: https://www.kaggle.com/competitions/speech/submissions",
    ]
    assert (run / "test.csv").read_text() == "another prediction"
    predicted = submission(run / "test.csv", 0)
    assert run_cli("predict", run, corpus, "-o", predicted, "--force").exit_code == 0
    assert kaggle.submitted == [("first try", predicted.read_bytes())]
    again = submit(run_cli, run, "--file", predicted, competition="https://www.kaggle.com/competitions/speech/overview")
    assert again.output.startswith(f"Taking {predicted}\n")
    assert kaggle.submitted[1] == kaggle.submitted[0]
    assert submit(run_cli, run, "--dry-run").output.startswith("Predicted ")
    assert len(kaggle.submitted) == 2


def test_a_key_in_kaggle_json_will_do(
    run_cli: Run, run: Path, home: Path, kaggle: KaggleServer, tmp_path: Path
) -> None:
    (home / ".kaggle/access_token").unlink()
    (home / ".kaggle/kaggle.json").write_text(json.dumps(dict(zip(("username", "key"), KEY, strict=True))))
    (home / ".kaggle/kaggle.json").chmod(0o644)  # of which the package warns on standard output
    done = submit(run_cli, run, "--file", submission(tmp_path / "s.csv", 70))
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Taking {tmp_path / 's.csv'}\n70 rows")
    assert len(kaggle.submitted) == 1


def test_without_a_key_the_places_for_one_are_named(run_cli: Run, run: Path, home: Path) -> None:
    refused = submit(run_cli, run)
    assert refused.exit_code == 1
    assert refused.output == (
        "error: Kaggle: found no valid key; make one at https://www.kaggle.com/settings/api and save it as "
        "~/.kaggle/access_token, or log in: kaggle auth login\n"
    )


def test_without_network_the_host_is_named(
    run_cli: Run, run: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", KEY[0])
    monkeypatch.setenv("KAGGLE_KEY", KEY[1])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for address, reason in (("http://nowhere.invalid", ""), (f"http://127.0.0.1:{port}", "Connection refused")):
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, address)
        refused = submit(run_cli, run, "--file", submission(tmp_path / "s.csv", 70))
        assert refused.exit_code == 1
        assert refused.output.startswith("error: api.kaggle.com: cannot be reached (")
        assert reason in refused.output
        assert refused.output.endswith(
            "; connect to the network, or upload the file later at https://www.kaggle.com/competitions/speech\n"
        )
        assert refused.output.count("\n") == 1


def wrong_key(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("~/.kaggle/access_token").expanduser().unlink()
    monkeypatch.setenv("KAGGLE_USERNAME", KEY[0])
    monkeypatch.setenv("KAGGLE_KEY", "wrong")


def wrong_token(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("~/.kaggle/access_token").expanduser().write_text("expired")


def rules_not_accepted(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.accepted = False


def daily_limit(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.left, kaggle.sent = 0, 5


def limit_said_late(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.failing = (400, "Your team has used its submission allowance (5) today")


def broken_upload(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.breaks_upload = True


def no_sample(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.files = {"train.zip": b""}


def too_busy(kaggle: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kaggle.failing = (429, "Too Many Requests")


REFUSED = [
    (wrong_key, "competition speech: Kaggle refuses the key; make a new one at https://www.kaggle.com/settings/api"),
    (wrong_token, "Kaggle: found no valid key; make one at https://www.kaggle.com/settings/api"),
    (rules_not_accepted, "and accept its rules at https://www.kaggle.com/competitions/speech/rules"),
    (daily_limit, "the limit of submissions is reached, 5 were sent today; the next day begins at 00:00 UTC"),
    (limit_said_late, "Kaggle answers 400 (Your team has used its submission allowance (5) today); see https://"),
    (broken_upload, "the upload failed (no reason was given); try again, or upload it at https://"),
    (no_sample, "speech/data: no sample_submission.csv among its files; download the sample and name its file"),
    (too_busy, "competition speech: Kaggle receives too many requests; wait a minute and try again"),
]


@pytest.mark.parametrize(("arrange", "message"), REFUSED, ids=[arrange.__name__ for arrange, _ in REFUSED])
def test_what_kaggle_refuses_is_one_line(
    arrange: Callable[..., None],
    message: str,
    run_cli: Run,
    run: Path,
    kaggle: KaggleServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrange(kaggle, monkeypatch)
    refused = submit(run_cli, run, "--file", submission(tmp_path / "s.csv", 70))
    assert refused.exit_code == 1, refused.output
    *said, error = refused.output.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert said[1:] in ([], ["70 rows, with the ids and the label symbols of the sample submission"])
    assert not kaggle.submitted


def test_an_unknown_competition_is_a_usage_error(run_cli: Run, run: Path, kaggle: KaggleServer) -> None:
    refused = submit(run_cli, run, competition="speach")
    assert refused.exit_code == 2
    assert "competition speach: Kaggle knows none of this name; give the NAME of https://" in refused.output
    assert submit(run_cli, run, competition="a/b").exit_code == 2


def test_a_sample_is_found_among_many_files_and_in_a_zip(
    run_cli: Run, run: Path, kaggle: KaggleServer, tmp_path: Path
) -> None:
    content = kaggle.files.pop("sample_submission.csv")
    kaggle.zipped = True
    kaggle.files |= {f"train/{at}.npy": b"" for at in range(300)} | {"random_submission.csv": content}
    done = submit(run_cli, run, "--file", submission(tmp_path / "s.csv", 70))
    assert done.exit_code == 0, done.output


def test_a_file_is_compared_with_the_symbols_of_the_run_where_the_sample_holds_a_placeholder(
    run_cli: Run, run: Path, tmp_path: Path
) -> None:
    placeholder = submission(tmp_path / "sample.csv", 70, "0")
    command = ["data", "submit", run, "--sample", placeholder, "--dry-run"]
    done = run_cli(*command, "--file", submission(tmp_path / "s.csv", 70, *ARPABET_SYMBOLS))
    assert done.exit_code == 0, done.output
    assert "symbols were not compared, because '0' in every row is a placeholder" in done.output
    refused = run_cli(*command, "--file", submission(tmp_path / "s.csv", 70, *["AA"] * 69, "QQ"))
    assert refused.exit_code == 1
    assert "s.csv: line 71: 'QQ' in 1 row, the run's inventory has '[SIL]', 'AA', " in refused.output


def test_a_wrong_submission_is_not_sent(run_cli: Run, run: Path, kaggle: KaggleServer, tmp_path: Path) -> None:
    refused = submit(run_cli, run, "--file", submission(tmp_path / "s.csv", 69))
    assert refused.exit_code == 1
    assert "s.csv has 69 rows, the sample has 70; predict the competition's test partition" in refused.output
    assert not kaggle.submitted


def test_a_missing_package_names_its_extra(run_cli: Run, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaggle", None)
    refused = submit(run_cli, run)
    assert refused.exit_code == 2
    assert refused.output == "error: the kaggle package is not installed; pip install 'dali-asr[kaggle]'\n"


def test_a_prediction_has_the_header_of_the_sample(run_cli: Run, run: Path, tmp_path: Path) -> None:
    sample_file = tmp_path / "sample.csv"
    sample_file.write_bytes(sample(70, "0").replace(b"id,label", b"Id,Label"))
    command = ["data", "submit", run, "--sample", sample_file, "--dry-run"]
    done = run_cli(*command)
    assert done.exit_code == 0, done.output
    assert "70 rows, with the ids of the sample" in done.output
    refused = run_cli(*command, "--partition", "dev")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: the prediction of dev has 40 rows, the sample has 70; predict the ")
    assert "(--partition)" in refused.stderr


def test_what_is_wrong_is_said_before_anything_is_predicted(
    run_cli: Run, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dali_asr.reports.submission.predict_submission", lambda *_, **__: pytest.fail("predicted"))
    there = submission(tmp_path / "s.csv", 70)
    for code, message, options in (
        (1, f"{tmp_path / 'none.csv'}: no such file", [run, "--sample", tmp_path / "none.csv", "--dry-run"]),
        (1, f"{tmp_path / 'tinny'}: no such folder; give", [tmp_path / "tinny", "--sample", there, "--dry-run"]),
        (2, "data submit: --competition is missing; give it", [run, "--sample", there]),
        (2, "data submit: --competition is missing; give it", [run, "--dry-run"]),
        (2, "data submit: --message is missing; give it", [run, "--competition", "speech", "--sample", there]),
    ):
        refused = run_cli("data", "submit", *options)
        assert refused.exit_code == code, refused.output
        assert refused.output.startswith(f"error: {message}"), refused.output
        assert refused.output.count("\n") == 1


def test_a_model_of_the_package_has_no_corpus_of_its_own(
    run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()  # of which its configuration speaks
    refused = run_cli("data", "submit", "english-small", "--dry-run", "--sample", submission(tmp_path / "s.csv", 70))
    assert refused.exit_code == 2
    assert refused.output == (
        "error: english-small: a model in the package comes without a corpus; name one to predict (--corpus)\n"
    )
