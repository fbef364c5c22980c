"""One run a folder: a lock that says who holds it, and is seen to be stale when they are gone."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil

from configs.errors import ConfigError

BEAT_SECONDS = 10.0
"""Time between two signs of life of the holder."""
SILENCE_SECONDS = 120.0
"""A holder on another machine that has been silent for so long is taken for dead."""
_LOOK_SECONDS = 1.0


class Holder(NamedTuple):
    """Who holds a lock, as the file and its age tell."""

    identity: Mapping[str, Any]
    touched: float
    """Time of the file's last touch, by the clock of the disk that it is on."""

    @property
    def is_here(self) -> bool:
        """Whether its process can be looked for from this one."""
        return self.identity.get("host") == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether its process is there, or, on another machine, beats."""
        if not self.is_here:
            return time.time() - self.touched < SILENCE_SECONDS
        if self.identity.get("boot") != _boot_id():
            return False
        try:
            process = psutil.Process(self.identity["pid"])
            # In a container nobody may have waited for what was killed.
            ended = process.status() == psutil.STATUS_ZOMBIE
            return not ended and abs(process.create_time() - self.identity["born"]) < 1
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        return f"process {self.identity['pid']} on {self.identity['host']}"


class RunLock:
    """Held while a run goes on; `<output>/.<name>.lock` names its process, host and boot.

    A holder on this machine is dead when its process is, or the machine was started anew; one on
    another machine (a pod that was replaced) when it has stopped touching the file.
    """

    def __init__(self, folder: Path, wait: Callable[[str], None] | None = None) -> None:
        """Take the lock of the run folder ``folder``.

        With ``wait``, which is told so, a holder on another machine has until it is silent to show
        that it lives: a retry that is refused for its dead predecessor is a retry lost.
        Raises ConfigError when a living run holds it, or the file cannot be written.
        """
        self.path = lock_path(folder)
        self._folder = folder
        self._ended = threading.Event()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            dead = self._wait_for_a_sign(wait) if wait else None
            self._take(dead)
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

    def _wait_for_a_sign(self, say: Callable[[str], None]) -> Holder | None:
        """Return a holder elsewhere that gave none for as long as it may be silent."""
        first = holder_of(self._folder)
        if first is None or first.is_here or not first.is_alive:
            return None
        patience = SILENCE_SECONDS + BEAT_SECONDS
        say(
            f"{self._folder} is held by {first}: it is taken over after at most {patience:g} s "
            "without a sign of life"
        )
        # By our own clock: the disk's may be another.
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and holder_of(self._folder) == first and first.is_alive:
            time.sleep(min(_LOOK_SECONDS, BEAT_SECONDS))
        return first

    def _take(self, dead: Holder | None) -> None:
        """Create the file, or put a dead holder's out of the way first."""
        with _alone_in(self.path.parent):
            holder = holder_of(self._folder)
            if holder and holder != dead and holder.is_alive:
                raise ConfigError(
                    f"{self._folder} belongs to a run that goes on ({holder}); set name=ANOTHER, "
                    "or stop it first"
                )
            self.path.unlink(missing_ok=True)
            self._create()

    def _create(self) -> None:
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

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                os.utime(self.path)
            except OSError:
                continue  # the disk will be heard of elsewhere


def lock_path(folder: Path) -> Path:
    """Return the file that says who holds the run folder ``folder``."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f".{named.name}.lock")


def holder_of(folder: Path) -> Holder | None:
    """Return who holds a run folder, dead or alive; None: nobody, or a file that is no lock."""
    path = lock_path(folder)
    try:
        identity, touched = json.loads(path.read_text()), path.stat().st_mtime
    except (OSError, ValueError):
        return None  # it let go just now
    whole = isinstance(identity, dict) and identity.keys() >= _own_identity().keys()
    return Holder(identity, touched) if whole else None


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
