"""A student's logits as a Q-function: the MDP view of DPKD (arXiv 2406.19774, section 3.2).

A state s_i = (x, y_<i) is the prompt and the response so far, an action a_i = y_i the next token.
The next state is s_i with a_i appended, nothing is discounted, and V(terminal) = 0. In the
paper's convention, which puts the teacher p's term inside Q (Eq 13 and 14),

    Q(s, a) = r(s, a) + beta log p(a|s) + V(s')
    q(a|s)  = exp((Q(s, a) - V(s)) / beta),   V(s) = beta logsumexp_a Q(s, a) / beta,

so any student's logits are a Q-function: Q = beta logits, V = beta logsumexp(logits).

**Credit per token is known only up to potential shaping.** Logits plus any c(s) are the same
student with another V, and hence another r at every token: r + Phi(s') - Phi(s). What does not
depend on Phi is the sum over a trajectory (up to one constant a prompt), the difference of Q
between two actions in the *same* state, and the advantage; report those. The advantage
beta log q/p is r + V(s') - V(s) under the student's own r and V; it is not the token's reward.

torch only. Axes: ``T`` response token, ``V`` vocabulary, ``S`` state of an explicit MDP;
any batch axes may stand before ``T``.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class TrajectoryValues(NamedTuple):
    """What a student's logits say of each step of given responses; all (..., T), 0 at padding."""

    q_T: Tensor
    """Q(s_i, a_i) of the token that was taken."""
    value_T: Tensor
    """V(s_i), before the token."""
    next_value_T: Tensor
    """V(s_{i+1}), after it; 0 after the last token, which ends the trajectory."""
    advantage_T: Tensor
    """beta log q/p = Q - V - beta log p."""
    reward_T: Tensor
    """r(s_i, a_i) = Q - beta log p - V(s_{i+1}), the reward that the logits imply. It moves with
    the logits' free offset c(s): sum it, do not read it token by token."""

    @property
    def trajectory_reward(self) -> Tensor:
        """Return (...) the right-hand side of Eq 15, V(s_0) + sum_i beta log q/p.

        Equal to ``reward_T.sum(-1)``, because the values in between telescope.
        """
        return self.value_T[..., 0] + self.advantage_T.sum(-1)


def q_values(logits_TV: Tensor, *, beta: float) -> Tensor:
    """Return (..., T, V) Q(s, a) = beta logits (Eq 13, solved for Q)."""
    return beta * logits_TV


def state_values(logits_TV: Tensor, *, beta: float) -> Tensor:
    """Return (..., T) V(s) = beta logsumexp(logits): what makes Eq 13 sum to one."""
    return beta * logits_TV.logsumexp(-1)


def advantages(student_logprobs: Tensor, teacher_logprobs: Tensor, *, beta: float) -> Tensor:
    """Return beta log q/p, of one shape: (..., T) of taken tokens, or (..., T, V) of them all.

    Free of the logits' offset. In one state the difference between two entries of ``V`` is a
    difference of rewards-to-come, r(s, a) + V(s_a) - r(s, b) - V(s_b).
    """
    assert student_logprobs.shape == teacher_logprobs.shape
    return beta * (student_logprobs - teacher_logprobs)


