"""Keeps one vLLM engine full with the requests of several calls: continuous batching across them.

    call A   ████████████████▄▄▂▁          its last responses are long
    call B            ▁▂▂▆▆██████████▄▂▁   goes in as A's others finish

Calls come from threads of their own. One of them makes the engine's steps, for all, until it has
its own answers; then another that still waits does.
"""

from collections import deque
from collections.abc import Sequence
from itertools import count
from threading import Condition
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams


class _Request(NamedTuple):
    call: "_Call"
    place: int
    """Of its answer, among its call's."""
    prompt: list[int]
    parameters: "SamplingParams"


class _Call:
    """What was asked at once, and what is answered so far."""

    def __init__(self, size: int) -> None:
        self.answers: list[RequestOutput | None] = [None] * size
        self.missing = size


class SharedEngine:
    """Runs requests in the order in which they are asked, ``width`` of them at once.

    All requests of the oldest call are in the engine, however many; a later call's take the
    places that come free.
    """

    def __init__(self, llm: "LLM", width: int) -> None:
        self._llm = llm
        self._width = width
        self._changed = Condition()
        self._led = False
        """Whether a call makes steps now."""
        self._failure: BaseException | None = None
        """What a step raised."""
        self._waiting: deque[_Request] = deque()
        self._running: dict[str, _Request] = {}
        """By the name that vLLM knows it by."""
        self._names = count()

    @property
    def alive(self) -> bool:
        """Whether no step has failed so far: after one that did, requests are still queued."""
        return self._failure is None

    def run(
        self, prompts: Sequence[list[int]], parameters: "Sequence[SamplingParams]"
    ) -> "list[RequestOutput]":
        """Return what vLLM answers to each prompt of token ids.

        Raises what a step raised, in the call that made it, and RuntimeError from that in all
        others, then and later.
        """
        call = _Call(len(prompts))
        requests = [
            _Request(call, place, *each)
            for place, each in enumerate(zip(prompts, parameters, strict=True))
        ]
        with self._changed:
            self._waiting.extend(requests)
            self._changed.wait_for(lambda: self._failure or not (call.missing and self._led))
            if call.missing and self._failure:
                raise RuntimeError("the vLLM engine has failed; build a new one") from self._failure
            leads = call.missing > 0
            self._led |= leads
        if leads:
            self._lead(call)
        return [answer for answer in call.answers if answer is not None]

    def _lead(self, call: _Call) -> None:
        """Make steps until ``call`` is answered."""
        import torch

        # A thread that is new to torch takes over how many threads compute when it first asks; the
        # kernels of vLLM ask OpenMP, which would say another number until then.
        torch.get_num_threads()
        try:
            while call.missing:
                self._admit()
                self._step()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            with self._changed:
                self._led = False
                self._changed.notify_all()

    def _admit(self) -> None:
        """Give the engine the oldest call's requests, and others while there is room."""
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        while self._waiting:
            oldest = next(iter(self._running.values()), self._waiting[0]).call
            if self._waiting[0].call is not oldest and len(self._running) >= self._width:
                return
            request, name = self._waiting.popleft(), str(next(self._names))
            self._running[name] = request
            request.parameters.output_kind = RequestOutputKind.FINAL_ONLY
            prompt = tokens_input(request.prompt)
            self._llm.llm_engine.add_request(name, prompt, request.parameters)

    def _step(self) -> None:
        for output in self._llm.llm_engine.step():
            if output.finished:
                call, place, *_ = self._running.pop(output.request_id)
                call.answers[place] = cast("RequestOutput", output)
                call.missing -= 1
                if not call.missing:
                    with self._changed:
                        self._changed.notify_all()
