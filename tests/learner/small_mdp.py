"""A language small enough to enumerate: 3 tokens of which 2 ends a response, at most 4 tokens.

A response ends with the token 2 or is cut after its fourth token, as `finish_reason` has it.
So there are 15 states (prefixes of 0s and 1s) and 31 responses, and every expectation is a
sum. float64 throughout.

Axes: ``S`` state, ``V`` vocabulary, ``Y`` response, ``T`` response token.
"""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

VOCABULARY, HORIZON, END = 3, 4, 2
PROMPT = (0, 1)

PREFIXES: list[tuple[int, ...]] = [
    prefix for length in range(HORIZON) for prefix in product(range(END), repeat=length)
]
"""The states: what has been said so far. The first is the empty response."""
RESPONSES = [
    (*prefix, action)
    for prefix in PREFIXES
    for action in range(VOCABULARY)
    if action == END or len(prefix) + 1 == HORIZON
]
LENGTH_Y = torch.tensor([float(len(response)) for response in RESPONSES], dtype=torch.float64)

_STATE = {prefix: state for state, prefix in enumerate(PREFIXES)}
NEXT_STATES_SV = torch.tensor(
    [[_STATE.get((*prefix, a), len(PREFIXES)) for a in range(VOCABULARY)] for prefix in PREFIXES]
)
VISITS_YSV = torch.zeros(len(RESPONSES), len(PREFIXES), VOCABULARY, dtype=torch.float64)
"""1 where a response takes an action in a state: sums over its tokens are contractions."""
for _row, _response in enumerate(RESPONSES):
    for _i, _action in enumerate(_response):
        VISITS_YSV[_row, _STATE[_response[:_i]], _action] = 1.0

MASK_YT = torch.tensor([[i < len(r) for i in range(HORIZON)] for r in RESPONSES])
ACTIONS_YT = torch.tensor([[*r, *[0] * (HORIZON - len(r))] for r in RESPONSES])
STATES_YT = torch.tensor(
    [[_STATE[r[:i]] if i < len(r) else 0 for i in range(HORIZON)] for r in RESPONSES]
)
"""The padding of both is 0, a valid index that the mask hides."""


def random_table(seed: int) -> Tensor:
    """Return (S, V) standard normal numbers: logits, or rewards."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(PREFIXES), VOCABULARY, generator=generator, dtype=torch.float64)


def gpt2_table(seed: int) -> Tensor:
    """Return (S, V) the logits of a random GPT-2 after the prompt and each prefix."""
    model = small_gpt2(seed, vocabulary=VOCABULARY)
    with torch.no_grad():
        rows = [model(torch.tensor([[*PROMPT, *p]])).logits[0, -1] for p in PREFIXES]
    return torch.stack(rows)


def logprobs(seed: int, table: Callable[[int], Tensor] = random_table) -> Tensor:
    """Return (S, V) log-probabilities from a table of logits."""
    return table(seed).log_softmax(-1)


def small_gpt2(seed: int, *, vocabulary: int) -> GPT2LMHeadModel:
    """Return a random GPT-2 in float64, in evaluation mode, far from uniform."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.5,
        bos_token_id=END,
        eos_token_id=END,
    )
    return GPT2LMHeadModel(config).double().eval()


def over_responses(table_SV: Tensor) -> Tensor:
    """Return (Y,) the sum of a table along each response: S_q of log q, R of rewards."""
    return torch.einsum("ysv,sv->y", VISITS_YSV, table_SV)


def along_responses(table_SV: Tensor) -> Tensor:
    """Return (Y, T) a table's entries along each response, 0 at padding."""
    return torch.where(MASK_YT, table_SV[STATES_YT, ACTIONS_YT], 0.0)


def conditionals(probability_Y: Tensor) -> Tensor:
    """Return (S, V) log P(a|s) of any distribution over responses, by counting its mass."""
    mass_SV = torch.einsum("ysv,y->sv", VISITS_YSV, probability_Y)
    return (mass_SV / mass_SV.sum(-1, keepdim=True)).log()


def kl(log_q_Y: Tensor, log_p_Y: Tensor) -> Tensor:
    """Return KL(q || p) over responses, nats."""
    return (log_q_Y.exp() * (log_q_Y - log_p_Y)).sum(-1)


def close(actual: Tensor, expected: Tensor | float) -> bool:
    """Tell whether two agree to 1e-12, the largest residual that float64 leaves here."""
    return bool((actual - expected).abs().max() < 1e-12)
