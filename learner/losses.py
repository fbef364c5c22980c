"""From a section of the configuration to its pure function: the table of objectives.

Every entry unpacks a section and a scored micro-batch into what `learner/objectives/` takes.
Shape suffixes: see ``learner/batch.py``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from configs.objective import DpkdConfig, ObjectiveConfig, SftConfig
from configs.objectives.divergence import AklConfig, GkdConfig, KdConfig, ReverseKlConfig
from configs.objectives.policy_gradient import MiniLlmConfig, OpdConfig
from configs.objectives.preference import (
    CpoConfig,
    DadpoConfig,
    DdpoConfig,
    IpoConfig,
    PladConfig,
    SimpoConfig,
)
from configs.objectives.supervised import SeqKdConfig
from learner.objectives.actions import choose
from learner.objectives.cpo import cpo
from learner.objectives.dadpo import dadpo
from learner.objectives.distillation import distillation
from learner.objectives.dpkd import dpkd, reward_statistics
from learner.objectives.ipo import ipo
from learner.objectives.minillm import minillm, mixture_logprobs
from learner.objectives.opd import opd
from learner.objectives.plad import plad
from learner.objectives.sft import mean_nll
from learner.objectives.simpo import simpo
from learner.objectives.token_divergences import (
    adaptive_kl,
    forward_kl,
    generalised_jsd,
    reverse_kl,
)
from learner.objectives.token_preference import ActionScores, teacher_logprob_of, token_preference
from learner.scored import Scored

Loss = tuple[Tensor, dict[str, Tensor]]
"""A micro-batch's share of the loss, and of the objective's statistics."""


def objective_loss(objective: ObjectiveConfig, scored: Scored) -> Loss:
    """Return the share of the objective itself, without the language-model term."""
    return _LOSSES[type(objective)](objective, scored)


def _dpkd(objective: DpkdConfig, scored: Scored) -> Loss:
    if objective.level == "token":
        return _token_preference(objective, scored)
    return dpkd(
        *scored.pair(),
        beta=objective.beta,
        length_normalised=objective.length_normalised,
        pair_count=scored.pair_count,
    )


def _token_preference(objective: DpkdConfig, scored: Scored) -> Loss:
    batch, scores = scored.batch, scored.scores
    assert scores.top_MK is not None and scores.tail_count_M is not None
    assert scores.action_ids_M is not None and scores.action_logprobs_M is not None
    assert batch.top_ids_MK is not None and batch.top_logprobs_MK is not None
    teacher_MK = batch.top_logprobs_MK.masked_fill(scores.top_MK.isneginf(), -torch.inf)
    uniform_M = None if batch.uniforms_2M is None else batch.uniforms_2M[1]
    column_M1 = choose(teacher_MK, uniform_M)[:, None]
    student_action_M = teacher_logprob_of(
        scores.action_ids_M, batch.top_ids_MK, teacher_MK, scores.tail_count_M
    )
    rows = batch.unflatten_first
    return token_preference(
        ActionScores(
            rows(scores.top_MK.gather(1, column_M1)[:, 0]),
            rows(teacher_MK.gather(1, column_M1)[:, 0]),
        ),
        ActionScores(rows(scores.action_logprobs_M), rows(student_action_M)),
        beta=objective.beta,
        share_BT=scored.share_BT(),
    )


def _ipo(objective: IpoConfig, scored: Scored) -> Loss:
    return ipo(
        *scored.pair(),
        tau=objective.tau,
        length_normalised=objective.length_normalised,
        pair_count=scored.pair_count,
    )


def _cpo(objective: CpoConfig, scored: Scored) -> Loss:
    return cpo(
        *scored.pair(),
        beta=objective.beta,
        nll_weight=objective.nll_weight,
        pair_count=scored.pair_count,
    )


def _simpo(objective: SimpoConfig, scored: Scored) -> Loss:
    return simpo(
        *scored.pair(),
        beta=objective.beta,
        gamma=objective.gamma,
        pair_count=scored.pair_count,
    )


def _plad(objective: PladConfig, scored: Scored) -> Loss:
    better_B, worse_B = scored.batch.scores_SB[0], scored.batch.scores_SB[1]
    difference_B = better_B - worse_B
    if objective.form == "ranking":
        difference_B = torch.ones_like(difference_B)
    return plad(
        *scored.pair(),
        objective.beta * difference_B,
        length_normalised=objective.length_normalised,
        mle_weight=objective.mle_weight,
        pair_count=scored.pair_count,
    )


def _dadpo(objective: DadpoConfig, scored: Scored) -> Loss:
    sides = scored.pair()
    loss, statistics = dadpo(
        *sides,
        beta_reference=objective.beta_reference,
        beta_teacher=objective.beta_teacher,
        length_normalised=objective.length_normalised,
        pair_count=scored.pair_count,
    )
    if not objective.beta_teacher:  # log p is not known: nobody asked for it
        return loss, statistics
    return loss, statistics | reward_statistics(
        *sides,
        beta=objective.beta_reference + objective.beta_teacher,
        length_normalised=objective.length_normalised,
        pair_count=scored.pair_count,
    )


def _ddpo(objective: DdpoConfig, scored: Scored) -> Loss:
    return dadpo(
        *scored.pair(),
        beta_reference=objective.beta,
        beta_teacher=0.0,
        length_normalised=objective.length_normalised,
        pair_count=scored.pair_count,
    )


def _supervised(_: SftConfig | SeqKdConfig, scored: Scored) -> Loss:
    side = scored.side(scored.batch.asked.roles[0])
    loss = mean_nll(side.student_B, side.length_B, sequence_count=scored.pair_count)
    return loss, {"loss_sft": loss.detach()}


def _distillation(
    objective: KdConfig | ReverseKlConfig | GkdConfig | AklConfig, scored: Scored
) -> Loss:
    events = scored.events()
    match objective:
        case KdConfig():
            divergence_M = forward_kl(events)
        case ReverseKlConfig():
            divergence_M = reverse_kl(events)
        case GkdConfig():
            divergence_M = generalised_jsd(events, beta=objective.beta)
        case AklConfig():
            divergence_M = adaptive_kl(events, head_mass=objective.head_mass)
    return distillation(
        scored.batch.unflatten_first(divergence_M),
        scored.logprobs_SBT[0],
        nll_weight=objective.nll_weight if isinstance(objective, KdConfig) else 0.0,
        share_BT=scored.share_BT(),
    )


def _minillm(objective: MiniLlmConfig, scored: Scored) -> Loss:
    batch, student_BT = scored.batch, scored.logprobs_SBT[0]
    divergence_BT = None
    if objective.single_step:
        divergence_BT = batch.unflatten_first(reverse_kl(scored.events()))
    # Nobody asked the sampler about the teacher's responses: the present student stands in for
    # it, which is exact at policy lag 0.
    drawn_B1 = batch.student_drawn_SB[0][:, None]
    behaviour_BT = torch.where(drawn_B1, batch.behaviour_logprobs_SBT[0], student_BT.detach())
    mixture_BT = mixture_logprobs(
        batch.teacher_logprobs_SBT[0], behaviour_BT, teacher_share=objective.teacher_share
    )
    return minillm(
        student_BT,
        batch.teacher_logprobs_SBT[0],
        mixture_BT,
        divergence_BT,
        clip=objective.clip,
        length_normalised=objective.length_normalised,
        share_BT=scored.share_BT(),
    )


def _opd(objective: OpdConfig, scored: Scored) -> Loss:
    return opd(
        scored.logprobs_SBT[0],
        scored.batch.teacher_logprobs_SBT[0],
        scored.batch.behaviour_logprobs_SBT[0],
        clip=objective.clip,
        share_BT=scored.share_BT(),
    )


_LOSSES: Mapping[type, Callable[[Any, Scored], Loss]] = {
    DpkdConfig: _dpkd,
    IpoConfig: _ipo,
    CpoConfig: _cpo,
    SimpoConfig: _simpo,
    PladConfig: _plad,
    DadpoConfig: _dadpo,
    DdpoConfig: _ddpo,
    SftConfig: _supervised,
    SeqKdConfig: _supervised,
    KdConfig: _distillation,
    ReverseKlConfig: _distillation,
    GkdConfig: _distillation,
    AklConfig: _distillation,
    MiniLlmConfig: _minillm,
    OpdConfig: _opd,
}
