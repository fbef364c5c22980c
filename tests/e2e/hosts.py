"""Hosts of a small network on this machine: what they say to each other goes over wires to cut.

A host is a set of namespaces: interfaces and an address, a host name, a /tmp/ray of its own. All
hang on a bridge, which has a namespace too, out of reach of this machine's interfaces. A process
keeps each of them and ends with the test, however that ends; then nothing is left of it.
"""

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple, Self

import pytest

_NEEDED = ("ip", "unshare", "nsenter")


class Traffic(NamedTuple):
    """Bytes over a wire."""

    received: int
    sent: int

    def since(self, before: "Traffic") -> "Traffic":
        return Traffic(self.received - before.received, self.sent - before.sent)


class Host:
    """One machine, as far as the network goes: files and processes are those of this machine."""

    def __init__(self, name: str, address: str, ray_folder: Path) -> None:
        """Make it, with ``ray_folder`` for its /tmp/ray; skips the test where it may not be."""
        self.name = name
        self.address = address
        ray_folder.mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        make = (
            f"echo {name} > /proc/sys/kernel/hostname && ip link set lo up && "
            f"mount --bind '{ray_folder}' /tmp/ray && echo made && exec cat"
        )
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "sh", "-c", make],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._keeper.stdout
        if (answer := self._keeper.stdout.readline()) != "made\n":
            self.close()
            pytest.skip(f"this machine permits no hosts of their own ({answer.strip()})")

    @property
    def pid(self) -> int:
        """Of the process that keeps it."""
        return self._keeper.pid

    def command(self, *words: str | Path) -> list[str]:
        """Return what runs ``words`` there, in the folder where it is started."""
        enter = ("nsenter", f"--target={self.pid}", "--net", "--uts", "--mount", "--wd=.", "--")
        return [*enter, *map(str, words)]

    def run(self, *words: str | Path) -> str:
        """Run a short command there; returns what it prints."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def traffic(self) -> "Traffic":
        """Return what has come and gone over its wire so far."""
        counters = Path(f"/proc/{self.pid}/net/dev").read_text()
        (wire,) = [line for line in counters.splitlines() if line.strip().startswith("eth0:")]
        numbers = [int(word) for word in wire.partition(":")[2].split()]
        return Traffic(received=numbers[0], sent=numbers[8])

    def close(self) -> None:
        """Let it go; it is gone with the last process that is in it."""
        assert self._keeper.stdin and self._keeper.stdout
        self._keeper.stdin.close()
        self._keeper.wait(10)
        self._keeper.stdout.close()


class Network:
    """Hosts 10.77.0.1, 10.77.0.2 and on, each with a wire to one switch."""

    def __init__(self, count: int, folder: Path) -> None:
        """Make so many; their Rays write below ``folder``."""
        if missing := [name for name in _NEEDED if not shutil.which(name)]:
            pytest.skip(f"{' and '.join(missing)} not found (packages iproute2, util-linux)")
        with contextlib.ExitStack() as made:
            self._switch = Host("switch", "", folder / "switch")
            made.callback(self._switch.close)
            self._link("add", "bridge", "type", "bridge")
            self._link("set", "bridge", "up")
            self.hosts: list[Host] = []
            for number in range(1, count + 1):
                name = f"node-{number}"
                host = Host(name, f"10.77.0.{number}", folder / name)
                made.callback(host.close)
                self._wire(host)
                self.hosts.append(host)
            self._made = made.pop_all()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Take it down; what still runs on the hosts is for its owners to end."""
        self._made.close()

    def cut(self, host: Host) -> None:
        """Pull its plug at the switch: both sides live on, and hear nothing of each other."""
        self._link("set", host.name, "down")

    def limit(self, *discipline: str) -> None:
        """Queue by a discipline of ``tc``'s at both ends of every wire."""
        for host in self.hosts:
            host.run("tc", "qdisc", "add", "dev", "eth0", *discipline)
            self._switch.run("tc", "qdisc", "add", "dev", host.name, *discipline)

    def join(self, host: Host) -> None:
        """Put the plug back."""
        self._link("set", host.name, "up")

    def _wire(self, host: Host) -> None:
        far = ("peer", "name", "eth0", "netns", str(host.pid))
        try:
            self._link("add", host.name, "type", "veth", *far)
        except AssertionError as error:
            pytest.skip(f"this machine permits no wires between hosts ({error})")
        self._link("set", host.name, "master", "bridge", "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")

    def _link(self, *words: str) -> None:
        self._switch.run("ip", "link", *words)
