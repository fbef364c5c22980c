"""Environment variables that a process must have before it imports vLLM."""

import math


def vllm_environment(*, threads: int, kv_cache_gib: float) -> dict[str, str]:
    """Return the variables for an engine with ``threads`` threads and ``kv_cache_gib`` of cache.

    Imports nothing, so that the driver can put them into an actor's environment without
    loading vLLM. vLLM reads the cache size as whole GiB: it is rounded up (the pages that are
    never used are never resident).
    """
    return {
        # The engine runs in the caller's process: weights are handed over without a copy.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, math.ceil(kv_cache_gib))),
        # Several engines on one machine would otherwise bind the same cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
