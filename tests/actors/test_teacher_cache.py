"""The response cache: exact, shared, and never believed when damaged."""

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from actors import teacher_cache
from actors.teacher_cache import TeacherCache, response_key
from configs.errors import DependencyError
from configs.wire import Response

REPOSITORY = Path(__file__).resolve().parents[2]


def make_response(*ids: int, logprobs: bool = True) -> Response:
    return Response(
        ids_T=np.array(ids, np.int32),
        finish_reason="length",
        teacher_logprobs_T=np.array([-0.1 * i for i in ids], np.float32) if logprobs else None,
    )


def key_of(*ids: int) -> bytes:
    return response_key({"response": "generate"}, np.array(ids, np.int32))


def assert_same(left: Response, right: Response):
    assert left.finish_reason == right.finish_reason
    assert left.ids_T.dtype == np.int32 and left.ids_T.tolist() == right.ids_T.tolist()
    assert (left.teacher_logprobs_T is None) == (right.teacher_logprobs_T is None)
    if left.teacher_logprobs_T is not None and right.teacher_logprobs_T is not None:
        assert left.teacher_logprobs_T.dtype == np.float32
        assert left.teacher_logprobs_T.tobytes() == right.teacher_logprobs_T.tobytes()


def damage(path: Path, key: bytes, record: bytes) -> None:
    with sqlite3.connect(path) as connection:
        changed = connection.execute(
            "UPDATE responses SET record = ? WHERE key = ?", (record, key)
        ).rowcount
    connection.close()
    assert changed == 1


def stored(path: Path, key: bytes) -> bytes:
    connection = sqlite3.connect(path)
    (record,) = connection.execute("SELECT record FROM responses WHERE key = ?", (key,)).fetchone()
    connection.close()
    return record


def test_responses_survive_closing_bit_for_bit(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "teacher.sqlite3"
    scored, unscored = make_response(7, 1, 2_000_000_000), make_response(5, logprobs=False)
    first = TeacherCache(path)
    first.put({key_of(1): scored, key_of(2): unscored})
    first.close()

    found = TeacherCache(path).get([key_of(1), key_of(2), key_of(3)])

    assert found.keys() == {key_of(1), key_of(2)}
    assert_same(found[key_of(1)], scored)
    assert_same(found[key_of(2)], unscored)


def test_a_later_response_replaces_an_earlier_one(tmp_path: Path):
    cache = TeacherCache(tmp_path / "c")
    cache.put({key_of(1): make_response(7, logprobs=False)})
    cache.put({key_of(1): make_response(7)})
    assert_same(cache.get([key_of(1)])[key_of(1)], make_response(7))


def test_more_keys_than_one_query_takes_are_all_found():
    cache = TeacherCache(None)
    responses = {key_of(i): make_response(i) for i in range(1, 1301)}
    cache.put(responses)
    found = cache.get(list(responses) * 2)
    assert found.keys() == responses.keys()
    assert_same(found[key_of(1300)], make_response(1300))


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    cache = TeacherCache(None)
    cache.put({key_of(1): make_response(4)})
    assert_same(cache.get([key_of(1)])[key_of(1)], make_response(4))
    assert list(tmp_path.iterdir()) == []


def test_keys_tell_apart_recipe_prompt_and_where_one_array_ends():
    ids = [np.array(values, np.int32) for values in ([1, 2, 3], [1, 2], [3], [1], [2, 3])]
    keys = [
        response_key({"seed": 0}, ids[0]),
        response_key({"seed": 1}, ids[0]),
        response_key({"seed": 0}, ids[1]),
        response_key({"seed": 0}, ids[1], ids[2]),
        response_key({"seed": 0}, ids[3], ids[4]),
    ]
    assert len(set(keys)) == 5
    assert response_key({"a": 1, "b": 2}, ids[0]) == response_key({"b": 2, "a": 1}, ids[0])
    # Written down, so that a change of key, which voids every cache, is a decision.
    assert keys[0].hex() == "9800b04c6e61311b3e81075202ebd558"


@pytest.mark.parametrize("position", [0, 16, 17, 18, 22, 26, 33])
def test_a_flipped_byte_anywhere_makes_a_record_unknown(tmp_path: Path, position: int):
    path, key = tmp_path / "c", key_of(1)
    cache = TeacherCache(path)
    cache.put({key: make_response(7, 8), key_of(2): make_response(9)})
    record = bytearray(stored(path, key))
    record[position] ^= 0x40
    damage(path, key, bytes(record))

    found = cache.get([key, key_of(2)])

    assert found.keys() == {key_of(2)}
    assert cache.corrupt == 1
    cache.put({key: make_response(7, 8)})  # made again
    assert_same(cache.get([key])[key], make_response(7, 8))


@pytest.mark.parametrize("length", [0, 5, 21, 22, 30])
def test_a_truncated_record_is_unknown(tmp_path: Path, length: int):
    path, key = tmp_path / "c", key_of(1)
    cache = TeacherCache(path)
    cache.put({key: make_response(7, 8)})
    damage(path, key, stored(path, key)[:length])
    assert cache.get([key]) == {}
    assert cache.corrupt == 1


def test_a_record_under_another_key_is_unknown(tmp_path: Path):
    path = tmp_path / "c"
    cache = TeacherCache(path)
    cache.put({key_of(1): make_response(7), key_of(2): make_response(8)})
    damage(path, key_of(1), stored(path, key_of(2)))
    assert cache.get([key_of(1)]) == {}
    assert cache.corrupt == 1


def test_a_file_that_is_no_database_is_set_aside_and_made_anew(tmp_path: Path):
    path = tmp_path / "c"
    path.write_bytes(b"half a file" * 1000)
    cache = TeacherCache(path)
    cache.put({key_of(1): make_response(7)})
    assert cache.corrupt == 1
    (aside,) = tmp_path.glob("c.corrupt-*")
    assert aside.read_bytes() == b"half a file" * 1000
    assert TeacherCache(path).get([key_of(1)]).keys() == {key_of(1)}


def test_a_file_torn_under_a_running_server_is_replaced_and_work_goes_on(tmp_path: Path):
    path = tmp_path / "c"
    many = {key_of(i): make_response(*range(1, 200)) for i in range(1, 300)}
    cache = TeacherCache(path)
    cache.put(many)
    cache.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))

    cache = TeacherCache(path)
    found = cache.get(many)
    assert found == {}
    assert cache.corrupt >= 1
    cache.put(many)
    assert cache.get(many).keys() == many.keys()
    assert TeacherCache(path).get(many).keys() == many.keys()


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "c"
    with pytest.raises(DependencyError, match=rf"{path} cannot be written.*cache=FOLDER"):
        TeacherCache(path)


