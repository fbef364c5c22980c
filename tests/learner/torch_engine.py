"""A learning step's engine on plain torch, and the naive way to the same log-probabilities."""

import torch
from torch import Tensor

from configs.wire import PreferenceTuple, Response
from learner.batch import MicroBatch
from learner.logprobs import ResponseScorer
from learner.response_head import StudentScores
from tests.learner.learner_builders import VOCABULARY, small_model


class TorchEngine:
    """The engine of a step without DeepSpeed: one rank of ``world_size``, nothing reduced."""

    def __init__(self, *, rank: int = 0, world_size: int = 1, step: int = 0) -> None:
        self.rank, self.world_size, self.step = rank, world_size, step
        self.device = torch.device("cpu")
        self.model = small_model()
        self.scorer = ResponseScorer(self.model, logits_at_once=16 * VOCABULARY)
        self.last: list[bool] = []

    def score(self, batch: MicroBatch) -> StudentScores:
        return StudentScores(*self.scorer(**batch.inputs))

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.last.append(last)
        loss.backward()

    def all_reduce(self, values: Tensor, *, maximum: bool = False) -> Tensor:
        return values

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.model.parameters() if p.grad is not None]


def naive_logprobs(engine: TorchEngine, item: PreferenceTuple, response: Response) -> Tensor:
    """Return (T,) log q of one response from the logits of its own, unpadded sequence."""
    prompt = torch.from_numpy(item.prompt.prompt_ids_P).long()
    ids = torch.cat([prompt, torch.from_numpy(response.ids_T).long()])
    logits = engine.model(input_ids=ids[None]).logits[0].log_softmax(-1)
    return logits[:-1].gather(1, ids[1:, None])[len(prompt) - 1 :, 0]
