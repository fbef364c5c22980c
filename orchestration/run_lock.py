"""One run a folder: a lock that says who holds it, and is seen to be stale when they are gone."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil

from configs.errors import ConfigError

BEAT_SECONDS = 10.0
"""Time between two signs of life of the holder."""
SILENCE_SECONDS = 120.0
"""A holder on another machine that has been silent for so long is taken for dead."""


class RunLock:
    """Held while a run goes on; `<output>/.<name>.lock` names its process, host and boot.

    A holder on this machine is dead when its process is, or the machine was started anew; one on
    another machine (a pod that was replaced) when it has stopped touching the file.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock of the run folder ``folder``.

        Raises ConfigError when a living run holds it, or the file cannot be written.
        """
        self.path = folder.with_name(f".{folder.name}.lock")
        self._folder = folder
        self._ended = threading.Event()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take()
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(
                f"{folder} cannot be a run folder: a file is in the way ({error.filename}); set "
                "name or output"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the run folder {folder} cannot be written ({error.strerror}); "
                "set output=FOLDER to one that you may write"
            ) from None
        self._beating = threading.Thread(target=self._beat, daemon=True, name="run-lock")
        self._beating.start()

    def __enter__(self) -> Self:
        """Return itself, held."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self._ended.set()
        self._beating.join()
        self.path.unlink(missing_ok=True)

    def _take(self) -> None:
        """Create the file, or put a dead holder's out of the way first."""
        with _alone_in(self.path.parent):
            if self.path.exists():
                self._refuse_if_alive()
                self.path.unlink(missing_ok=True)
            draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            draft.write_text(json.dumps(_own_identity()) + "\n")
            try:
                os.link(draft, self.path)  # whole, and only where there is none
            except FileExistsError:
                raise ConfigError(
                    f"{self._folder} was taken by another run just now; set name=ANOTHER"
                ) from None
            finally:
                draft.unlink()

    def _refuse_if_alive(self) -> None:
        try:
            holder: dict[str, Any] = json.loads(self.path.read_text())
            silence = time.time() - self.path.stat().st_mtime
        except (OSError, ValueError):
            return  # it let go just now
        if _is_alive(holder, silence):
            raise ConfigError(
                f"{self._folder} belongs to a run that goes on (process {holder['pid']} on "
                f"{holder['host']}); set name=ANOTHER, or stop it first"
            )

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                os.utime(self.path)
            except OSError:
                continue  # the disk will be heard of elsewhere


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time judge and replace the locks in ``folder``."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network's file system may know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _own_identity() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "born": psutil.Process().create_time(),
    }


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(psutil.boot_time())


def _is_alive(holder: dict[str, Any], silence: float) -> bool:
    if holder.get("host") != socket.gethostname():
        return silence < SILENCE_SECONDS
    if holder.get("boot") != _boot_id():
        return False
    try:
        return abs(psutil.Process(holder["pid"]).create_time() - holder["born"]) < 1
    except psutil.NoSuchProcess:
        return False
