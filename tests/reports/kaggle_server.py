"""A server on loopback that answers the `kaggle` package as Kaggle does, for one competition."""

from __future__ import annotations

import base64
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY, TOKEN = ("someone", "0123456789abcdef0123456789abcdef"), "KGAT_0123456789abcdef"


@dataclass
class KaggleServer:
    """What the server holds and what it received.

    Attributes:
        url: of the server.
        files: the competition's files by name.
        accepted: whether the user accepted the rules.
        left: submissions left today.
        sent: submissions of today.
        failing: status and message of the answer to the last step of a submission, instead of success.
        breaks_upload: whether uploads are refused.
        zipped: whether files are sent in a zip archive each, as Kaggle sends large ones.
        uploaded: the content of the last upload.
        submitted: message and content of each submission.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    accepted: bool = True
    left: int = 5
    sent: int = 0
    failing: tuple[int, str] | None = None
    breaks_upload: bool = False
    zipped: bool = False
    uploaded: bytes = b""
    submitted: list[tuple[str, bytes]] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[KaggleServer]:
    """Run a server for the block."""
    state = KaggleServer()

    class Handler(_Handler):
        server_state = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: KaggleServer

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        method = self.path.rpartition("/")[2]
        if method == "IntrospectToken":
            active = body["token"] == TOKEN
            self._answer(200, {"active": active, "username": KEY[0] if active else ""})
        elif not self._authorized():
            self._refuse(401, "Unauthenticated")
        elif body.get("competitionName") != "speech":
            self._refuse(404, "Not found")
        else:
            answer = {
                "ListDataFiles": self._list_files,
                "DownloadDataFile": self._download_file,
                "GetSubmissionLimits": self._limits,
                "StartSubmissionUpload": self._start_upload,
                "CreateSubmission": self._create_submission,
            }
            answer[method](body)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        content = self.server_state.files[name.removesuffix(".zip")]
        if name.endswith(".zip"):
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as file:
                file.writestr(name.removesuffix(".zip"), content)
            content = archive.getvalue()
        self._answer(200, content)

    def do_PUT(self) -> None:
        content = self._body()
        if self.server_state.breaks_upload:
            self._refuse(400, "broken")
            return
        self.server_state.uploaded = content
        self._answer(200, {})

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _list_files(self, body: dict[str, Any]) -> None:
        files = [{"name": name, "totalBytes": len(content)} for name, content in self.server_state.files.items()]
        self._answer(200, {"files": files[: body["pageSize"]], "nextPageToken": ""})

    def _download_file(self, body: dict[str, Any]) -> None:
        name = body["fileName"]
        if not self.server_state.accepted:
            self._refuse(403, "You must accept this competition's rules before you'll be able to download files.")
        elif name not in self.server_state.files:
            self._refuse(404, "Not found")
        else:
            suffix = ".zip" if self.server_state.zipped else ""
            self.send_response(302)
            self.send_header("Location", f"{self.server_state.url}/files/{name}{suffix}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _limits(self, _: dict[str, Any]) -> None:
        sent = self.server_state.sent
        self._answer(200, {"numToday": sent, "numTotal": sent + 3, "numAllowedNow": self.server_state.left})

    def _start_upload(self, _: dict[str, Any]) -> None:
        self._answer(200, {"token": "token-of-the-upload", "createUrl": f"{self.server_state.url}/upload"})

    def _create_submission(self, body: dict[str, Any]) -> None:
        assert body["blobFileTokens"] == "token-of-the-upload"
        if self.server_state.failing:
            self._refuse(*self.server_state.failing)
            return
        self.server_state.submitted.append((body["submissionDescription"], self.server_state.uploaded))
        self._answer(200, {"message": "Successfully submitted to Speech", "ref": 1})

    def _authorized(self) -> bool:
        basic = base64.b64encode(":".join(KEY).encode()).decode()
        return self.headers["Authorization"] in (f"Basic {basic}", f"Bearer {TOKEN}")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"code": status, "message": message})

    def _answer(self, status: int, content: bytes | dict[str, Any]) -> None:
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)