def test_a_lock_that_is_never_given_back_costs_the_cache_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(teacher_cache, "LOCK_SECONDS", 0.1)
    path = tmp_path / "c"
    cache = TeacherCache(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    cache.put({key_of(1): make_response(7)})
    assert cache.get([key_of(1)]) == {}
    assert (cache.failures, cache.corrupt) == (2, 0)

    other.close()
    cache.put({key_of(1): make_response(7)})
    assert cache.get([key_of(1)]).keys() == {key_of(1)}


def writer(path: Path, start: int, count: int) -> subprocess.Popen:
    """Start a process that opens ``path`` and puts ``count`` batches of 20 responses."""
    code = f"""
import numpy as np
from pathlib import Path
from actors.teacher_cache import TeacherCache, response_key
from configs.wire import Response
cache = TeacherCache(Path({str(path)!r}))
print("open", flush=True)
for batch in range({count}):
    ids = range({start} + 20 * batch, {start} + 20 * batch + 20)
    cache.put({{
        response_key({{"response": "generate"}}, np.array([i], np.int32)): Response(
            ids_T=np.array([i] * 50, np.int32),
            finish_reason="stop",
            teacher_logprobs_T=np.full(50, -1.0, np.float32),
        )
        for i in ids
    }})
assert cache.failures == cache.corrupt == 0
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )


def test_several_processes_write_one_file_at_once_and_nothing_is_lost(tmp_path: Path):
    path = tmp_path / "c"
    writers = [writer(path, start, 20) for start in (0, 1000, 2000)]
    assert [process.wait(60) for process in writers] == [0, 0, 0]
    cache = TeacherCache(path)
    keys = [key_of(start + i) for start in (0, 1000, 2000) for i in range(400)]
    assert len(cache.get(keys)) == 1200
    assert cache.corrupt == 0


def test_a_writer_killed_in_mid_batch_leaves_whole_batches_only(tmp_path: Path):
    path = tmp_path / "c"
    process = writer(path, 0, 1_000_000)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    cache = TeacherCache(path)
    while not cache.get([key_of(200)]):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)

    survivors = cache.get(key_of(i) for i in range(20_000))

    assert len(survivors) >= 200
    assert len(survivors) % 20 == 0
    assert cache.corrupt == cache.failures == 0


def test_threads_share_one_cache():
    cache = TeacherCache(None)

    def work(start: int) -> None:
        for i in range(start, start + 50):
            cache.put({key_of(i): make_response(i)})
            assert_same(cache.get([key_of(i)])[key_of(i)], make_response(i))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (1, 101, 201, 301)))
    everything = [key_of(start + i) for start in (1, 101, 201, 301) for i in range(50)]
    assert len(cache.get(everything)) == 200
    assert cache.failures == 0
