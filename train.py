"""Train an agent from pixels, with any set of auxiliary tasks: collect, learn, log, evaluate, checkpoint.

    python train.py experiment=pong_cpu
    python train.py env=atari/breakout aux=rotation aux.rotation.weight=0.1 seed=3
    python train.py -m aux=none,rotation,permutation seed=0,1,2

Run the same command again to resume.
"""

if __name__ == "__main__":
    from experiment.launching.start import start

    start("config", __doc__)  # before torch is imported

import logging
import sys
from functools import partial

from agents.peers import PeerConfig
from configs.schema import Config
from experiment.command_line.composition import Composed
from experiment.folders.run_folder import claim_run_dir, run_folder, with_run_dir
from experiment.goals.space import copy_goal_space
from experiment.launching.launch import launch
from experiment.probing.build import build_denoising, build_online_probe
from experiment.sources.build import save_source
from experiment.training.build import build, without_init
from experiment.training.charts import open_logger
from experiment.training.ending import finish, log_end
from experiment.training.monitoring import log_diagnosis, log_evaluation, log_metrics, log_probe, warn_of_cuts
from experiment.training.precision import settle_precision
from experiment.training.rescue import check_saved, save_rest, saving_on_error
from experiment.training.run import Training, restore, save_training, update
from experiment.training.timing import TimeLeft
from harness.checkpoint import holds_checkpoints
from harness.process import matmul_rate, tune_process
from harness.seeding import derive
from harness.signals import GracefulExit

log = logging.getLogger("sidequest")


def train(config: Config) -> int:
    """Run or resume a training; returns the exit code of the process: 0, or 128 + the signal that ended it."""
    threads = tune_process(config.threads)
    config = settle_precision(config)
    resumed = holds_checkpoints(run_folder(config) / "checkpoints")
    parts = build(without_init(config) if resumed else config)
    probe = build_online_probe(config, parts.agent.encoder)
    denoising = build_denoising(config.env, parts.agent.encoder, config.frame_stack) if config.diagnose_every else None
    with claim_run_dir(config) as run_dir:  # only now, so that a config that cannot be built leaves no folder
        if files := config.env.files():
            save_source(run_dir, files)
        copy_goal_space(config, run_dir)
        progress = restore(parts, run_dir)
        begun, rate = progress.steps, matmul_rate()
        log.info("%s: step %d of %d, %d torch threads, %.0f GFLOP/s", run_dir, begun, config.steps, threads, rate)
        with open_logger(run_dir, step=begun, total=config.steps, tasks=config.aux) as logger:
            logger.log_matmul_rate(begun, rate)
            run = Training(config, parts, progress, run_dir, logger, probe, denoising)
            logger.meter.estimate = TimeLeft(run)
            with GracefulExit() as stop, saving_on_error(run_dir, partial(save_rest, run)):
                learn(run, stop)
            parts.rollout.close()
            if stop.requested:
                log.info("%s: saved at step %d; run the same command to resume", stop.requested, progress.saved)
            else:
                check_saved(run_dir, progress.saved, progress.steps)
                finish(run)
        if not stop.requested:
            log_end(run, begun)
    return stop.exit_code


def learn(run: Training, stop: GracefulExit) -> None:
    """The training loop, from `run.progress` to the last step, `until_score` or a signal."""
    config, progress, agent, rollout = run.config, run.progress, run.parts.agent, run.parts.rollout
    agent.schedule.advance(progress.steps)
    if progress.evaluation_due:
        log_evaluation(run, stop)
    while not progress.finished(config):
        rollout.reset(derive(config.seed, "env", progress.steps))  # new episodes: resuming is exact
        saving = False
        while not saving:
            # collect
            run.parts.replay.add(*rollout.collect())
            progress.add(rollout)

            # learn
            agent.schedule.advance(progress.steps)
            saving = progress.due(config.checkpoint_every) or progress.steps >= config.steps
            if not saving:  # a checkpoint cuts the running episodes
                rollout.begin()
            batch = None
            for _ in range(progress.updates_due(config)):
                batch = update(run)

            # log
            run.logger.meter.tick(progress.steps)
            saving |= stop.save_requested
            if progress.due(config.log_every) or saving:  # a NaN stops the run here, before it is saved
                log_metrics(run)
            if progress.updates and config.diagnose_every:
                last = saving and progress.finished(config)
                progress.diagnosis_due |= last or progress.due(config.diagnose_every)
            if batch and progress.diagnosis_due:
                log_diagnosis(run, batch)
                progress.diagnosis_due = False
            if progress.due(config.probe_every):
                log_probe(run)

            # evaluate
            if progress.due(config.eval_every):
                log_evaluation(run, stop)

        # checkpoint
        stop.save_requested = False
        warn_of_cuts(run)
        save_training(run)
        if stop.requested:
            return


def run(composed: Composed) -> int:
    """Train the agent that a command line asks for."""
    config = with_run_dir(composed, Config)
    if isinstance(config.agent, PeerConfig):
        # loads Stable-Baselines3, whose agents bring a loop of their own
        from experiment.training.peers import train_peer

        return train_peer(config)
    return train(config)


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""
    return launch(run, "config", words, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
