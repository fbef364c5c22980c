"""The MDP view: the functions by hand, then identities 1 to 10 by summing over every response.

Residuals are below 1e-12 in float64. Identities about a student's logits are checked on random
tables and on the logits of a random GPT-2. Identities 11 to 18: test_identities.py.
"""

import math

import pytest
import torch
from torch import Tensor

from learner.mdp import (
    advantages,
    q_values,
    returns_to_go,
    soft_bellman_residual,
    soft_value_iteration,
    state_values,
    trajectory_values,
)
from tests.learner.small_mdp import (
    ACTIONS_YT,
    MASK_YT,
    NEXT_STATES_SV,
    STATES_YT,
    VISITS_YSV,
    along_responses,
    close,
    conditionals,
    gpt2_table,
    kl,
    logprobs,
    over_responses,
    random_table,
    small_gpt2,
)

BETA = 0.7
on_tables_and_gpt2 = pytest.mark.parametrize("table", [random_table, gpt2_table])


# The functions


def two_steps(*, offset: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, actions and log p of a response of two tokens; q is 3/4, then 1/2; p 1/2, 1/4."""
    logits_TV = torch.tensor([[0.0, math.log(3)], [math.log(2) + offset, math.log(2) + offset]])
    return logits_TV, torch.tensor([1, 0]), torch.tensor([0.5, 0.25]).log()


def test_values_of_two_steps_by_hand() -> None:
    values = trajectory_values(*two_steps(), beta=0.5)
    assert values.q_T.tolist() == pytest.approx([0.5493061443, 0.3465735903])  # log(3)/2, log(2)/2
    assert values.value_T.tolist() == pytest.approx([0.6931471806, 0.6931471806])  # log(4) / 2
    assert values.next_value_T.tolist() == pytest.approx([0.6931471806, 0.0])
    assert values.advantage_T.tolist() == pytest.approx([0.2027325541, 0.3465735903])
    assert values.reward_T.tolist() == pytest.approx([0.2027325541, 1.0397207708])
    assert values.trajectory_reward.item() == pytest.approx(1.2424533249)  # both sides of Eq 15
    assert values.reward_T.sum().item() == pytest.approx(1.2424533249)


def test_an_offset_of_a_state_s_logits_moves_rewards_between_tokens_and_nothing_else() -> None:
    """The student is the same, so credit per token is not identified."""
    plain = trajectory_values(*two_steps(), beta=0.5)
    moved = trajectory_values(*two_steps(offset=10.0), beta=0.5)
    assert (moved.reward_T - plain.reward_T).tolist() == pytest.approx([-5.0, 5.0], abs=1e-5)
    torch.testing.assert_close(moved.advantage_T, plain.advantage_T, atol=1e-6, rtol=0)
    torch.testing.assert_close(moved.trajectory_reward, plain.trajectory_reward)


def test_padding_is_zero_and_ends_the_trajectory() -> None:
    logits_TV, actions_T, teacher_T = two_steps()
    values = trajectory_values(
        torch.stack([logits_TV, torch.tensor([[0.0, math.log(3)], [9.0, -9.0]])]),
        torch.stack([actions_T, torch.tensor([1, 0])]),
        torch.stack([teacher_T, torch.tensor([math.log(0.5), 7.0])]),
        beta=0.5,
        mask_T=torch.tensor([[True, True], [True, False]]),
    )
    assert [values_BT[1, 1].item() for values_BT in values] == [0.0] * 5
    assert values.next_value_T[1, 0].item() == 0.0
    # Cut after its first token, that token's reward is V + advantage: log(4)/2 + log(3/2)/2.
    assert values.reward_T[1].tolist() == pytest.approx([0.8958797346, 0.0])
    assert values.trajectory_reward.tolist() == pytest.approx([1.2424533249, 0.8958797346])


def test_returns_to_go_by_hand() -> None:
    rewards_BT = torch.tensor([[1.0, -2.0, 4.0], [3.0, 5.0, 0.0]])
    assert returns_to_go(rewards_BT).tolist() == [[3.0, 2.0, 4.0], [8.0, 5.0, 0.0]]


def test_the_residual_of_a_reward_is_what_the_logits_imply_beyond_it() -> None:
    logits_TV, actions_T, teacher_T = two_steps()
    values = trajectory_values(logits_TV, actions_T, teacher_T, beta=0.5)
    given_T = torch.tensor([0.2027325541, 1.0])
    residual_T = soft_bellman_residual(
        values.q_T, given_T, teacher_T, values.next_value_T, beta=0.5
    )
    assert residual_T.tolist() == pytest.approx([0.0, 0.0397207708], abs=1e-6)


def test_a_choice_between_two_tokens_by_hand() -> None:
    # p = (1/2, 1/2) and e^{r/beta} = (1, 3), so Z = 2 and q* = (1/4, 3/4).
    optimum = soft_value_iteration(
        torch.tensor([[1, 1]]), torch.tensor([[0.0, 2 * math.log(3)]]),
        torch.tensor([[0.5, 0.5]]).log(), beta=2.0,
    )  # fmt: skip
    assert optimum.value_S.tolist() == pytest.approx([1.3862943611])  # 2 log 2
    assert optimum.logprobs_SV.exp()[0].tolist() == pytest.approx([0.25, 0.75])
    assert optimum.q_SV[0].tolist() == pytest.approx([-1.3862943611, 0.8109302162])


def test_states_may_come_in_any_order() -> None:
    # State 1 leads to state 0, which ends: with p = 1 everywhere V is the sum of rewards.
    optimum = soft_value_iteration(
        torch.tensor([[2], [0]]), torch.tensor([[3.0], [4.0]]), torch.zeros(2, 1), beta=1.0
    )
    assert optimum.value_S.tolist() == [3.0, 7.0]


def test_an_mdp_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="has a cycle"):
        soft_value_iteration(
            torch.tensor([[1], [0]]), torch.ones(2, 1), torch.zeros(2, 1), beta=1.0
        )


def test_half_precision_logits_are_refused() -> None:
    logits_TV, actions_T, teacher_T = two_steps()
    with pytest.raises(AssertionError, match=r"logits_TV is torch\.bfloat16"):
        trajectory_values(logits_TV.bfloat16(), actions_T, teacher_T, beta=0.5)


def test_a_language_model_s_rewards_telescope_along_padded_responses() -> None:
    """Eq 15 and identity 4 on responses of 12 and 7 tokens of a GPT-2 of 40 tokens."""
    student, teacher = (small_gpt2(seed, vocabulary=40) for seed in (1, 2))
    ids_BL = torch.randint(40, (2, 16), generator=torch.Generator().manual_seed(0))
    actions_BT, mask_BT = ids_BL[:, 4:], torch.arange(12) < torch.tensor([[12], [7]])
    with torch.no_grad():
        logits_BTV, teacher_BTV = (m(ids_BL).logits[:, 3:-1] for m in (student, teacher))
    log_p_BT = teacher_BTV.log_softmax(-1).gather(-1, actions_BT[..., None])[..., 0]
    log_q_BT = logits_BTV.log_softmax(-1).gather(-1, actions_BT[..., None])[..., 0]
    values = trajectory_values(logits_BTV, actions_BT, log_p_BT, beta=BETA, mask_T=mask_BT)

    log_ratio_B = torch.where(mask_BT, log_q_BT - log_p_BT, 0.0).sum(-1)
    start_B = BETA * logits_BTV[:, 0].logsumexp(-1)
    assert close(values.reward_T.sum(-1), start_B + BETA * log_ratio_B)
    assert close(values.trajectory_reward, values.reward_T.sum(-1))
    assert close(values.advantage_T, values.reward_T + values.next_value_T - values.value_T)
    alone = trajectory_values(logits_BTV[1, :7], actions_BT[1, :7], log_p_BT[1, :7], beta=BETA)
    assert close(values.reward_T[1, :7], alone.reward_T)


def next_values(value_S: Tensor) -> Tensor:
    """(S, V) V(s'), 0 at the end."""
    return torch.cat([value_S, value_S.new_zeros(1)])[NEXT_STATES_SV]


def optimum_by_enumeration(log_p_Y: Tensor, reward_Y: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(Y,) log q*(y) = log p(y) e^{R/beta} / Z and the scalar log Z: DPKD's Eq 3 to 5."""
    tilted_Y = log_p_Y + reward_Y / beta
    return tilted_Y.log_softmax(0), tilted_Y.logsumexp(0)


# Identities 1 to 10


@on_tables_and_gpt2
def test_1_to_5_value_iteration_agrees_with_the_distribution_over_whole_responses(table) -> None:
    log_p_SV, reward_SV = logprobs(0, table), random_table(1)
    optimum = soft_value_iteration(NEXT_STATES_SV, reward_SV, log_p_SV, beta=BETA)
    log_q_Y, log_z = optimum_by_enumeration(
        over_responses(log_p_SV), over_responses(reward_SV), BETA
    )
    # 1. V*(s0) = beta log Z
    assert close(optimum.value_S[0], BETA * log_z)
    # 2. prod q*(a|s) = p(y) e^{R/beta} / Z
    assert close(over_responses(optimum.logprobs_SV), log_q_Y)
    # 3. sum r = V*(s0) + sum beta log q*/p for every response: Eq 15
    advantage_SV = advantages(optimum.logprobs_SV, log_p_SV, beta=BETA)
    assert close(over_responses(reward_SV), optimum.value_S[0] + over_responses(advantage_SV))
    # 4. token by token, beta log q*/p = r + V*(s') - V*(s)
    step_SV = reward_SV + next_values(optimum.value_S) - optimum.value_S[:, None]
    assert close(advantage_SV, step_SV)
    # 5. Q of Eq 13, beta log q* + V*, with q* counted from whole responses, is Q of Eq 14
    eq_13_SV = BETA * conditionals(log_q_Y.exp()) + optimum.value_S[:, None]
    eq_14_SV = reward_SV + BETA * log_p_SV + next_values(optimum.value_S)
    assert close(eq_13_SV, eq_14_SV) and close(eq_14_SV, optimum.q_SV)


def expected_tail(value_SV: Tensor, log_q_SV: Tensor) -> Tensor:
    """(S, V) E_q of the sum of a table over the tokens *after* an action in a state."""
    tail_YT = returns_to_go(along_responses(value_SV)) - along_responses(value_SV)
    weight_Y = over_responses(log_q_SV).exp()
    total_SV = torch.zeros_like(value_SV)
    weight_YT = torch.where(MASK_YT, weight_Y[:, None] * tail_YT, 0.0)
    total_SV.index_put_((STATES_YT, ACTIONS_YT), weight_YT, accumulate=True)
    return total_SV / torch.einsum("ysv,y->sv", VISITS_YSV, weight_Y)


def test_5_eq_12_is_the_q_of_eq_13_only_with_the_entropy_and_teacher_terms() -> None:
    """Eq 12 prints the ordinary Q = E[R + gamma R' + ...]. What solves Eq 13 and 14 is the
    soft Q, undiscounted, where every reward comes with beta log p and minus beta log q."""
    log_p_SV, reward_SV = logprobs(0), random_table(1)
    optimum = soft_value_iteration(NEXT_STATES_SV, reward_SV, log_p_SV, beta=BETA)
    taught_SV = reward_SV + BETA * log_p_SV
    later_SV = taught_SV - BETA * optimum.logprobs_SV
    assert close(taught_SV + expected_tail(later_SV, optimum.logprobs_SV), optimum.q_SV)
    printed_SV = reward_SV + expected_tail(reward_SV, optimum.logprobs_SV)
    assert (printed_SV - optimum.q_SV).abs().max() > 1


def test_6_a_policy_falls_short_of_the_optimum_by_beta_times_its_divergence() -> None:
    log_p_SV, reward_SV = logprobs(0), random_table(1)
    optimum = soft_value_iteration(NEXT_STATES_SV, reward_SV, log_p_SV, beta=BETA)
    log_p_Y, best_Y = over_responses(log_p_SV), over_responses(optimum.logprobs_SV)
    for seed in range(2, 12):
        log_q_Y = over_responses(logprobs(seed))
        expected_reward = (log_q_Y.exp() * over_responses(reward_SV)).sum()
        objective = expected_reward - BETA * kl(log_q_Y, log_p_Y)
        assert close(objective, optimum.value_S[0] - BETA * kl(log_q_Y, best_Y))


def solved_prompt(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(Y,) R, (Y,) beta log q*/p and V*(s0) of one prompt's MDP."""
    log_p_SV, reward_SV = logprobs(seed), random_table(seed + 1)
    optimum = soft_value_iteration(NEXT_STATES_SV, reward_SV, log_p_SV, beta=BETA)
    ratio_SV = advantages(optimum.logprobs_SV, log_p_SV, beta=BETA)
    return over_responses(reward_SV), over_responses(ratio_SV), optimum.value_S[0]


def test_7_the_bradley_terry_logit_is_the_difference_of_log_ratios_for_one_prompt_only() -> None:
    reward_Y, ratio_Y, value = solved_prompt(0)
    other_reward_Y, other_ratio_Y, other_value = solved_prompt(10)
    assert close(reward_Y[:, None] - reward_Y, ratio_Y[:, None] - ratio_Y)
    across_YY = (reward_Y[:, None] - other_reward_Y) - (ratio_Y[:, None] - other_ratio_Y)
    assert close(across_YY, value - other_value)
    assert abs(value - other_value) > 0.1


def test_8_shaping_leaves_the_policy_and_moves_the_value() -> None:
    log_p_SV, reward_SV = logprobs(0), random_table(1)
    potential_S = random_table(2)[:, 0]
    shaped_SV = reward_SV + next_values(potential_S) - potential_S[:, None]
    plain = soft_value_iteration(NEXT_STATES_SV, reward_SV, log_p_SV, beta=BETA)
    shaped = soft_value_iteration(NEXT_STATES_SV, shaped_SV, log_p_SV, beta=BETA)
    assert close(shaped.logprobs_SV, plain.logprobs_SV)
    assert close(shaped.value_S, plain.value_S - potential_S)
    assert (shaped_SV - reward_SV).abs().max() > 1  # while single tokens' rewards changed a lot


@on_tables_and_gpt2
def test_9_any_policy_is_optimal_for_its_own_log_ratio_with_value_zero(table) -> None:
    log_p_SV, log_q_SV = logprobs(0, table), logprobs(1, table)
    reward_SV = advantages(log_q_SV, log_p_SV, beta=BETA)
    optimum = soft_value_iteration(NEXT_STATES_SV, reward_SV, log_p_SV, beta=BETA)
    assert close(optimum.logprobs_SV, log_q_SV) and close(optimum.value_S, 0.0)


@on_tables_and_gpt2
def test_9_any_logits_are_the_soft_q_function_of_the_reward_they_imply(table) -> None:
    log_p_SV, logits_SV = logprobs(0, table), table(1)
    value_S = state_values(logits_SV, beta=BETA)
    reward_SV = q_values(logits_SV, beta=BETA) - BETA * log_p_SV - next_values(value_S)
    optimum = soft_value_iteration(NEXT_STATES_SV, reward_SV, log_p_SV, beta=BETA)
    assert close(optimum.q_SV, BETA * logits_SV) and close(optimum.value_S, value_S)
    residual_SV = soft_bellman_residual(
        optimum.q_SV, reward_SV, log_p_SV, next_values(optimum.value_S), beta=BETA
    )
    assert close(residual_SV, 0.0)


@on_tables_and_gpt2
def test_3_and_4_on_a_student_s_logits_rewards_telescope_along_every_response(table) -> None:
    log_p_SV, logits_SV = logprobs(0, table), table(1)
    values = trajectory_values(
        logits_SV[STATES_YT],
        ACTIONS_YT,
        along_responses(log_p_SV),
        beta=BETA,
        mask_T=MASK_YT,
    )
    start = state_values(logits_SV[0], beta=BETA)
    log_ratio_Y = over_responses(logits_SV.log_softmax(-1) - log_p_SV)
    assert close(values.reward_T.sum(-1), start + BETA * log_ratio_Y)
    assert close(values.advantage_T, values.reward_T + values.next_value_T - values.value_T)


@on_tables_and_gpt2
def test_10_the_divergence_of_responses_is_the_expected_sum_of_the_tokens_divergences(
    table,
) -> None:
    log_p_SV, log_q_SV = logprobs(0, table), logprobs(1, table)
    log_q_Y = over_responses(log_q_SV)
    token_kl_S = kl(log_q_SV, log_p_SV)
    visited_YS = VISITS_YSV.sum(-1)
    expected = (log_q_Y.exp() * (visited_YS @ token_kl_S)).sum()
    assert close(kl(log_q_Y, over_responses(log_p_SV)), expected)
