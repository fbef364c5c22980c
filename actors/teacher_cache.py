"""The teacher's responses on disk: drawn and scored once per prompt, for every run.

One SQLite file for each teacher fingerprint. Several servers and several runs may use it at
once: writes are short transactions, one a batch. The file keeps SQLite's rollback journal;
the write-ahead log would be quicker by milliseconds a batch but needs shared memory, which
the replicas of a cluster with a shared folder do not have.

A teacher's distributions are not kept: K likeliest tokens at every state take K times the room
of the log-probabilities, and half of the states or more are a student's, never met again. The
initial student's log-probabilities of y_t are kept in files of their own (``reference.py``).

A record is made of bytes, never of pickles, and carries a checksum over its key and content;
one that does not match is left out, counted, and made again. A cache saves work and holds no
truth: after it opened, a failing disk costs repeated work, never the run.
"""

import contextlib
import hashlib
import json
import logging
import sqlite3
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from configs.errors import DependencyError
from configs.wire import Response

log = logging.getLogger(__name__)

LAYOUT = 1
"""Version of keys and records; part of every key, so that an old file is only ever missed."""
LOCK_SECONDS = 30.0
"""How long one server waits for another one's transaction."""
KEYS_AT_ONCE = 500
"""Keys in one query; SQLite's own bound on parameters is 999 in old builds."""

_HEADER = struct.Struct("<BBI")  # finish reason, whether log-probabilities follow, T
_CHECKSUM_BYTES = 16
_FINISH_REASONS = ("stop", "length")
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def response_key(recipe: Mapping[str, object], *ids: np.ndarray) -> bytes:
    """Return the 16-byte key of a response: how it is made, and from which token ids.

    ``recipe`` is JSON-able; ``ids`` are int32 arrays (the prompt's, and a gold response's).
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([LAYOUT, recipe], sort_keys=True).encode())
    for array in ids:
        digest.update(struct.pack("<Q", len(array)) + array.astype("<i4").tobytes())
    return digest.digest()


class TeacherCache:
    """A map from keys to Responses (``ids_T``, ``finish_reason``, ``teacher_logprobs_T``)."""

    def __init__(self, path: Path | None) -> None:
        """Open or create the file at ``path``; None keeps the map in memory, for this run.

        A file that is no database any more is moved aside and made anew. Raises
        DependencyError when the file cannot be written.
        """
        self._path = path
        self._lock = threading.Lock()
        self.corrupt = 0
        """Records, or whole files, that were found damaged."""
        self.failures = 0
        """Reads and writes that the disk or a lock refused."""
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if not _is_corrupt(error):
                raise _unwritable(path, error) from error
            self._connection = self._start_afresh()

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Response]:
        """Return the responses that are known, and sound, among ``keys``."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Response] = {}
        with self._lock:
            for key, record in self._read(wanted):
                response = _decode(key, record)
                if response is None:
                    self.corrupt += 1
                else:
                    found[key] = response
        return found

    def put(self, responses: Mapping[bytes, Response]) -> None:
        """Keep ``responses``, all or none of them; a key that is known is replaced."""
        rows = [(key, _encode(key, response)) for key, response in responses.items()]
        if not rows:
            return
        with self._lock:
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO responses VALUES (?, ?)", rows
                    )
            except sqlite3.DatabaseError as error:
                self._recover(error)

    def close(self) -> None:
        """Close the file; the cache is not to be used after that."""
        with self._lock:
            self._connection.close()

    def _read(self, keys: list[bytes]) -> list[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = []
        try:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[start : start + KEYS_AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, record FROM responses WHERE key IN ({marks})"
                rows += self._connection.execute(query, some).fetchall()
        except sqlite3.DatabaseError as error:
            self._recover(error)
        return rows

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(self._path, error) from error
        connection = sqlite3.connect(
            self._path or ":memory:",
            timeout=LOCK_SECONDS,
            isolation_level=None,  # transactions begin where this file says so
            check_same_thread=False,  # one lock, above, orders the threads
        )
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS responses (key BLOB PRIMARY KEY, record BLOB)"
                )
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def _recover(self, error: sqlite3.DatabaseError) -> None:
        """Go on without the cache for this once, or with a new file where the old is broken."""
        if not _is_corrupt(error):
            self.failures += 1
            log.warning("teacher cache %s: %s; going on without it", self._path, error)
            return
        self._connection.close()
        try:
            self._connection = self._start_afresh()
        except (sqlite3.DatabaseError, DependencyError, OSError) as second:
            log.warning("teacher cache %s: %s; kept in memory from now on", self._path, second)
            self._path = None
            self._connection = self._open()

    def _start_afresh(self) -> sqlite3.Connection:
        assert self._path is not None, "a cache in memory cannot be torn"
        self.corrupt += 1
        suffix = f".corrupt-{time.time_ns()}"
        # The journal goes too: SQLite would replay it into the new file.
        for path in (self._path, Path(f"{self._path}-journal")):
            with contextlib.suppress(FileNotFoundError):  # another server was first
                path.rename(f"{path}{suffix}")
        log.warning("teacher cache %s was damaged; it is kept as *%s", self._path, suffix)
        return self._open()


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _CORRUPT


def _unwritable(path: Path | None, error: Exception) -> DependencyError:
    return DependencyError(
        f"teacher cache {path} cannot be written ({error}); "
        "set cache=FOLDER to a writable folder, or teacher.cache=false"
    )


def _checksum(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(key + body, digest_size=_CHECKSUM_BYTES).digest()


def _encode(key: bytes, response: Response) -> bytes:
    logprobs_T = response.teacher_logprobs_T
    finish = _FINISH_REASONS.index(response.finish_reason)
    body = _HEADER.pack(finish, logprobs_T is not None, len(response.ids_T))
    body += response.ids_T.astype("<i4").tobytes()
    if logprobs_T is not None:
        body += logprobs_T.astype("<f4").tobytes()
    return _checksum(key, body) + body


def _decode(key: bytes, record: object) -> Response | None:
    """Return the response, or None where the record is not what was written for ``key``."""
    if not isinstance(record, bytes) or len(record) < _CHECKSUM_BYTES + _HEADER.size:
        return None
    checksum, body = record[:_CHECKSUM_BYTES], record[_CHECKSUM_BYTES:]
    if checksum != _checksum(key, body):
        return None
    finish, has_logprobs, count = _HEADER.unpack_from(body)
    values = body[_HEADER.size :]
    return Response(
        ids_T=np.frombuffer(values, "<i4", count).astype(np.int32),
        finish_reason=_FINISH_REASONS[finish],
        teacher_logprobs_T=(
            np.frombuffer(values, "<f4", count, offset=4 * count).astype(np.float32)
            if has_logprobs
            else None
        ),
    )
