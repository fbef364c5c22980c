"""The doctor's look at ports, clusters, tokens and the teacher's server."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.tokenizer import train_tokenizer
from configs.cluster import ClusterConfig
from configs.models import ModelSource
from configs.teacher import OpenAiTeacherConfig
from orchestration.checkups import Finding, guarded
from orchestration.checkups_network import (
    check_authentication,
    check_metrics_port,
    check_ray_address,
    check_teacher_server,
)
from tests.actors.openai_stub import OpenAiStub


@contextmanager
def listener() -> Iterator[int]:
    """A port of 127.0.0.1 that takes connections, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with listener() as port:
        return port


def reach(address: str | None, folder: Path = Path("/none")) -> Finding:
    return check_ray_address(address, folder, seconds=2.0)


def authentication(
    home: Path, *, address: str | None = None, local: bool = False, **environ: str
) -> Finding:
    return check_authentication(ClusterConfig(local=local), address, environ, home)


def ask(stub_or_url: OpenAiStub | str, *, student: str | None = None, **settings: str) -> Finding:
    """The finding as the doctor has it, errors included."""
    url = stub_or_url if isinstance(stub_or_url, str) else stub_or_url.base_url
    config = OpenAiTeacherConfig.model_validate({"base_url": url, "model": "big", **settings})
    source = ModelSource(model=student)
    return guarded("teacher server", lambda: check_teacher_server(config, source, seconds=0.5))


def test_a_free_metrics_port_is_ok_and_left_free():
    port = closed_port()
    assert check_metrics_port("127.0.0.1", port).verdict == "ok"
    assert check_metrics_port("127.0.0.1", port).verdict == "ok"


def test_any_port_will_do_where_the_recipe_says_so():
    with listener():
        assert check_metrics_port("127.0.0.1", 0).verdict == "ok"


def test_a_metrics_port_in_use_is_a_warning():
    with listener() as port:
        finding = check_metrics_port("127.0.0.1", port)
    assert (finding.verdict, finding.detail) == ("warning", f"127.0.0.1:{port} is in use")


def test_a_metrics_host_of_another_machine_is_a_warning():
    finding = check_metrics_port("192.0.2.1", closed_port())  # an address for documentation
    assert finding.verdict == "warning"
    assert "monitoring.host" in finding.fix


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_takes_connections_is_ok_and_one_that_does_not_a_problem(form):
    with listener() as port:
        assert reach(form.format(port)).verdict == "ok"
    gone = reach(form.format(port))
    assert gone.verdict == "problem"
    assert "nobody answers" in gone.detail


def test_no_address_needs_no_cluster():
    assert reach(None).verdict == "ok"


def test_the_cluster_of_this_machine_is_found_by_the_file_that_ray_keeps(tmp_path):
    assert reach("auto", tmp_path).verdict == "problem"
    with listener() as port:
        (tmp_path / "ray_current_cluster").write_text(f"127.0.0.1:{port}\n")
        assert reach("auto", tmp_path).verdict == "ok"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8265", "the dashboard's"),
        ("127.0.0.1", "names no host and port"),
        (":6379", "names no host and port"),
        ("127.0.0.1:99999", "names no host and port"),
    ],
)
def test_an_address_that_no_driver_can_join_is_a_problem(address, words):
    finding = reach(address)
    assert finding.verdict == "problem"
    assert words in finding.detail


def test_a_ray_of_our_own_asks_for_a_token(tmp_path):
    good = authentication(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="made")
    assert good.verdict == "ok"
    open_to_all = authentication(tmp_path, RAY_AUTH_MODE="disabled")
    assert open_to_all.verdict == "warning"
    assert open_to_all.fix == "leave cluster.auth and RAY_AUTH_MODE unset"


def test_without_ray_there_is_nothing_to_protect(tmp_path):
    assert authentication(tmp_path, local=True).verdict == "ok"


def test_the_token_of_a_cluster_is_looked_for_where_ray_looks(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "empty").touch()
    there, empty = str(tmp_path / "token"), str(tmp_path / "empty")
    good = authentication(tmp_path, address="a:1", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=there)
    assert (good.verdict, there in good.detail, "secret" in good.detail) == ("ok", True, False)
    missing = authentication(tmp_path, address="a:1", RAY_AUTH_MODE="token")
    assert (missing.verdict, missing.detail) == (
        "problem",
        "RAY_AUTH_MODE=token, and no token is found",
    )
    for path in (empty, f"{there}x"):
        bad = authentication(
            tmp_path, address="a:1", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=path
        )
        assert bad.verdict == "problem"


def test_a_cluster_without_a_mode_takes_the_token_of_the_home_folder_if_there_is_one(tmp_path):
    assert authentication(tmp_path, address="a:1").verdict == "warning"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert authentication(tmp_path, address="a:1").verdict == "ok"


def test_a_teacher_that_answers_is_ok_and_asked_for_its_models_alone():
    with OpenAiStub() as stub:
        finding = ask(stub)
        assert [request.path for request in stub.requests] == ["/v1/models"]
    assert finding.verdict == "ok"
    assert "has big, of 40 tokens of context" in finding.detail


def test_a_teacher_of_another_name_is_a_warning():
    with OpenAiStub() as stub:
        finding = ask(stub, model="small")
    assert finding.verdict == "warning"
    assert "has no small" in finding.detail


def test_a_teacher_that_is_not_there_is_a_problem():
    finding = ask(f"http://127.0.0.1:{closed_port()}/v1")
    assert finding.verdict == "problem"
    assert "could not be reached" in finding.detail
    assert "teacher.base_url" in finding.fix


def test_a_teacher_that_hangs_is_waited_for_a_moment_only():
    with listener() as port:
        finding = ask(f"http://127.0.0.1:{port}/v1")
    assert finding.verdict == "problem"
    assert "within 0.5 s" in finding.detail


def test_a_teacher_s_tokenizer_must_be_the_student_s_where_ids_travel(tmp_path):
    train_tokenizer(["the fox"], 300, tmp_path)
    with OpenAiStub() as stub:
        stub.tokens = [1, 2, 3]
        finding = ask(stub, student=str(tmp_path), tokens="ids")
        assert ask(stub, student=str(tmp_path), tokens="text").verdict == "ok"
    assert finding.verdict == "problem"
    assert "another tokenizer" in finding.detail
