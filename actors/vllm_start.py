"""Starting vLLM in a process that may hold other engines, and a learner.

vLLM takes a process for its own; here is what makes it a good neighbour. Imports vLLM when it
starts one.
"""

import gc
import os
from typing import TYPE_CHECKING, Any

from actors.vllm_environment import vllm_environment
from configs.errors import ConfigError
from configs.student import WeightTransfer

if TYPE_CHECKING:
    from vllm import LLM


def transport(wanted: WeightTransfer) -> str:
    """Return how weights reach an engine on this machine's device.

    ``nccl`` (packed broadcast between GPUs) and ``ipc`` (learner and sampler share a GPU) are
    vLLM's own, driven from the learner by ``learner.weights.open_cuda_sender``. That path follows
    vLLM's documented protocol and has not been run on a GPU.
    """
    if wanted != "auto":
        return wanted
    import torch

    return "nccl" if torch.cuda.is_available() else "object_store"


def start_vllm(*, transport: str | None, **options: Any) -> "LLM":
    """Start vLLM in this process, which may already hold other engines and a process group.

    An existing torch.distributed group of one rank (DeepSpeed's, or another engine's) is reused
    by vLLM, and DeepSpeed reuses vLLM's: the order does not matter.
    """
    for name, value in vllm_environment(threads=1, kv_cache_gib=1).items():
        os.environ.setdefault(name, value)
    import torch

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        # Two small sampling kernels are all that vLLM would compile on a CPU in eager mode:
        # up to a minute in a fresh process, for no speed that could be measured.
        import torch._dynamo

        torch._dynamo.config.disable = True
        # Its kernels for bfloat16 use Intel's matrix registers where there are any, and leave it
        # to others to ask Linux for them: without, the first token ends the process.
        torch.cpu._init_amx()
    set_num_threads = torch.set_num_threads
    from vllm import LLM

    if on_cpu:
        _fuse_gelu()
        _leave_out_what_compilers_need()
    _keep_shared_state()
    _forget_dead_groups()
    if transport is not None:
        from actors.weight_transfer import register

        register()
    llm = LLM(
        **options,
        weight_transfer_config=transport and {"backend": transport},
        enforce_eager=on_cpu,
        logprobs_mode="raw_logprobs",
        # A seeded request whose prompt is cut into chunks crashes vLLM 0.32 on a CPU ("CPU
        # Generator does not use offset").
        enable_chunked_prefill=not on_cpu,
        disable_log_stats=True,
    )
    torch.set_num_threads = set_num_threads  # vLLM's CPU worker makes it a no-op
    _check_head_size(llm)
    return llm


def _fuse_gelu() -> None:
    """Have GPT-2's activation computed in one pass over memory, not in eight; the same function."""
    import torch
    from vllm.model_executor.layers.activation import NewGELU

    def fused(self: NewGELU, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x, approximate="tanh")

    NewGELU.forward_native = fused


def _leave_out_what_compilers_need() -> None:
    """Have attention and the ranks of drawn tokens called as they are: nothing is compiled here.

    vLLM wraps both for torch.compile, which a small model's steps feel; they
    compute the same.
    """
    import torch
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.sample import sampler

    def ranks(logprobs: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        return (logprobs >= drawn).sum(-1)

    CpuPlatform.opaque_attention_op = classmethod(lambda cls: False)  # type: ignore[method-assign]
    sampler.batched_count_greater_than = ranks


def _check_head_size(llm: "LLM") -> None:
    """Raise ConfigError for a head size that vLLM's CPU attention lacks: it would fail later."""
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size = llm.llm_engine.model_config.get_head_size()
    supported = CPUAttentionBackend.get_supported_head_sizes()
    if current_platform.is_cpu() and size not in supported:
        raise ConfigError(
            f"the model has attention heads of size {size}, and vLLM on a CPU only knows "
            f"{', '.join(map(str, supported))}; choose hidden_size / heads to be one of these"
        )


def _keep_shared_state() -> None:
    """Let a closing engine leave torch.distributed alone: others in the process may use it.

    vLLM's engine, on shutdown, destroys the default process group, whoever made it. It goes with
    the process.
    """
    from vllm.v1.engine import core

    core.cleanup_dist_env_and_memory = gc.collect  # type: ignore[assignment]


def _forget_dead_groups() -> None:
    """Make vLLM build its groups anew when the default process group is not the one it used.

    A learner that closes takes the default group along; vLLM would keep the handles.
    """
    import torch
    from vllm.distributed import parallel_state

    world = parallel_state._WORLD
    if world is None:
        return
    try:
        torch.distributed.get_backend(world.device_group)
    except ValueError:
        for name, value in vars(parallel_state).items():
            if isinstance(value, parallel_state.GroupCoordinator):
                setattr(parallel_state, name, None)
