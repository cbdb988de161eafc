"""Programs that start from a process that has imported torch and DALI, in a tenth of the time of a new interpreter.

    python -m tests.processes SOCKET SCRIPTS

serves until its standard input ends. A client sends the arguments, the folder and the environment of a program with its
standard streams; it receives the number of the forked process and, in the end, its exit code. The folder of scripts
receives clients named `dali-asr`, `python` and `torchrun`, for shells.

The server starts no threads itself. What a program reads from the environment when it is imported (such as
TRITON_INTERPRET) and what happens when an interpreter exits needs a real process.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
# Also what torch and the curves import when they are first used.
IMPORTED = (
    "dali_asr.cli",
    "dali_asr.training",
    "dali_asr.inference",
    "nvidia.dali.plugin.pytorch",
    "torch._dynamo",
    "matplotlib.figure",
)
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    request = [["{name}", *sys.argv[1:]], os.getcwd(), dict(os.environ)]
    socket.send_fds(server, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
    with server.makefile("r") as answers:
        process = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(process, number))
        code = int(answers.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class Program:
    """A running program: the number of its process and what it prints."""

    def __init__(self, path: Path, arguments: list[str], environment: dict[str, str]) -> None:
        reading, writing = os.pipe()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(path))
        request = json.dumps([arguments, str(ROOT), environment]).encode() + b"\n"
        with Path(os.devnull).open() as nothing:
            socket.send_fds(self._server, [request], [nothing.fileno(), writing, 2])
        os.close(writing)
        self.stdout = os.fdopen(reading)
        self._answers = self._server.makefile("r")
        self.pid = int(self._answers.readline())

    def wait(self) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        code = int(self._answers.readline())
        self._answers.close()
        self._server.close()
        return code


class ForkServer:
    """The serving process, which ends with this one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "server"
        scripts = folder / "scripts"
        scripts.mkdir()
        self.dali_asr, self.python = (str(scripts / name) for name in ("dali-asr", "python"))
        command = [sys.executable, "-m", "tests.processes", str(self.path), str(scripts)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"

    def start(self, *arguments: str, **environment: str) -> Program:
        """Start `dali-asr`, `python` or `torchrun` in the project's root, with additions to the environment."""
        return Program(self.path, list(arguments), {**os.environ, **environment})

    def environment(self) -> dict[str, str]:
        """Return an environment in which shells find the clients first."""
        return os.environ | {
            "PATH": f"{Path(self.python).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHON_EXEC": self.python,  # which torchrun starts
        }

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


def serve(path: str, scripts: str) -> None:
    """Fork a process per request, and tell the clients of their ends."""
    for name in IMPORTED:
        import_module(name)
    gc.collect()
    gc.freeze()  # the programs' collections, of which DALI makes one at their exit, pass over what is imported
    for name in ("dali-asr", "python", "torchrun"):
        script = Path(scripts, name)
        script.write_text(CLIENT.format(python=sys.executable, path=path, name=name))
        script.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                client, _ = listener.accept()
                process = _fork(client)
                _tell(client, process)
                selector.register(os.pidfd_open(process), selectors.EVENT_READ, (process, client))
            else:
                process, client = key.data
                _, status = os.waitpid(process, 0)
                selector.unregister(key.fileobj)
                os.close(key.fd)
                _tell(client, os.waitstatus_to_exitcode(status))
                client.close()


def _tell(client: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # the client was killed
        client.sendall(f"{number}\n".encode())


def _fork(client: socket.socket) -> int:
    """Receive a request, and return the number of the process that runs it."""
    received, streams, _, _ = socket.recv_fds(client, 1 << 20, 3)
    while not received.endswith(b"\n"):
        received += client.recv(1 << 20)
    arguments, folder, environment = json.loads(received)
    process = os.fork()
    if not process:
        for stream, copy in enumerate(streams):
            os.dup2(copy, stream)
        os.closerange(3, 256)
        _run(arguments, folder, environment)
    for copy in streams:
        os.close(copy)
    return process


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Run a program as a new process would, and exit."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    code: Any = 0
    try:
        _execute(arguments)
        threading._shutdown()  # type: ignore[attr-defined]
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120  # as Python itself
    os._exit(code if isinstance(code, int) else int(code is not None))


def _execute(arguments: list[str]) -> None:
    name, *rest = arguments
    if name != "python":
        sys.argv = arguments
        import_module({"dali-asr": "dali_asr.cli", "torchrun": "torch.distributed.run"}[name]).main()
        return
    while rest[0] == "-u":
        del rest[0]
    if rest[0] == "-m":
        sys.path[0] = str(Path.cwd())
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    elif rest[0] == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *rest[2:]]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[1], "<string>", "exec"), main.__dict__)
    else:
        sys.path[0] = str(Path(rest[0]).resolve().parent)
        sys.argv = rest
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    serve(*sys.argv[1:])
