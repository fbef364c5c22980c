"""Identities 11 to 18: what DPKD and its relatives optimise, by summing over every response.

Numbered as in docs/mdp.md; 1 to 10 are in test_mdp.py. Residuals are below 1e-12 in float64
unless a test says otherwise.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jacrev

from learner.mdp import returns_to_go, soft_value_iteration
from learner.objectives.dpkd import dpkd, implicit_reward
from learner.objectives.sequences import SequenceScores
from tests.learner.small_mdp import (
    LENGTH_Y,
    NEXT_STATES_SV,
    VISITS_YSV,
    along_responses,
    close,
    kl,
    logprobs,
    over_responses,
    random_table,
)

BETA = 0.7


def response_logprobs(seed: int) -> Tensor:
    """(Y,) log-probabilities of a distribution that is not too sharp to optimise towards."""
    return over_responses((0.5 * random_table(seed)).log_softmax(-1))


def population_loss(
    log_q_Y: Tensor,
    log_p_Y: Tensor,
    log_mu_Y: Tensor,
    *,
    beta: float,
    length_normalised: bool = False,
    log_drawn_Y: Tensor | None = None,
) -> Tensor:
    """E over y_t and y_s ~ mu of Eq 8's loss (Eq 9's where length-normalised).

    y_t is drawn from the teacher p, or from ``log_drawn_Y`` where that is given.
    """
    reward_Y = implicit_reward(
        SequenceScores(log_q_Y, log_p_Y, LENGTH_Y), beta=beta, length_normalised=length_normalised
    )
    drawn_Y = (log_p_Y if log_drawn_Y is None else log_drawn_Y).exp()
    weight_YY = drawn_Y[:, None] * log_mu_Y.exp()
    return -(weight_YY * F.logsigmoid(reward_Y[:, None] - reward_Y)).sum()


def loss_gradient(z_Y: Tensor, log_p_Y: Tensor, log_mu_Y: Tensor, **options) -> Tensor:
    """(Y,) gradient of the population loss in the logits of whole responses, mu a constant."""
    return grad(lambda z: population_loss(z.log_softmax(0), log_p_Y, log_mu_Y, **options))(z_Y)


# 11 to 14: what DPKD's loss does


@pytest.mark.parametrize("length_normalised", [False, True], ids=["eq 8", "eq 9"])
def test_11_on_fresh_pairs_the_expected_margin_is_never_positive(length_normalised) -> None:
    """E_p r - E_q r = sum (p - q) beta log q/p, and each term is at most 0; hence the sign
    holds for Eq 9 too, where each term is divided by |y|."""
    for seed in range(20):
        log_p_Y, log_q_Y = over_responses(logprobs(seed)), over_responses(logprobs(seed + 100))
        scores = SequenceScores(log_q_Y, log_p_Y, LENGTH_Y)
        reward_Y = implicit_reward(scores, beta=BETA, length_normalised=length_normalised)
        margin = ((log_p_Y.exp() - log_q_Y.exp()) * reward_Y).sum()
        assert margin < -0.1
        if not length_normalised:
            assert close(margin, -BETA * (kl(log_p_Y, log_q_Y) + kl(log_q_Y, log_p_Y)))


def test_11_the_margin_is_zero_where_student_and_teacher_agree() -> None:
    log_p_Y = over_responses(logprobs(0))
    scores = SequenceScores(log_p_Y, log_p_Y, LENGTH_Y)
    assert (implicit_reward(scores, beta=BETA, length_normalised=False) == 0).all()


def test_the_population_loss_of_these_tests_is_the_code_s_loss_averaged_over_pairs() -> None:
    log_p_Y, log_q_Y, log_mu_Y = (response_logprobs(seed) for seed in (0, 1, 2))
    one = [
        SequenceScores(*(values_Y[[i]] for values_Y in (log_q_Y, log_p_Y, LENGTH_Y)))
        for i in range(len(LENGTH_Y))
    ]
    for normalised in (False, True):
        loss = torch.zeros((), dtype=torch.float64)
        for i, y_t in enumerate(one):
            for j, y_s in enumerate(one):
                pair_loss, _ = dpkd(y_t, y_s, beta=BETA, length_normalised=normalised, pair_count=1)
                loss += (log_p_Y[i] + log_mu_Y[j]).exp() * pair_loss
        assert close(
            loss,
            population_loss(log_q_Y, log_p_Y, log_mu_Y, beta=BETA, length_normalised=normalised),
        )


def minimise(loss_of, logits: Tensor) -> Tensor:
    """Run L-BFGS to the end and return the logits found."""
    logits = logits.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=3000, tolerance_grad=1e-14, tolerance_change=0.0,
        history_size=50, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(logits)
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach()


@pytest.mark.parametrize("beta", [1.0, 0.1])
def test_12_with_stale_negatives_the_optimum_is_the_teacher_times_a_power_of_the_ratio(
    beta: float,
) -> None:
    """q ~ p (p/mu)^{1/beta}: the tenth power at beta 0.1. L-BFGS starts from the teacher, over
    one logit a token and state, and gets within 1e-5; in logits of whole responses the loss is
    convex, and its gradient at the closed form is zero to rounding."""
    log_p_Y, log_mu_Y = response_logprobs(0), response_logprobs(1)
    expected_Y = (log_p_Y + (log_p_Y - log_mu_Y) / beta).log_softmax(0)

    def loss_of(logits_SV: Tensor) -> Tensor:
        log_q_Y = over_responses(logits_SV.log_softmax(-1))
        return population_loss(log_q_Y, log_p_Y, log_mu_Y, beta=beta)

    found_SV = minimise(loss_of, 0.5 * random_table(0))
    found_Y = over_responses(found_SV.log_softmax(-1))
    assert (found_Y - expected_Y).abs().max() < 1e-5
    assert close(loss_gradient(expected_Y, log_p_Y, log_mu_Y, beta=beta), 0.0)
    assert kl(expected_Y, log_p_Y) > 0.05  # away from the teacher, where fresh negatives end


def test_12_under_eq_9_the_power_is_the_length_over_beta() -> None:
    """Eq 9's logit is beta log(q/p) / |y|. Every pair's own loss is least where that is
    log(p/mu) + log c, so the optimum is q = p (c p/mu)^{|y|/beta} with the one c that normalises
    it: sharper than Eq 8's by the length."""
    log_p_Y, log_mu_Y, beta = response_logprobs(0), response_logprobs(1), 1.0
    low, high = -10.0, 10.0
    for _ in range(100):  # bisection: the total mass grows with c
        log_c = (low + high) / 2
        log_q_Y = log_p_Y + LENGTH_Y / beta * (log_p_Y - log_mu_Y + log_c)
        low, high = (low, log_c) if log_q_Y.logsumexp(0) > 0 else (log_c, high)
    assert close(log_q_Y.exp().sum(), 1.0)
    options = {"beta": beta, "length_normalised": True}
    assert close(loss_gradient(log_q_Y, log_p_Y, log_mu_Y, **options), 0.0)
    found_Y = minimise(
        lambda z_Y: population_loss(z_Y.log_softmax(0), log_p_Y, log_mu_Y, **options), log_p_Y
    )
    assert (found_Y.log_softmax(0) - log_q_Y).abs().max() < 1e-5
    eq_8_Y = (log_p_Y + (log_p_Y - log_mu_Y) / beta).log_softmax(0)
    assert kl(log_q_Y, log_p_Y) > 2 * kl(eq_8_Y, log_p_Y)


