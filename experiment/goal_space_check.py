"""What a goal space knows of an environment's own goals, before an agent trains in it."""

import logging
from contextlib import closing
from dataclasses import replace
from typing import Protocol

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from analysis.policies import random_policy
from analysis.probes import Features, comparable, ridge
from envs import EnvConfig, Observation, VectorEnv
from envs.goals import Embeddings, GoalSpace
from harness.seeding import derive, numpy_stream

log = logging.getLogger(__name__)

COPIES, STEPS, FOLDS = 100, 20, 5  # many copies: each begins with a state of its own
PAIRS = 5_000  # of moments
LEAST_R2, LEAST_RANK = 0.8, 0.4  # RIG on the pusher has a rank correlation of 0.58


class ComparingSpace(GoalSpace, Protocol):
    """A goal space that says what its rewards depend on."""

    def compared(self, goals: Embeddings) -> Embeddings:
        """The part (M, G') of goals (M, G) that rewards depend on."""


def check_goal_space(env: EnvConfig, space: ComparingSpace, seed: int) -> list[float]:
    """R2 of each number of the environment's goals, read by a linear model from what the space compares of random play.

    A warning says if one is below 0.8: the reward then hardly depends on where the object lies, and neither the loss
    of the space nor the return in it shows that. Another one says if the reward hardly falls with the distance of the
    environment's goals: Spearman's rank correlation below 0.4.

    Args:
        env: with pixels; built anew, with 100 copies. Without goals of its own, or with goals that its frames do not
            show, there is nothing to check.
        space: of its pictures.
        seed: of the play.
    """
    with closing(replace(env, num_envs=COPIES).build()) as copies:
        if not copies.goal_dim:
            return []
        copies.reset(0)
        if copies.outcome_frame() is not None:  # which object is held is no number to read
            return []
        embedded, achieved, copy = _play(copies, space, seed)
        one, other = numpy_stream(seed, "goal gate/pairs").integers(len(copy), size=(2, PAIRS))
        apart = copies.goal_distance(achieved[one], achieved[other])
    rank = float(spearmanr(-space.reward(embedded[one], embedded[other]), apart).statistic)
    scores = cross_validated_r2(space.compared(embedded), achieved, copy)
    told = ", ".join(f"{score:.2f}" for score in scores)
    log.info("goal space: R2 of the environment's goals in it: %s; its reward follows their distance: %.2f", told, rank)
    if min(scores) < LEAST_R2:
        what = "an agent cannot tell where the object is: pretrain longer, or on frames where it moves more"
        log.warning("goal space: R2 %s, below %s: %s", told, LEAST_R2, what)
    if not rank >= LEAST_RANK:
        what = "closer is hardly rewarded: aux=temporal_distance measures steps"
        log.warning("goal space: rank correlation %.2f of reward and distance, below %s: %s", rank, LEAST_RANK, what)
    return scores


def cross_validated_r2(features: Features, truth: Features, group: Features) -> list[float]:
    """R2 of each column of (N, D) truth, by ridge regression from (N, G) features; each fold leaves out groups (N,)."""
    predicted = np.empty_like(truth)
    for train, test in GroupKFold(FOLDS).split(features, groups=group):
        known, asked = comparable(features[train], features[test])
        predicted[test] = ridge(known, truth[train], asked)
    scores: list[float] = np.atleast_1d(r2_score(truth, predicted, multioutput="raw_values")).tolist()
    return scores


def _play(env: VectorEnv, space: ComparingSpace, seed: int) -> tuple[Features, Features, Features]:
    """Embeddings (N, G) of random play, the goals (N, G') achieved there, and of which copy they are (N,)."""
    act = random_policy(env.action_space, numpy_stream(seed, "goal gate"))
    frame = env.reset(derive(seed, "goal gate"))
    context, embedded, achieved = frame.copy(), [], []
    for _ in range(STEPS):
        embedded.append(space.embed(frame, context))
        achieved.append(env.goals().achieved)
        step = env.step(act(Observation(frame)))
        frame = step.frame
        context[step.first] = frame[step.first]
    return np.concatenate(embedded), np.concatenate(achieved), np.tile(np.arange(COPIES), STEPS)
