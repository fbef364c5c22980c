"""The HTTP face of a run: `/metrics` for Prometheus, `/healthz` for Kubernetes, `/` for people."""

import ipaddress
import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from orchestration.live import LiveFeed

_LOG = logging.getLogger(__name__)
_TRIES = 20
_PLAIN = "text/plain; charset=utf-8"
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'"
)
"""The page may ask this server and nobody else."""


class MetricsServer:
    """Serves a registry from a daemon thread; ``port`` is None when no port could be opened."""

    def __init__(
        self, registry: CollectorRegistry, *, host: str, port: int, feed: LiveFeed | None = None
    ) -> None:
        """Bind ``port`` or another one; without a ``feed`` there is no page for people."""
        self._server = _open(_handler(registry, feed, host), host, port)
        self.port: int | None = None
        if self._server is None:
            _LOG.warning(
                "metrics are not served: no port could be opened on %s; the run goes on, "
                "metrics.jsonl is written, see monitoring.host and monitoring.port",
                host,
            )
            return
        self.port = self._server.server_address[1]
        if port not in (0, self.port):
            _LOG.warning("port %d is in use: metrics are served on %s:%d", port, host, self.port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port; may be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None


class _Server(ThreadingMixIn, TCPServer):
    # Not http.server.HTTPServer: that looks the host's name up when it binds.
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], handler: type, family: socket.AddressFamily
    ) -> None:
        self.address_family = family
        super().__init__(address, handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _LOG.debug("a client of the metrics port went away", exc_info=True)


def _handler(
    registry: CollectorRegistry, feed: LiveFeed | None, host: str
) -> type[BaseHTTPRequestHandler]:
    page = (Path(__file__).parent / "templates" / "live.html").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        """Answers questions and takes no orders; a silent client is let go after ten seconds."""

        timeout = 10

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            if asked.path == "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, encode(registry), content_type)
            elif asked.path == "/healthz":
                self._answer(200, b"ok\n", _PLAIN)
            elif feed is None:
                self._answer(404, b"try /metrics or /healthz; the page is the driver's\n", _PLAIN)
            elif asked.path not in ("/", "/live.json"):
                self._answer(404, b"try /, /metrics or /healthz\n", _PLAIN)
            elif not self._asked_by_its_name():
                self._answer(
                    403, b"ask for this page by the address that it is served on\n", _PLAIN
                )
            elif asked.path == "/":
                self._answer(200, page, "text/html; charset=utf-8")
            else:
                self._answer(200, _news(feed, parse_qs(asked.query)), "application/json")

        def _asked_by_its_name(self) -> bool:
            """Refuse a foreign page that had its own name resolved to loopback, to read samples."""
            named = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            return _is_loopback(named) or not _is_loopback(host)

        def _answer(self, status: int, body: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _news(feed: LiveFeed, query: dict[str, list[str]]) -> bytes:
    edition, held = (_number(query.get(key, ["-1"])[0]) for key in ("edition", "held"))
    return json.dumps(feed.since(edition, max(0, held)), allow_nan=False).encode()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else -1


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _open(handler: type[BaseHTTPRequestHandler], host: str, port: int) -> _Server | None:
    """Bind ``port``, else one of the next ones, else any; None: nothing can be bound."""
    candidates = [0] if port == 0 else [*range(port, min(port + _TRIES, 65536)), 0]
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError:
        return None
    for candidate in candidates:
        try:
            return _Server((host, candidate), handler, family)
        except OSError as error:
            _LOG.debug("port %d: %s", candidate, error)
    return None
