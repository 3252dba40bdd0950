"""Estimate the time that a training still takes."""

import logging
import time
from copy import deepcopy

from experiment.training.build import optimizers
from experiment.training.run import Training
from harness.seeding import generator_state, set_generator_state

log = logging.getLogger(__name__)


class TimeLeft:
    """Seconds to the last step: by the rate since learning began, or before by an update that is timed and undone."""

    def __init__(self, run: Training) -> None:
        self._run = run
        self._update: float | None = None

    def __call__(self, done: int) -> float | None:
        """Seconds left after `done` agent steps; None if nothing is known yet."""
        run, meter = self._run, self._run.logger.meter
        if run.progress.updates or meter.seconds_each is None:
            return meter.by_rate(done)
        if not len(run.parts.replay):
            return None
        if self._update is None:
            self._update = time_update(run)
            self._log_milestones(done)
        return self._until(run.config.steps, done)

    def _until(self, step: float, done: int) -> float:
        """Seconds from `done` agent steps to `step`, before learning begins."""
        run, each = self._run, self._run.logger.meter.seconds_each
        assert each is not None
        assert self._update is not None
        return (step - done) * each + run.progress.updates_due(run.config, at=int(step)) * self._update

    def _log_milestones(self, done: int) -> None:
        """Log when to expect the scores of the preset's milestones on this machine."""
        pairs = [(score, step) for score, step in self._run.config.milestones if done < step <= self._run.config.steps]
        if expected := [f"{score:g} after {self._until(step, done) / 60:.0f} minutes" for score, step in pairs]:
            log.info("expect training scores of about %s", ", ".join(expected))


def time_update(run: Training) -> float:
    """Seconds of the second of two updates. Everything that the run depends on is restored afterwards."""
    parts, agent, suite = run.parts, run.parts.agent, run.parts.suite
    made, network = agent.updates, deepcopy(agent.state_dict())
    moments = [(optimizer, deepcopy(optimizer.state_dict())) for optimizer in optimizers(agent, suite)]
    streams = [(stream, generator_state(stream)) for stream in parts.streams]
    try:
        for _ in range(2):  # the first one allocates, and may compile
            begun = time.perf_counter()
            agent.update(parts.draw(run.config.batch_size)).td_error.sum().item()  # waits for the device
            seconds = time.perf_counter() - begun
    finally:
        agent.load_state_dict(network)
        agent.updates = made
        agent.zero_grad()
        for optimizer, state in moments:
            optimizer.load_state_dict(state)
        for stream, generator in streams:
            set_generator_state(stream, generator)
    return seconds
