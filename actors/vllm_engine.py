"""One vLLM engine in this process: token ids in; token ids and log-probabilities out.

vLLM is imported when an engine is built and not before: importing this module is cheap. Several
engines can live in one process, also beside DeepSpeed; ``vllm_start`` says what that takes.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.model_folder import UNREADABLE, model_folder
from actors.shared_engine import SharedEngine
from actors.vllm_start import start_vllm, transport
from configs.errors import DataError, DependencyError, WeightSyncError
from configs.faults import failpoint
from configs.sampling import Sampling
from configs.student import WeightTransfer
from configs.wire import Response, WeightManifest

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from vllm import LLM, RequestOutput, SamplingParams

MAX_LOGPROBS = 20
"""vLLM's own default of the longest list of likeliest tokens that may be asked for."""


class VllmEngine:
    """Draws and scores responses, and takes new weights when ``receives_weights`` is set.

    Raises DependencyError, before vLLM starts, when ``model`` is no complete model.
    ``max_logprobs`` is the largest ``k`` of ``prompt_distributions``. Calls may come from several
    threads at once; while there are ``at_once`` requests in the engine, a later call's wait.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        seed: int,
        max_model_len: int | None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        gpu_memory_utilization: float = 0.4,
        tensor_parallel: int = 1,
        receives_weights: bool = False,
        weight_transfer: WeightTransfer = "auto",
        max_logprobs: int = MAX_LOGPROBS,
        exit_on_death: bool = False,
        prefix_caching: bool = True,
        at_once: int = 1,
    ) -> None:
        folder = str(model_folder(model, revision=revision))
        self._hf_config, self._stop_ids = _describe(folder, trust_remote_code)
        self._trust_remote_code = trust_remote_code
        self._exit_on_death = exit_on_death
        self.weight_transfer = transport(weight_transfer) if receives_weights else None
        """``object_store``, ``nccl`` or ``ipc``; None: this engine takes no weights."""
        self._llm: LLM | None = start_vllm(
            model=folder,
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype=dtype,
            seed=seed,
            max_model_len=max_model_len,
            trust_remote_code=trust_remote_code,
            gpu_memory_utilization=gpu_memory_utilization,
            tensor_parallel_size=tensor_parallel,
            max_logprobs=max_logprobs,
            enable_prefix_caching=prefix_caching,
            transport=self.weight_transfer,
        )
        self._shared = SharedEngine(self._llm, at_once)
        self.max_model_len: int = self._llm.llm_engine.model_config.max_model_len
        """Longest prompt plus response, in tokens."""
        self.vocab_size: int = self._hf_config.vocab_size
        """Token ids are below this."""
        if self.weight_transfer == "object_store":
            self.transfer("init_weight_transfer_engine", {"init_info": {}})

    def generate(
        self, prompts: Sequence[np.ndarray], *, sampling: Sampling, seeds: Sequence[int]
    ) -> list[Response]:
        """Draw one response for each (P,) int32 prompt; ``behaviour_logprobs_T`` is set.

        A response depends on weights, prompt, sampling and its seed alone, bit for bit, not on
        what else is in the batch (tested on a CPU with one thread, float32). It ends with the
        model's end-of-sequence token, at ``max_new_tokens``, or where the context ends.
        Raises DataError for a prompt that leaves no room for a response.
        """
        return self.generate_and_score(prompts, sampling=sampling, seeds=seeds)[0]

    def generate_and_score(
        self,
        prompts: Sequence[np.ndarray],
        *,
        sampling: Sampling,
        seeds: Sequence[int],
        scored: Sequence[np.ndarray] = (),
    ) -> tuple[list[Response], list[np.ndarray]]:
        """Return what ``generate`` does for ``prompts`` and ``prompt_logprobs`` for ``scored``.

        Both are computed in the same steps of the engine: a few scored tokens cost next to nothing.
        """
        drawing, scoring = self._drawing(sampling, seeds), self._scoring(scored, 0)
        sequences = [*prompts, *(ids[:-1] for ids in scored)]
        outputs = self._run(sequences, [*drawing, *scoring])
        drawn, others = outputs[: len(prompts)], outputs[len(prompts) :]
        return [_response(output) for output in drawn], [_logprobs(output) for output in others]

    def prompt_logprobs(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (L-1,) float32, log p(ids[i+1] | ids[:i+1]), for each (L,) int32 sequence, L >= 2.

        The last id is not part of the prompt: it is *generated*, as the only one allowed. So a
        sequence may fill the context. Raw log-probabilities do not see that constraint.
        """
        return [_logprobs(output) for output in self._score(sequences, 0)]

    def prompt_distributions(
        self, sequences: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the ``k`` likeliest tokens after ids[:i+1], for each (L,) int32 sequence, L >= 2.

        They are (L-1, k) int32 ids, likeliest first, and their (L-1, k) float32 log-probabilities.
        """
        tables = [_table(output, k) for output in self._score(sequences, k)]
        return [(ids[:, 1:].copy(), logprobs[:, 1:].copy()) for ids, logprobs in tables]

    def _score(self, sequences: Sequence[np.ndarray], k: int) -> "list[RequestOutput]":
        return self._run([ids[:-1] for ids in sequences], self._scoring(sequences, k))

    def _drawing(self, sampling: Sampling, seeds: Sequence[int]) -> "list[SamplingParams]":
        from vllm import SamplingParams

        return [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=seed,
                stop_token_ids=self._stop_ids,
                logprobs=0,
                flat_logprobs=True,
                detokenize=False,
            )
            for seed in seeds
        ]

    def _scoring(self, sequences: Sequence[np.ndarray], k: int) -> "list[SamplingParams]":
        from vllm import SamplingParams

        return [
            SamplingParams(
                temperature=0.0,
                max_tokens=1,
                allowed_token_ids=[int(ids[-1])],
                logprobs=k,
                prompt_logprobs=k,
                flat_logprobs=True,
                detokenize=False,
            )
            for ids in sequences
        ]

    def warm_up(self) -> None:
        """Generate once, so that the first real call does not pay for set-up."""
        sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=1)
        self.generate([np.zeros(1, np.int32)], sampling=sampling, seeds=[0])

    def load_weights(self, manifest: WeightManifest, parts: Sequence[np.ndarray]) -> None:
        """Load one push through the object store; raises WeightSyncError when it does not fit."""
        if self.weight_transfer != "object_store":
            raise WeightSyncError(
                f"this sampler takes weights by {self.weight_transfer}, not through the object "
                "store; set student.weight_transfer=object_store"
            )
        update = {"tensors": manifest.tensors, "parts": parts}
        try:
            self.transfer("start_weight_update")
            self.transfer("update_weights", {"update_info": update})
            self.transfer("finish_weight_update")
        except (ValueError, KeyError, AssertionError, RuntimeError) as error:
            if isinstance(error, WeightSyncError):
                raise
            raise WeightSyncError(
                f"the sampler's model refused weight push {manifest.version}: {error!r}"
            ) from error

    def transfer(self, phase: str, payload: dict[str, Any] | None = None) -> None:
        """Make one call of vLLM's weight-transfer protocol on every worker of the engine.

        ``phase`` is one of ``init_weight_transfer_engine`` (payload ``init_info``),
        ``start_weight_update``, ``update_weights`` (payload ``update_info``) and
        ``finish_weight_update``, after which nothing computed with old weights is kept.
        """
        llm = self._running()
        llm.collective_rpc(phase, kwargs=payload)
        if phase == "finish_weight_update" and not llm.reset_prefix_cache():
            raise WeightSyncError(
                "weights were loaded while responses were being drawn; push again"
            )

    def expected_tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor of the model's ``state_dict()``."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                self._hf_config, trust_remote_code=self._trust_remote_code
            )
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    def close(self) -> None:
        """End the engine and free its memory; safe to call twice."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def _run(
        self, prompts: Sequence[np.ndarray], parameters: "list[SamplingParams]"
    ) -> "list[RequestOutput]":
        for index, ids in enumerate(prompts):
            self._check(index, ids)
        if not prompts:
            return []
        self._running()
        try:
            failpoint("sampler.engine")
            return self._shared.run([ids.tolist() for ids in prompts], parameters)
        except BaseException:
            if self._exit_on_death:
                # Only a process that ends is restarted by Ray.
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            raise

    def _running(self) -> "LLM":
        if self._llm is None or not self._shared.alive:
            raise RuntimeError("the vLLM engine is closed or has failed; build a new one")
        return self._llm

    def _check(self, index: int, ids: np.ndarray) -> None:
        if not 1 <= len(ids) < self.max_model_len:
            raise DataError(
                f"prompt {index} of the batch has {len(ids)} tokens; it needs at least one, and "
                f"room for one more in the context of {self.max_model_len}"
            )
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise DataError(
                f"prompt {index} of the batch has token ids from {ids.min()} to {ids.max()}, "
                f"and the model a vocabulary of {self.vocab_size}; use the model's tokenizer"
            )