@pytest.mark.parametrize("length_normalised", [False, True], ids=["eq 8", "eq 9"])
def test_13_the_teacher_is_stationary_with_fresh_negatives_and_not_with_stale_ones(
    length_normalised: bool,
) -> None:
    log_p_Y, log_mu_Y = response_logprobs(0), response_logprobs(1)
    options = {"beta": BETA, "length_normalised": length_normalised}
    for negatives_Y in (log_p_Y, log_mu_Y):
        loss = population_loss(log_p_Y, log_p_Y, negatives_Y, **options)
        assert close(loss, math.log(2))
    assert close(loss_gradient(log_p_Y, log_p_Y, log_p_Y, **options), 0.0)
    stale_Y = loss_gradient(log_p_Y, log_p_Y, log_mu_Y, **options)
    assert stale_Y.abs().max() > 1e-3
    if not length_normalised:
        assert close(stale_Y, BETA / 2 * (log_mu_Y.exp() - log_p_Y.exp()))


def fresh_step(z_Y: Tensor, log_p_Y: Tensor, *, temperature: float = 1.0, **options) -> Tensor:
    """(Y,) minus the gradient, y_s drawn from the very student that is differentiated, its
    logits of whole responses divided by ``temperature``."""
    return -loss_gradient(z_Y, log_p_Y, (z_Y / temperature).log_softmax(0), **options)


