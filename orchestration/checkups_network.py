"""What a run connects to: the metrics port, a Ray cluster and its token, a teacher's server."""

import errno
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from configs.cluster import ClusterConfig
from configs.models import ModelSource
from configs.teacher import OpenAiTeacherConfig
from orchestration.checkups import Finding

ANSWER_SECONDS = 5.0
"""Longest wait for an answer: whoever asks sits and waits."""


def check_metrics_port(host: str, port: int) -> Finding:
    """Bind the metrics port for a moment."""
    if port == 0:
        return Finding("metrics port", "ok", "any free one")
    where = f"{host}:{port}"
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
            one.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = "set monitoring.port=0 or to another; else the run takes the next free one"
            return Finding("metrics port", "warning", f"{where} is in use", fix)
        detail = f"{where} cannot be opened ({error.strerror}): metrics would not be served"
        fix = "set monitoring.host to an address of this machine, and monitoring.port above 1023"
        return Finding("metrics port", "warning", detail, fix)
    return Finding("metrics port", "ok", f"{where} is free")


def check_ray_address(address: str | None, ray_folder: Path, *, seconds: float) -> Finding:
    """Connect to the cluster and hang up; ``auto`` is the one that runs on this machine."""
    if address is None:
        return Finding("Ray address", "ok", "none given: a Ray is started for the run")
    current = ray_folder / "ray_current_cluster"
    if address == "auto" and not current.is_file():
        detail = "cluster.address=auto, and no Ray runs on this machine"
        return Finding("Ray address", "problem", detail, "start one, or leave the address unset")
    parts = urlsplit(f"//{current.read_text().strip()}" if address == "auto" else _url(address))
    host, port = parts.hostname, _port(parts.netloc)
    if parts.scheme in ("http", "https"):
        detail = f"{address} is the dashboard's, which takes jobs and runs no driver"
        fix = "unset RAY_ADDRESS, or submit: `ray job submit -- python -m orchestration.run ...`"
        return Finding("Ray address", "problem", detail, fix)
    if not host or port is None:
        fix = "write it HOST:PORT, as `ray start` printed it"
        return Finding("Ray address", "problem", f"{address} names no host and port", fix)
    try:
        with socket.create_connection((host, port), timeout=seconds):
            pass
    except OSError as error:
        detail = f"nobody answers at {address} ({error.strerror or error})"
        fix = "start the cluster, or leave cluster.address and RAY_ADDRESS unset to run here"
        return Finding("Ray address", "problem", detail, fix)
    return Finding("Ray address", "ok", f"{address} takes connections")


def check_authentication(
    config: ClusterConfig, address: str | None, environ: Mapping[str, str], home: Path
) -> Finding:
    """See which token Ray will take; ``settle_authentication`` has set ``environ`` before."""
    name = "Ray authentication"
    if config.local:
        return Finding(name, "ok", "no Ray is started (cluster.local)")
    mode, token = environ.get("RAY_AUTH_MODE"), _token(environ, home)
    asked = mode == "token" or (mode is None and token is not None)  # Ray's own rule
    if not asked:
        detail = "none: whoever reaches Ray's ports, on any interface, runs code as you"
        if address is None:
            return Finding(name, "warning", detail, "leave cluster.auth and RAY_AUTH_MODE unset")
        fix = "start the cluster with RAY_AUTH_MODE=token, and give the run its token"
        return Finding(name, "warning", detail, fix)
    if token is None:
        detail = "RAY_AUTH_MODE=token, and no token is found"
        fix = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it"
        return Finding(name, "problem", detail, fix)
    whose = f"the token of {token}" if address else "a token"
    return Finding(name, "ok", f"Ray asks {whose} of whoever reaches its ports")


def check_teacher_server(
    config: OpenAiTeacherConfig, student: ModelSource, *, seconds: float
) -> Finding:
    """Ask the teacher's server for its models, and where ids travel for its tokenizer.

    Raises what ``OpenAiServer`` does, and ConfigError for a tokenizer that is not the student's.
    """
    from actors.model_watch import check_token_ids, describe
    from actors.openai_server import OpenAiServer
    from actors.tokenizer import load_tokenizer

    patience = min(seconds, config.timeout_seconds)
    asked = config.model_copy(update={"timeout_seconds": patience, "max_retries": 0})
    server = OpenAiServer(asked)
    try:
        described = describe(server, asked)
        if config.tokens == "ids" and student.model and Path(student.model).is_dir():
            check_token_ids(asked, server, load_tokenizer(student.model))
    finally:
        server.close()
    where = f"{config.base_url} answers"
    if described["id"] is None:
        detail = f"{where}, and its list of models has no {config.model}"
        fix = "set teacher.model to a name in the list, unless this server lists none"
        return Finding("teacher server", "warning", detail, fix)
    context = described["max_model_len"]
    told = f", of {context} tokens of context" if context else ""
    return Finding("teacher server", "ok", f"{where}, and has {config.model}{told}")


def _url(address: str) -> str:
    return address if "://" in address else f"//{address}"


def _port(location: str) -> int | None:
    digits = location.rpartition(":")[2]
    return int(digits) if digits.isdigit() and int(digits) < 65536 else None


def _token(environ: Mapping[str, str], home: Path) -> str | None:
    """Return where Ray finds its token, in the order in which it looks; None: nowhere."""
    if environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else home / ".ray" / "auth_token"
    try:
        return str(path) if path.read_text().strip() else None
    except OSError:
        return None
