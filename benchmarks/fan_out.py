"""Weights to seven machines in shards, against a copy to each.

    python -m benchmarks.fan_out [--runs 5]

Nine hosts in network namespaces of this machine, each with a wire of 200 Mbit/s each way: Ray's
head, a learner's and seven samplers'. Their parts compute nothing; the push is ``WeightSync``'s,
over Ray, from asking the learner until the last sampler has all 25 MB together. A copy takes a
wire 1 s: the straight way takes seven of the learner's, shards two of every one's at best. Needs
root, and iproute2's ``ip`` and ``tc``.
"""

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actors.weights import joined
from benchmarks import idle_parts
from benchmarks.figures import command_line, in_turns, report
from configs.cluster import ClusterConfig, RoleResources
from configs.wire import TensorSpec, WeightManifest, WeightReceipt
from learner.weights import cut
from orchestration import fan_out

MACHINES = 7
TENSORS, NBYTES = 5, 25_000_000
LINE = "root tbf rate 200mbit burst 256kb latency 400ms".split()
ADDRESS = "DPKD_FAN_OUT_ADDRESS"
"""Of the cluster; whoever is told of it is the driver."""


class Learner(idle_parts.Learner):
    """Has weights to send."""

    def publish_weights(self, _lend: bool, shards: int) -> tuple[Any, ...]:
        """Publish zeros."""
        size = NBYTES // TENSORS
        specs = tuple(TensorSpec(str(n), (size // 2,), "bfloat16") for n in range(TENSORS))
        manifest = WeightManifest(
            version=self._step, tensors=specs, nbytes=NBYTES, probe_ids=np.zeros(2, np.int32)
        )
        return manifest, *cut([np.zeros(size, np.uint8)] * TENSORS, shards)


class Sampler(idle_parts.Sampler):
    """Takes them as a real one does, and has nothing to load them into."""

    def load_weights(self, manifest: WeightManifest, *shards: list[np.ndarray]) -> WeightReceipt:
        """Put a push together."""
        whole = np.concatenate(joined(manifest, shards))
        return super().load_weights(manifest, whole)

    def relay(self, shard: list[np.ndarray]) -> list[np.ndarray]:
        """Hand a shard on."""
        return shard


def main() -> int:
    """Measure; returns the exit code."""
    runs = command_line("fan_out", 5, __doc__)
    if address := os.environ.get(ADDRESS):
        return _drive(address, runs)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    from tests.e2e.ray_hosts import LEARNER, SAMPLER, RayHosts

    with (
        tempfile.TemporaryDirectory() as folder,
        RayHosts(Path(folder), LEARNER, *[SAMPLER] * MACHINES) as cluster,
    ):
        cluster.network.limit(*LINE)
        command = cluster.head.command(sys.executable, "-m", "benchmarks.fan_out", *sys.argv[1:])
        told = {**os.environ, ADDRESS: cluster.address}
        return subprocess.run(command, env=told, check=False).returncode


def _drive(address: str, runs: int) -> int:
    from orchestration.launcher import RayLauncher
    from orchestration.learner_group import LearnerGroup
    from orchestration.weight_sync import WeightSync

    learning, drawing = (RoleResources(cpus=0, custom={role: 1}) for role in ("learner", "sampler"))
    config = ClusterConfig(address=address, learner=learning, sampler=drawing)
    with RayLauncher(config, "fan-out") as launcher, asyncio.Runner() as runner:
        learner = launcher.role("learner-0", Learner)
        samplers = [
            launcher.role(f"sampler-{index}", Sampler, calls_at_once=2) for index in range(MACHINES)
        ]
        parts = [learner, *samplers]
        sync = WeightSync(LearnerGroup([learner]), samplers)

        async def start() -> None:
            await asyncio.gather(*(part.call("build") for part in parts))
            await asyncio.gather(*(part.is_alive(30) for part in parts))  # now they say where
            await sync.push()

        def push(fewest: int) -> Callable[[], float]:
            def seconds() -> float:
                fan_out.FEWEST = fewest
                return runner.run(sync.push()).seconds

            return seconds

        runner.run(start())
        turns = in_turns(runs, push(fan_out.FEWEST), push(MACHINES + 1))
        return report("fan_out", _ratios(turns))


def _ratios(turns: Any) -> Any:
    for shards, straight in turns:
        print(f"{NBYTES / 1e6:.0f} MB: in shards {shards:.2f} s, straight {straight:.2f} s")
        yield shards / straight


if __name__ == "__main__":
    sys.exit(main())
