"""How well a goal space represents the environment's own goals, measured before an agent trains in it."""

import logging
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.policies import random_policy
from analysis.probes import Features, comparable, ridge
from envs import EnvConfig, Observation, VectorEnv
from harness.lazy import LazyModule
from harness.seeding import derive, numpy_stream

if TYPE_CHECKING:
    from experiment.goals.space import TaskSpace

stats, metrics, model_selection = map(LazyModule, ("scipy.stats", "sklearn.metrics", "sklearn.model_selection"))
log = logging.getLogger(__name__)

COPIES, STEPS, FOLDS = 100, 20, 5  # many copies: each begins with a state of its own
PAIRS = 5_000  # of moments
LEAST_R2, LEAST_RANK = 0.8, 0.4  # below, a warning; RIG on the pusher has a rank correlation of 0.58


def check_goal_space(env: EnvConfig, space: "TaskSpace", seed: int) -> list[float]:
    """Measure how well the embeddings of random play represent the environment's goals, and warn if they do not.

    There is a warning if R2 is below 0.8: the reward then hardly depends on where the object lies, which neither the
    loss of the space nor the return in it shows. There is another one if the reward hardly falls with the distance of
    the environment's goals: Spearman's rank correlation below 0.4.

    Args:
        env: with pixels; built here, with 100 copies. Nothing is checked if it has no goals of its own, or goals that
            its frames do not show.
        space: the goal space of its pictures.
        seed: of the random play.
    """
    with closing(replace(env, num_envs=COPIES).build()) as copies:
        if not copies.goal_dim:
            return []
        copies.reset(0)
        if copies.outcome_frame() is not None:  # the goal is which object is held, not a number
            return []
        embedded, achieved, copy = _play(copies, space, seed)
        one, other = numpy_stream(seed, "goal gate/pairs").integers(len(copy), size=(2, PAIRS))
        apart = copies.goal_distance(achieved[one], achieved[other])
    rank = float(stats.spearmanr(-space.reward(embedded[one], embedded[other]), apart).statistic)
    scores = cross_validated_r2(space.compared(embedded), achieved, copy)
    shown = ", ".join(f"{score:.2f}" for score in scores)
    log.info("goal space: R2 of the environment's goals: %s; correlation of reward and distance: %.2f", shown, rank)
    if min(scores) < LEAST_R2:
        what = "an agent cannot tell where the object is: pretrain longer, or on frames where it moves more"
        log.warning("goal space: R2 %s, below %s: %s", shown, LEAST_R2, what)
    if not rank >= LEAST_RANK:
        what = "the reward hardly depends on the distance to the goal: try aux=temporal_distance"
        log.warning("goal space: rank correlation %.2f of reward and distance, below %s: %s", rank, LEAST_RANK, what)
    return scores


def cross_validated_r2(features: Features, truth: Features, group: Features) -> list[float]:
    """R2 of each column of (N, D) truth, by ridge regression on (N, G) features. Folds are split by group (N,)."""
    predicted = np.empty_like(truth)
    for train, test in model_selection.GroupKFold(FOLDS).split(features, groups=group):
        known, asked = comparable(features[train], features[test])
        predicted[test] = ridge(known, truth[train], asked)
    scores: list[float] = np.atleast_1d(metrics.r2_score(truth, predicted, multioutput="raw_values")).tolist()
    return scores


def _play(env: VectorEnv, space: "TaskSpace", seed: int) -> tuple[Features, Features, Features]:
    """Embeddings (N, G) of random play, the achieved goals (N, G'), and the environment copy of each (N,)."""
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
