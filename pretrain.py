"""Pretrain an encoder by auxiliary tasks alone, on recorded frames, images or videos.

    python pretrain.py aux=rotation source=frames/pong
    python pretrain.py aux=[simclr,rotation] aux.rotation.weight=0.5 source=idx source.folder=data/mnist

Start an agent from the encoder that it writes by `python train.py encoder.init=RUN/encoder.safetensors`.
Run the same command again to resume.
"""

if __name__ == "__main__":
    from experiment.launching.start import start

    start("pretrain", __doc__)  # before torch is imported

import logging
import sys
from functools import partial

from configs.schema import PretrainConfig
from encoders import fit_moments
from experiment.command_line.composition import Composed
from experiment.folders.run_folder import claim_run_dir, run_folder, with_run_dir
from experiment.launching.launch import launch
from experiment.pretraining.ending import finish, log_end
from experiment.pretraining.run import (
    Pretraining,
    build_pretraining,
    draw,
    held_out_metrics,
    restore,
    save_pretraining,
    save_rest,
    update,
)
from experiment.sources.build import describe_source, save_source
from experiment.training.build import without_init
from experiment.training.charts import open_logger, shown_losses
from experiment.training.monitoring import log_examples
from experiment.training.rescue import check_saved, saving_on_error
from experiment.training.solved import SolvedTasks
from harness.checkpoint import holds_checkpoints
from harness.process import matmul_rate, tune_process
from harness.seeding import numpy_stream
from harness.signals import GracefulExit

log = logging.getLogger("sidequest")


def pretrain(config: PretrainConfig) -> int:
    """Run or resume a pretraining; returns the exit code of the process: 0, or 128 + the signal that ended it."""
    threads = tune_process(config.threads)
    resumed = holds_checkpoints(run_folder(config) / "checkpoints")
    parts = build_pretraining(without_init(config) if resumed else config)
    with claim_run_dir(config) as run_dir:
        save_source(run_dir, describe_source(parts.episodes))
        begun, rate = restore(parts, run_dir), matmul_rate()
        log.info("%s: step %d of %d, %d torch threads, %.0f GFLOP/s", run_dir, begun, config.steps, threads, rate)
        with open_logger(run_dir, step=begun, total=config.steps, tasks=config.aux) as logger:
            logger.log_matmul_rate(begun, rate)
            run = Pretraining(config, parts, run_dir, logger, step=begun, saved=begun)
            with GracefulExit() as stop, saving_on_error(run_dir, partial(save_rest, run)):
                learn(run, stop)
            if stop.requested:
                log.info("%s: saved at step %d; run the same command to resume", stop.requested, run.saved)
            else:
                check_saved(run_dir, run.saved, run.step)
                finish(run)
        if not stop.requested:
            log_end(run, begun)
    return stop.exit_code


def learn(run: Pretraining, stop: GracefulExit) -> None:
    """The pretraining loop, from `run.step` to the last update or a signal."""
    config, parts, logger = run.config, run.parts, run.logger
    solved, last = SolvedTasks(config.aux, config.steps), run.step >= config.steps
    while not last:
        # learn
        batch = draw(parts, parts.train, config.batch_size, parts.rng)
        if not run.step:
            for module in (parts.encoder, parts.suite):
                fit_moments(module, batch.obs)
        metrics = update(parts, batch, run.step)
        run.step += 1

        # log
        run.window.add(run.step, metrics)
        logger.meter.tick(run.step)
        last = run.step == config.steps or bool(stop.requested)
        saving = last or stop.save_requested or run.step % config.checkpoint_every == 0
        if run.step % config.log_every == 0 or saving:  # a NaN stops the run here, before it is saved
            means = run.window.drain()
            logger.log_scalars(run.step, means, updates=run.step)
            logger.log_health(run.step, shown_losses(means))
            solved.check(run.step, means)

        # test
        if run.step % config.diagnose_every == 0 or run.step == config.steps:
            logger.log_scalars(run.step, held_out_metrics(parts, config), updates=run.step)
            batch = draw(parts, parts.test, config.batch_size, numpy_stream(config.seed, "look"))
            log_examples(parts.suite.examples(batch, parts.encoder), config.frame_stack, run.step, logger)

        # checkpoint
        if saving:
            stop.save_requested = False
            save_pretraining(run)


def run(composed: Composed) -> int:
    """Run the pretraining that a command line asks for."""
    return pretrain(with_run_dir(composed, PretrainConfig))


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""
    return launch(run, "pretrain", words, __doc__, module=__name__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
