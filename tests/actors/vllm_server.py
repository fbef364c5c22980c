"""A real vLLM server on loopback, for the length of a ``with`` block."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from actors.vllm_environment import vllm_environment

_START_SECONDS = 180.0
_PR_SET_PDEATHSIG = 1


@contextmanager
def vllm_server(model: Path, *options: str) -> Iterator[str]:
    """Serve a model folder; yields the base URL. Its log is ``server.log`` in the folder.

    The server ends with the block, and with this process should it be killed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    module = "vllm.entrypoints.openai.api_server"
    where = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    how = ["--dtype", "float32", "--enforce-eager", "--disable-log-stats", *options]
    log = model / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", module, *where, *how],
            env={**os.environ, **vllm_environment(threads=1, kv_cache_gib=1)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that its engine's process can be ended with it
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, which takes no lock
        )
    try:
        _await(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _end(server)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _await(url: str, server: subprocess.Popen, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            opener.open(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"the vLLM server did not start:\n{log.read_text()[-4000:]}")


def _end(server: subprocess.Popen) -> None:
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # the session's id is its leader's pid
    server.wait(20)
