"""How long a training still takes."""

import time
from copy import deepcopy

from experiment.build import optimizers
from experiment.training import Training
from harness.seeding import generator_state, set_generator_state


class TimeLeft:
    """Seconds to the last step: by the rate since learning began; before, by an update that is timed and taken back."""

    def __init__(self, run: Training) -> None:
        self._run = run
        self._update: float | None = None

    def __call__(self, done: int) -> float | None:
        """Seconds after `done` agent steps, None where nothing is known yet."""
        run, meter = self._run, self._run.logger.meter
        if run.progress.updates or meter.seconds_each is None:
            return meter.by_rate(done)
        if not len(run.parts.replay):
            return None
        if self._update is None:
            self._update = time_update(run)
        updates = run.progress.updates_due(run.config, at=run.config.steps)
        return (run.config.steps - done) * meter.seconds_each + updates * self._update


def time_update(run: Training) -> float:
    """Seconds of the second of two updates; nothing that the run depends on has changed afterwards."""
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