def _describe(folder: str, trust_remote_code: bool) -> "tuple[PretrainedConfig, list[int]]":
    """Return the model's configuration and the ids that end a response."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise DependencyError(
            f"model folder {folder}: config.json cannot be used ({reason}); give a complete model "
            "in Hugging Face layout"
        ) from None
    config = config.get_text_config()
    try:
        ends = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:
        ends = None
    if ends is None:
        ends = getattr(config, "eos_token_id", None)
    if ends is None:
        ends = _tokenizer_end(AutoTokenizer, folder, trust_remote_code)
    stop_ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if any(not 0 <= i < config.vocab_size for i in stop_ids):
        raise DependencyError(
            f"model folder {folder}: eos_token_id {stop_ids} is outside its vocabulary of "
            f"{config.vocab_size}, so no response would ever end; mend config.json"
        )
    return config, stop_ids


def _tokenizer_end(auto_tokenizer: Any, folder: str, trust_remote_code: bool) -> int | None:
    try:
        tokenizer = auto_tokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        return None  # a model without tokenizer: responses end by length
    return tokenizer.eos_token_id


def _response(output: "RequestOutput") -> Response:
    completion = output.outputs[0]
    if completion.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a request with {completion.finish_reason!r}")
    drawn: Any = completion.logprobs
    assert drawn.token_ids == list(completion.token_ids), "one log-probability a token"
    return Response(
        ids_T=np.array(completion.token_ids, np.int32),
        finish_reason=completion.finish_reason,
        behaviour_logprobs_T=np.array(drawn.logprobs, np.float32),
    )


def _logprobs(output: "RequestOutput") -> np.ndarray:
    return _table(output, 0)[1][:, 0]


def _table(output: "RequestOutput", k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (L-1, k+1) int32 ids and float32 log-probabilities of a scored sequence.

    vLLM's flat form lists k + 1 tokens a position: the one that is there, whatever its rank,
    then the k likeliest by rank. The first prompt token has no entry.
    """
    completion = output.outputs[0]
    parts: list[Any] = [output.prompt_logprobs, completion.logprobs]
    ids, logprobs, ranks = (
        np.concatenate([getattr(part, name) for part in parts]).reshape(-1, k + 1)
        for name in ("token_ids", "logprobs", "ranks")
    )
    there = [*(output.prompt_token_ids or [])[1:], *completion.token_ids]
    assert (ids[:, 0] == there).all() and (ranks[:, 1:] == np.arange(1, k + 1)).all()
    return ids.astype(np.int32), logprobs.astype(np.float32)
