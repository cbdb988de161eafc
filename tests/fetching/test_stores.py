"""Files in buckets, on moto's S3 server, and on what else fsspec knows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dali_asr.corpus import pack_corpus, verify
from dali_asr.corpus.remote import fetch_corpus, local_corpus
from dali_asr.errors import DataError, UsageError
from dali_asr.fetching.fetch import fetch
from dali_asr.fetching.sources import Source
from dali_asr.fetching.stores import StoreRemote
from dali_asr.fetching.transfer import BrokenTransferError, receive
from tests.fetching.archives import archive, names_beside, tree
from tests.fetching.server import HURRIED

FILES = {"train/mfcc/a.npy": os.urandom(90_000), "b": b"1"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a client of a server with an empty bucket, which the environment points to as well."""
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    yield client
    for entry in client.list_objects_v2(Bucket="bucket").get("Contents", ()):
        client.delete_object(Bucket="bucket", Key=entry["Key"])
    client.delete_bucket(Bucket="bucket")


def put(client: Any, key: str, content: bytes) -> None:
    client.put_object(Bucket="bucket", Key=key, Body=content)


def test_an_archive_in_a_bucket_becomes_a_folder(client: Any, tmp_path: Path) -> None:
    content = archive(FILES, "tar.gz")
    put(client, "deep/data.tar.gz", content)
    done = fetch("s3://bucket/deep/data.tar.gz", tmp_path / "out", patience=HURRIED)
    assert tree(tmp_path / "out") == FILES
    assert done.record.size == len(content)
    assert done.record.version == client.head_object(Bucket="bucket", Key="deep/data.tar.gz")["ETag"]


def test_a_public_bucket_needs_no_keys(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client.put_object(Bucket="bucket", Key="data.zip", Body=archive(FILES, "zip"), ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fetch("s3://bucket/data.zip", tmp_path / "out", patience=HURRIED)
    assert tree(tmp_path / "out") == FILES


def test_a_part_is_continued_only_if_the_object_is_the_same(client: Any) -> None:
    put(client, "file", b"0123456789")
    remote = StoreRemote.of(Source.parse("s3://bucket/file"), HURRIED)
    with remote.open() as answer:
        version = answer.version
    assert b"".join(part.data for part in receive(remote, 4, version)) == b"456789"
    assert b"".join(part.data for part in receive(remote, 4, version, end=7)) == b"456"
    put(client, "file", b"abc")
    received = list(receive(remote, 4, version))
    assert received[0].position == 0
    assert b"".join(part.data for part in received) == b"abc"


def test_an_object_that_changes_while_it_is_read_is_noticed(client: Any) -> None:
    put(client, "file", b"0123456789")
    remote = StoreRemote.of(Source.parse("s3://bucket/file"), HURRIED)
    with remote.open() as answer:
        next(answer.chunks)
        put(client, "file", b"other")
        with pytest.raises(BrokenTransferError, match="changed while it was read"):
            next(answer.chunks)


def test_refusals_are_one_line(client: Any, tmp_path: Path) -> None:
    for source in ("s3://bucket/none.zip", "s3://no-bucket/none.zip"):
        with pytest.raises(DataError, match=f"{source}: not found; check the link"):
            fetch(source, tmp_path / "out", patience=HURRIED)
    assert names_beside(tmp_path / "out") == set()


def test_denied_access_says_how_to_give_keys(monkeypatch: pytest.MonkeyPatch, client: Any, tmp_path: Path) -> None:
    put(client, "data.zip", b"1")
    policy = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/*"}
    client.put_bucket_policy(Bucket="bucket", Policy=json.dumps({"Version": "2012-10-17", "Statement": [policy]}))
    try:
        with pytest.raises(DataError, match=r"data\.zip: access denied; give keys by AWS_ACCESS_KEY_ID"):
            fetch("s3://bucket/data.zip", tmp_path / "out", patience=HURRIED)
    finally:
        client.delete_bucket_policy(Bucket="bucket")


def test_a_store_that_cannot_be_reached_is_named(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    with pytest.raises(DataError) as error:
        fetch("s3://bucket/data.zip", tmp_path / "out", patience=HURRIED)
    assert "the host no-such-host.invalid is unknown" in str(error.value)
    assert str(error.value).endswith("or fetch it on a machine that has one and give its path here")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match=r"s3:// needs another package; pip install 'dali-asr\[s3\]'"):
        fetch("s3://bucket/data.zip", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"gs:// needs another package; pip install 'dali-asr\[gcs\]'"):
        fetch("gs://bucket/data.zip", tmp_path / "out")


def test_a_packed_corpus_in_a_bucket_is_mirrored_once(client: Any, course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "packed")
    for name, content in tree(tmp_path / "packed").items():
        put(client, f"deep/corpus/{name}", content)
    folder = local_corpus("s3://bucket/deep/corpus/")
    assert tree(folder) == tree(tmp_path / "packed")
    verify(folder)
    client.delete_object(Bucket="bucket", Key="deep/corpus/corpus.json")
    assert local_corpus("s3://bucket/deep/corpus/") == folder


def test_course_data_in_a_bucket_is_copied(client: Any, course: Path, tmp_path: Path) -> None:
    for name, content in tree(course).items():
        put(client, f"hw/{name}", content)
    put(client, "hw/readme.txt", b"")
    fetch_corpus("s3://bucket/hw", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(course)
    put(client, "other/readme.txt", b"")
    with pytest.raises(DataError, match="s3://bucket/other: holds neither a packed corpus nor course data; give a"):
        fetch_corpus("s3://bucket/other", tmp_path / "other")


def test_other_stores_of_fsspec(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/somewhere/data.tar.xz", archive(FILES, "tar.xz"))
    fetch("memory://somewhere/data.tar.xz", tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    with pytest.raises(DataError, match="memory://somewhere/none: not found; check the link"):
        fetch("memory://somewhere/none", tmp_path / "none")