@pytest.mark.parametrize("beta", [0.3, 1.0, 3.0])
def test_13_near_the_teacher_the_fresh_step_is_beta_1_plus_beta_over_2_times_p_minus_q(
    beta: float,
) -> None:
    """For Eq 8, in logits z of whole responses, q = softmax(z), to first order in q - p: so the
    two are compared by their Jacobians at q = p."""
    log_p_Y = response_logprobs(0)
    step_YY = jacrev(lambda z: fresh_step(z, log_p_Y, beta=beta))(log_p_Y)
    scaled_YY = jacrev(lambda z: beta * (1 + beta) / 2 * (log_p_Y.exp() - z.softmax(0)))(log_p_Y)
    assert close(step_YY, scaled_YY)


def test_13_at_beta_1_the_fresh_step_is_p_minus_q_everywhere_and_at_other_betas_it_is_not() -> None:
    log_p_Y, log_q_Y = response_logprobs(0), response_logprobs(1)
    seqkd_Y = log_p_Y.exp() - log_q_Y.exp()
    assert close(fresh_step(log_q_Y, log_p_Y, beta=1.0), seqkd_Y)
    for beta in (0.3, 3.0):
        near_Y = beta * (1 + beta) / 2 * seqkd_Y
        error_Y = fresh_step(log_q_Y, log_p_Y, beta=beta) - near_Y
        assert error_Y.abs().max() > 0.04 * near_Y.abs().max()


def test_13_in_any_parametrisation_the_fresh_step_near_the_teacher_is_that_of_seqkd() -> None:
    """In logits of tokens p - q becomes E_p grad log q, the SeqKD step, by the chain rule: the
    same factor stands before it."""
    teacher_SV, log_p_Y = 0.5 * random_table(0), response_logprobs(0)

    def student(logits_SV: Tensor) -> Tensor:
        return over_responses(logits_SV.log_softmax(-1))

    def step(logits_SV: Tensor) -> Tensor:
        negatives_Y = student(logits_SV)
        return -grad(lambda t: population_loss(student(t), log_p_Y, negatives_Y, beta=BETA))(
            logits_SV
        )

    def seqkd_step(logits_SV: Tensor) -> Tensor:
        return grad(lambda t: (log_p_Y.exp() * student(t)).sum())(logits_SV)

    seqkd_jacobian = jacrev(seqkd_step)(teacher_SV)
    assert close(jacrev(step)(teacher_SV), BETA * (1 + BETA) / 2 * seqkd_jacobian)
    assert seqkd_jacobian.abs().max() > 0.1


def destination(log_p_Y: Tensor, **options) -> Tensor:
    """(Y,) log q where expected fresh steps end: natural-gradient ones, step over q."""
    z_Y = response_logprobs(1)
    for _ in range(400):
        z_Y = (z_Y + 0.5 * fresh_step(z_Y, log_p_Y, **options) / z_Y.exp()).log_softmax(0)
    return z_Y


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_13_fresh_steps_end_at_the_teacher_or_between_it_and_what_y_t_is_drawn_from(
    beta: float,
) -> None:
    """With y_t from another distribution d than p (the teacher at a lower temperature) the end
    is q ~ p^{beta/(1+beta)} d^{1/(1+beta)}, where both orders of every pair balance."""
    log_p_Y = response_logprobs(0)
    assert (destination(log_p_Y, beta=beta) - log_p_Y).abs().max() < 1e-9
    log_drawn_Y = over_responses(random_table(0).log_softmax(-1))  # temperature 0.5, by token
    expected_Y = ((beta * log_p_Y + log_drawn_Y) / (1 + beta)).log_softmax(0)
    found_Y = destination(log_p_Y, beta=beta, log_drawn_Y=log_drawn_Y)
    assert (found_Y - expected_Y).abs().max() < 1e-9
    assert kl(expected_Y, log_p_Y) > 0.01


@pytest.mark.parametrize(("beta", "temperature"), [(0.1, 1.25), (1.0, 1.5), (0.5, 0.8)])
def test_13_hotter_negatives_end_sharper_than_what_y_t_is_drawn_from(
    beta: float, temperature: float
) -> None:
    """With y_s ~ q^{1/tau} every pair balances at q ~ (d p^beta)^{tau/(1 + tau beta)}: from the
    teacher's own y_t at p^{tau (1+beta)/(1+tau beta)}, which for small beta is p^tau."""
    log_p_Y = response_logprobs(0)
    log_drawn_Y = over_responses(random_table(0).log_softmax(-1))
    power = temperature / (1 + temperature * beta)
    for log_d_Y in (log_p_Y, log_drawn_Y):
        expected_Y = (power * (log_d_Y + beta * log_p_Y)).log_softmax(0)
        options = {"beta": beta, "temperature": temperature, "log_drawn_Y": log_d_Y}
        assert fresh_step(expected_Y, log_p_Y, **options).abs().max() < 1e-15
        assert (destination(log_p_Y, **options) - expected_Y).abs().max() < 1e-2
    entropy = -(expected_Y.exp() * expected_Y).sum()
    plain_Y = ((log_drawn_Y + beta * log_p_Y) / (1 + beta)).log_softmax(0)
    assert (entropy < -(plain_Y.exp() * plain_Y).sum()) == (temperature > 1)


