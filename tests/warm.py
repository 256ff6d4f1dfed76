"""Commands in processes forked from a server that has imported the libraries, which most of a short command's time goes
into. The project itself is imported anew by each, so that it reads its own environment."""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

LIBRARIES = (
    "torch",
    "torchvision.transforms.v2",
    "timm",
    "hydra",
    "pandas",
    "scipy.stats",
    "statsmodels.stats.multitest",
)
PLAIN = ("LOSSBENCH_", "COLUMNS", "NO_COLOR")
"""How the names of variables begin that none of the libraries reads while it is imported."""


STARTS_S = 300.0
"""How long the server may take to import all that, on a machine that other tests keep busy."""


class Server:
    """The server and its commands, one at a time.

    Args:
        root: the folder that commands run in.
        environment: of the server, and what decides while its libraries are imported.
    """

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self.heard = b""  # and not yet read, since a short command's number and exit code may come at once

    def run(
        self, arguments: list[str], environment: dict[str, str], folder: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m arguments``; what it prints passes through files in the folder."""
        out, err = folder / "stdout", folder / "stderr"
        self._say({"arguments": arguments, "environment": environment, "out": str(out), "err": str(err)})
        pid, until = int(self._hear(STARTS_S)), time.monotonic() + timeout
        try:
            code = int(self._hear(until - time.monotonic()))
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._hear(STARTS_S)
            raise subprocess.TimeoutExpired(arguments, timeout, out.read_text(), err.read_text()) from None
        texts = [path.read_text() for path in (out, err)]
        for path in (out, err):
            path.unlink()
        return subprocess.CompletedProcess(arguments, code, *texts)

    def close(self) -> None:
        """End the server."""
        with self.process:  # closes its pipes, at which it ends
            pass

    def _say(self, what: dict) -> None:
        self.process.stdin.write(json.dumps(what).encode() + b"\n")

    def _hear(self, seconds: float) -> bytes:
        """Return the next line that the server writes; raise TimeoutError where it takes longer."""
        until = time.monotonic() + seconds
        while b"\n" not in self.heard:
            if not select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError
            if not (more := os.read(self.process.stdout.fileno(), 4096)):
                raise RuntimeError("the server of warm commands has ended")
            self.heard += more
        line, _, self.heard = self.heard.partition(b"\n")
        return line


def serve() -> dict | None:
    """Fork for every request; return None in the server once nobody asks any more, and in a fork what it is to run."""
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        if not (pid := os.fork()):
            return asked
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def become(asked: dict) -> None:
    """Be the command that was asked for, to the end of this process, which does not tidy up all that it inherited."""
    for stream, path in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, stream)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(asked["environment"])
    module, *arguments = asked["arguments"]
    sys.argv = [module, *arguments]
    code: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # a fork that collects garbage would copy what it inherited
    if request := serve():
        become(request)