def trajectory_values(
    logits_TV: Tensor,
    actions_T: Tensor,
    teacher_logprobs_T: Tensor,
    *,
    beta: float,
    mask_T: Tensor | None = None,
) -> TrajectoryValues:
    """Return Q, V, advantages and implied rewards along responses.

    ``logits_TV`` (..., T, V) float, the student's at the positions that predict the response;
    ``actions_T`` (..., T) int64, the response's tokens; ``teacher_logprobs_T`` (..., T) float,
    log p of them; ``mask_T`` (..., T) bool, true at tokens, false at the padding on the right
    (None: no padding). beta is in units of reward per nat.

    The last token ends the trajectory, also where the response was cut at its maximum length.
    """
    assert logits_TV.dtype in (torch.float32, torch.float64), f"logits_TV is {logits_TV.dtype}"
    assert logits_TV.shape[:-1] == actions_T.shape == teacher_logprobs_T.shape
    mask_T = torch.ones_like(actions_T, dtype=torch.bool) if mask_T is None else mask_T
    assert mask_T.shape == actions_T.shape and mask_T.dtype == torch.bool
    taken_T = q_values(logits_TV, beta=beta).gather(-1, actions_T[..., None])[..., 0]
    zero = taken_T.new_zeros(())
    q_T = torch.where(mask_T, taken_T, zero)
    value_T = torch.where(mask_T, state_values(logits_TV, beta=beta), zero)
    teacher_T = torch.where(mask_T, beta * teacher_logprobs_T, zero)
    next_value_T = torch.cat([value_T[..., 1:], torch.zeros_like(value_T[..., :1])], dim=-1)
    return TrajectoryValues(
        q_T=q_T,
        value_T=value_T,
        next_value_T=next_value_T,
        advantage_T=q_T - value_T - teacher_T,
        reward_T=q_T - teacher_T - next_value_T,
    )


def returns_to_go(rewards_T: Tensor) -> Tensor:
    """Return (..., T) sum_{j >= i} rewards_j, undiscounted; padding must hold 0."""
    return rewards_T.flip(-1).cumsum(-1).flip(-1)


def soft_bellman_residual(
    q: Tensor, reward: Tensor, teacher_logprobs: Tensor, next_value: Tensor, *, beta: float
) -> Tensor:
    """Return Q - (r + beta log p + V(s')) element by element: 0 where Eq 14 holds.

    All of one shape, along trajectories or over a table of states. It is 0 by construction for
    the reward that the logits themselves imply; it says something about any *other* reward.
    """
    assert q.shape == reward.shape == teacher_logprobs.shape == next_value.shape
    return q - (reward + beta * teacher_logprobs + next_value)


class SoftOptimum(NamedTuple):
    """The solution of E[sum r] - beta KL(q || p) over policies q of an explicit MDP."""

    q_SV: Tensor
    """(S, V) Q*(s, a)."""
    value_S: Tensor
    """(S,) V*(s)."""
    logprobs_SV: Tensor
    """(S, V) log q*(a|s) = (Q* - V*) / beta."""


def soft_value_iteration(
    next_states_SV: Tensor, rewards_SV: Tensor, teacher_logprobs_SV: Tensor, *, beta: float
) -> SoftOptimum:
    """Solve Eq 13 and 14 for a small MDP with deterministic steps and without cycles.

    ``next_states_SV`` (S, V) int64 holds the state that each action leads to, and S itself where
    the trajectory ends; ``rewards_SV`` and ``teacher_logprobs_SV`` are (S, V) float.

    Backward induction: a sweep settles every state whose next states are settled, so the
    values stop changing, to the last bit, after as many sweeps as the longest trajectory has
    steps. Raises ValueError where they do not, because a state leads back to itself.
    """
    states = len(rewards_SV)
    assert next_states_SV.shape == rewards_SV.shape == teacher_logprobs_SV.shape
    assert int(next_states_SV.min()) >= 0 and int(next_states_SV.max()) <= states
    value_S = rewards_SV.new_zeros(states + 1)  # the last entry is V(terminal)
    for _ in range(states + 1):
        q_SV = rewards_SV + beta * teacher_logprobs_SV + value_S[next_states_SV]
        settled_S = torch.cat([state_values(q_SV / beta, beta=beta), value_S[-1:]])
        if torch.equal(settled_S, value_S):
            logprobs_SV = (q_SV - value_S[:-1, None]) / beta
            return SoftOptimum(q_SV, value_S[:-1], logprobs_SV)
        value_S = settled_S
    raise ValueError("next_states_SV has a cycle: every trajectory must reach the terminal state")