def test_14_the_gradient_s_weight_is_sigma_of_student_minus_teacher_reward() -> None:
    """Eq 11, 28 and 30 print sigma(r(y_t) - r(y_s)): the loss falls out of Eq 10 with u of the
    wrong sign. True is sigma(r(y_s) - r(y_t)), as the paper's text has it: large where the
    order is wrong."""
    log_p_Y, log_q_Y = response_logprobs(0), response_logprobs(1)
    student_Y = log_q_Y.requires_grad_()
    reward_Y = BETA * (log_q_Y - log_p_Y).detach()
    for t, s in [(0, 5), (5, 0), (30, 12)]:
        y_t, y_s = (SequenceScores(student_Y[[i]], log_p_Y[[i]], LENGTH_Y[[i]]) for i in (t, s))
        loss, _ = dpkd(y_t, y_s, beta=BETA, length_normalised=False, pair_count=1)
        (gradient_Y,) = torch.autograd.grad(loss, student_Y)
        true = -BETA * torch.sigmoid(reward_Y[s] - reward_Y[t])
        printed = -BETA * torch.sigmoid(reward_Y[t] - reward_Y[s])
        assert close(gradient_Y[t], true) and close(gradient_Y[s], -true)
        assert abs(gradient_Y[t] - printed) > 1e-2


# 15 to 18: relatives


def dadpo_logit(
    log_q_Y: Tensor, log_ref_Y: Tensor, log_p_Y: Tensor, b_1: float, b_2: float
) -> Tensor:
    """(Y, Y) what stands inside sigma, of y_t by y_s: a reconstruction from 2506.15717."""
    score_Y = (b_1 + b_2) * log_q_Y - b_1 * log_ref_Y - b_2 * log_p_Y
    return score_Y[:, None] - score_Y


def dadpo_optimum(
    reward_Y: Tensor, log_ref_Y: Tensor, log_p_Y: Tensor, b_1: float, b_2: float
) -> tuple[Tensor, Tensor]:
    """(Y,) log q* = log ref^{b1/B} p^{b2/B} e^{R/B} / Z and log Z, with B = b1 + b2."""
    tilted_Y = (b_1 * log_ref_Y + b_2 * log_p_Y + reward_Y) / (b_1 + b_2)
    return tilted_Y.log_softmax(0), tilted_Y.logsumexp(0)


def test_15_dadpo_s_optimum_lies_between_reference_and_teacher() -> None:
    b_1, b_2 = 0.4, 1.1
    log_ref_Y, log_p_Y = over_responses(logprobs(0)), over_responses(logprobs(1))
    reward_Y = over_responses(random_table(2))
    best_Y, log_z = dadpo_optimum(reward_Y, log_ref_Y, log_p_Y, b_1, b_2)
    for seed in range(3, 13):
        log_q_Y = over_responses(logprobs(seed))
        divergences = b_1 * kl(log_q_Y, log_ref_Y) + b_2 * kl(log_q_Y, log_p_Y)
        objective = (log_q_Y.exp() * reward_Y).sum() - divergences
        assert close(objective, 1.5 * (log_z - kl(log_q_Y, best_Y)))
    logit_YY = dadpo_logit(best_Y, log_ref_Y, log_p_Y, b_1, b_2)
    assert close(logit_YY, reward_Y[:, None] - reward_Y)


def test_15_dadpo_s_limits_are_dpkd_and_dpo() -> None:
    log_ref_SV, log_p_SV, reward_SV = logprobs(0), logprobs(1), random_table(2)
    log_ref_Y, log_p_Y, log_q_Y = map(over_responses, (log_ref_SV, log_p_SV, logprobs(3)))
    scores = SequenceScores(log_q_Y, log_p_Y, LENGTH_Y)
    dpkd_Y = implicit_reward(scores, beta=BETA, length_normalised=False)
    without_reference_YY = dadpo_logit(log_q_Y, log_ref_Y, log_p_Y, 0.0, BETA)
    assert close(without_reference_YY, dpkd_Y[:, None] - dpkd_Y)
    dpo_Y = BETA * (log_q_Y - log_ref_Y)
    without_teacher_YY = dadpo_logit(log_q_Y, log_ref_Y, log_p_Y, BETA, 0.0)
    assert close(without_teacher_YY, dpo_Y[:, None] - dpo_Y)
    for b_1, b_2, prior_SV in ((0.0, BETA, log_p_SV), (BETA, 0.0, log_ref_SV)):
        best_Y, _ = dadpo_optimum(over_responses(reward_SV), log_ref_Y, log_p_Y, b_1, b_2)
        solved = soft_value_iteration(NEXT_STATES_SV, reward_SV, prior_SV, beta=BETA)
        assert close(best_Y, over_responses(solved.logprobs_SV))


