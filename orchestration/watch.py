"""`make watch`: a local Prometheus that finds running jobs by itself.

It listens on loopback, keeps its data below the cache, and ends with this command.
"""

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from configs.errors import ConfigError, DependencyError, DpkdError
from configs.run import RunConfig
from orchestration.targets import targets_folder

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".venv/tools/usr/bin"
"""Where `make tools` puts Prometheus."""
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
RAY_TARGETS = Path("/tmp/ray/prom_metrics_service_discovery.json")
"""Ray's own file: its system metrics are scraped beside ours."""
SCRAPE_SECONDS = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run Prometheus until Ctrl-C; returns the process's exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return _watch(options.cache, options.port)
    except DpkdError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code


def find_program(name: str) -> str | None:
    """Return the path of a program of Prometheus: the one of `make tools`, or the system's."""
    return shutil.which(name, path=str(TOOLS)) or shutil.which(name)


def settings(cache: Path) -> str:
    """Return prometheus.yml, which finds the runs that use ``cache``."""
    found = [
        {"job_name": "dpkd", "file_sd_configs": [_files(targets_folder(cache) / "*.json")]},
        {"job_name": "ray", "file_sd_configs": [_files(RAY_TARGETS)]},
    ]
    rules = [str(ALERTS)] if ALERTS.exists() else []
    scrape = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "10s"}
    return yaml.safe_dump({"global": scrape, "rule_files": rules, "scrape_configs": found})


def _files(pattern: Path) -> dict[str, object]:
    return {"files": [str(pattern)], "refresh_interval": "5s"}


def _watch(cache: Path, port: int) -> int:
    program = find_program("prometheus")
    if program is None:
        raise DependencyError(
            "Prometheus is not installed: on Debian and Ubuntu `make tools` gets it, without "
            "starting a service; elsewhere put `prometheus` on the PATH"
        )
    home = cache.expanduser() / "prometheus"
    try:
        home.mkdir(parents=True, exist_ok=True)
        targets_folder(cache).mkdir(parents=True, exist_ok=True)
        (home / "prometheus.yml").write_text(settings(cache), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be written ({error.strerror}); give another folder by --cache"
        ) from None
    runs = sorted(path.stem for path in targets_folder(cache).glob("*.json"))
    seen = ", ".join(runs) or "for runs"
    print(f"watching {seen}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)  # noqa: T201
    return _until_told([program, *_arguments(home, port)], home / "prometheus.log")


def _arguments(home: Path, port: int) -> list[str]:
    return [
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=30d",
    ]


def _until_told(command: Sequence[str], log: Path) -> int:
    """Run a command until it ends, or a signal ends both."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: process.terminate())
        code = process.wait()
    if code > 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        why = next((line for line in reversed(lines) if "err=" in line), "no reason given")
        raise DependencyError(f"Prometheus ended with exit code {code}: {why}; all of it: {log}")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.watch",
        description="Run a local Prometheus, on loopback, that finds running jobs by itself.",
    )
    default = RunConfig.model_fields["cache"].default
    parser.add_argument("--port", type=int, default=9090, help="port (default: 9090)")
    parser.add_argument(
        "--cache", type=Path, default=default, help=f"cache of the runs (default: {default})"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