def policy_gradient(logits_SV: Tensor, credit_YT: Tensor) -> Tensor:
    """(S, V) E_q sum_i grad log q(a_i|s_i) credit_i, in the logits."""

    def surrogate(varied_SV: Tensor) -> Tensor:
        score_YT = along_responses(varied_SV.log_softmax(-1))
        weight_Y = over_responses(logits_SV.log_softmax(-1)).exp()
        return (weight_Y[:, None] * score_YT * credit_YT).sum()

    return grad(surrogate)(logits_SV)


def test_16_score_times_return_to_go_descends_reverse_kl_and_the_token_alone_does_not() -> None:
    logits_SV, log_p_SV = random_table(0), logprobs(1)
    reward_YT = along_responses(log_p_SV - logits_SV.log_softmax(-1))
    descent_SV = -grad(lambda z: kl(over_responses(z.log_softmax(-1)), over_responses(log_p_SV)))(
        logits_SV
    )
    assert close(policy_gradient(logits_SV, returns_to_go(reward_YT)), descent_SV)

    # The immediate term alone descends sum_s d(s) KL(q(.|s) || p(.|s)) with the visits d fixed.
    visits_S = torch.einsum("ysv,y->s", VISITS_YSV, over_responses(logits_SV.log_softmax(-1)).exp())
    immediate_SV = -grad(lambda z: (visits_S * kl(z.log_softmax(-1), log_p_SV)).sum())(logits_SV)
    assert close(policy_gradient(logits_SV, reward_YT), immediate_SV)
    assert (immediate_SV - descent_SV).abs().max() > 0.05


def gkd(log_p_V: Tensor, log_q_V: Tensor, beta: Tensor) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q (2306.13649)."""
    log_m_V = (beta * log_p_V.exp() + (1 - beta) * log_q_V.exp()).log()
    return beta * kl(log_p_V, log_m_V) + (1 - beta) * kl(log_q_V, log_m_V)


def test_17_gkd_s_limits_are_the_two_divergences_per_unit_of_beta() -> None:
    """At beta = 0 and 1 the formula itself is 0; the limits hold for D/beta and D/(1 - beta),
    that is, for its slope. An implementation has to return the KL there as a case of its own."""
    log_p_V, log_q_V = logprobs(0)[0], logprobs(1)[0]
    for beta, slope in ((0.0, kl(log_p_V, log_q_V)), (1.0, -kl(log_q_V, log_p_V))):
        at = torch.tensor(beta, dtype=torch.float64)
        assert close(gkd(log_p_V, log_q_V, at), 0.0)
        assert close(grad(lambda b: gkd(log_p_V, log_q_V, b))(at), slope)
    half = torch.tensor(0.5, dtype=torch.float64)
    assert close(gkd(log_p_V, log_q_V, half), gkd(log_q_V, log_p_V, half))


def test_18_full_product_weights_are_unbiased_and_weights_of_single_tokens_are_not() -> None:
    """Samples from MiniLLM's mixture .2 p + .8 q, token by token; wanted is KL(q || p)."""
    log_p_SV, log_q_SV = logprobs(0), logprobs(1)
    log_mu_SV = (0.2 * log_p_SV.exp() + 0.8 * log_q_SV.exp()).log()
    sampled_Y = over_responses(log_mu_SV).exp()
    ratio_YT = along_responses(log_q_SV - log_mu_SV)
    gain_YT = along_responses(log_q_SV - log_p_SV)
    exact = kl(over_responses(log_q_SV), over_responses(log_p_SV))

    def estimate(weight_YT: Tensor) -> Tensor:
        return (sampled_Y * (weight_YT * gain_YT).sum(-1)).sum()

    whole_Y1 = ratio_YT.sum(-1, keepdim=True).exp()
    assert close((sampled_Y[:, None] * whole_Y1).sum(), 1.0)
    assert close(estimate(whole_Y1), exact)
    assert close(estimate(ratio_YT.cumsum(-1).exp()), exact)  # the product up to the token will do
    assert abs(estimate(ratio_YT.exp()) - exact) > 1e-3
    assert abs(estimate(torch.ones_like(ratio_YT)) - exact) > 1e-3
