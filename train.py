"""Train an agent from pixels, with any set of auxiliary tasks: collect, learn, log, evaluate, checkpoint.

    python train.py experiment=pong_cpu
    python train.py env=atari/breakout aux=rotation seed=3
    python train.py -m aux=none,rotation,permutation seed=0,1,2

Run the same command again to resume.
"""

import logging
import sys
from functools import partial
from pathlib import Path

from analysis.evaluation import PANEL, attribution_targets, evaluate, greedy, play_moments, write_report, write_video
from analysis.probes import OnlineProbe
from analysis.video import VideoWriter
from configs.schema import Config, flat
from encoders import standardize
from envs import Rollout
from experiment.build import Parts, build, load_agent, without_init
from experiment.launch import launch
from experiment.monitoring import log_diagnosis, log_evaluation, log_metrics
from experiment.probing import build_online_probe
from experiment.run_folder import claim_run_dir, named, run_folder
from experiment.training import Progress, restore, save_training
from harness.checkpoint import holds_checkpoints
from harness.logger import MetricWindow, RunLogger
from harness.process import matmul_rate, tune_process
from harness.seeding import derive
from harness.signals import GracefulExit
from replay import Batch

log = logging.getLogger("sidequest")


def train(config: Config) -> int:
    """Run or resume a training; returns the exit code of the process: 0, or 128 + the signal that ended it."""
    threads = tune_process(config.threads)
    resumed = holds_checkpoints(run_folder(config) / "checkpoints")
    parts = build(without_init(config) if resumed else config)
    probe = build_online_probe(config, parts.agent.encoder)
    with claim_run_dir(config) as run_dir:  # only now: a config that cannot be built leaves no trace
        progress = restore(parts, run_dir)
        begun, rate = progress.steps, matmul_rate()
        log.info("%s: step %d of %d, %d torch threads, %.0f GFLOP/s", run_dir, begun, config.steps, threads, rate)
        with RunLogger(run_dir, step=begun, total=config.steps, tasks=config.aux) as logger:
            logger.log_matmul_rate(begun, rate)
            with GracefulExit() as stop:
                learn(config, parts, progress, probe, logger, stop, run_dir)
            parts.env.close()
            if stop.requested:
                log.info("%s: saved at step %d; run the same command to resume", stop.requested, progress.steps)
            elif config.eval_episodes and (progress.steps > begun or not (run_dir / "report.json").is_file()):
                finish(config, progress, logger, run_dir)
    return stop.exit_code


def learn(
    config: Config,
    parts: Parts,
    progress: Progress,
    probe: OnlineProbe | None,
    logger: RunLogger,
    stop: GracefulExit,
    run_dir: Path,
) -> None:
    """The training loop, from `progress` to the last step or a signal."""
    agent, replay, window = parts.agent, parts.replay, MetricWindow()
    rollout = Rollout(parts.env, config.frame_stack, config.env.padding)
    explore = partial(agent.act, explore=True)
    agent.schedule.advance(progress.steps)

    def due(every: int) -> bool:
        return progress.due(every, parts.env.num_envs)

    def checkpoint() -> None:
        if window:  # a NaN stops the run here, before it is saved
            log_metrics(config, progress, agent, window, logger)
        replay.cut(rollout.frame)
        logger.flush()
        save_training(run_dir, parts, progress)

    while not progress.finished(config):
        begun, saving = progress.steps, False
        rollout.reset(derive(config.seed, "env", begun))  # new episodes after each checkpoint: resuming is exact
        while not saving:
            # collect
            try:
                transition = rollout.step(explore)
            except RuntimeError:  # a simulator has died: keep what was learned before
                if progress.steps > begun:
                    checkpoint()
                raise
            replay.add(*transition)
            progress.add(rollout)

            # learn
            agent.schedule.advance(progress.steps)
            batch = None
            for _ in range(progress.updates_due(config)):
                batch = update(config, parts, progress, window)

            # log
            saving = stop.save_requested or due(config.checkpoint_every) or progress.steps >= config.steps
            if due(config.log_every) or saving:
                log_metrics(config, progress, agent, window, logger)
            if batch and due(config.diagnose_every):
                log_diagnosis(config, progress, batch, parts, logger)
            if probe and due(config.probe_every):
                logger.log_scalars(progress.steps, probe(agent.encoder), **progress.clock(config))

            # evaluate
            if due(config.eval_every):
                log_evaluation(config, progress, agent, logger)

        stop.save_requested = False
        checkpoint()
        if stop.requested:
            return


def update(config: Config, parts: Parts, progress: Progress, window: MetricWindow) -> Batch:
    """One update of the agent and of the priorities; returns its batch."""
    agent, replay, suite = parts.agent, parts.replay, parts.suite
    batch = replay.sample(config.batch_size, suite.reads, progress.steps, suite.clip_length)
    if not progress.updates:
        standardize(agent, batch.obs)
    done = agent.update(batch)
    window.add(progress.steps, done.metrics)
    try:
        replay.update_priorities(batch.index, done.td_error)
    except ValueError:  # a NaN: the window says where it began
        window.drain()
        raise
    progress.updates += 1
    return batch


def finish(config: Config, progress: Progress, logger: RunLogger, run_dir: Path) -> None:
    """Evaluate the exported weights under the default protocol, write report and video, and say where everything is."""
    protocol, agent = config.env.protocol(), load_agent(run_dir, config.device)[1]
    log.info("evaluating %d episodes, protocol %s", config.eval_episodes, protocol.name)
    (run_dir / "report.json").unlink(missing_ok=True)  # of fewer steps: interrupted here, the next run evaluates anew
    report = evaluate(greedy(agent), protocol, config.frame_stack, config.eval_episodes, config.seed)
    command = f"python evaluate.py checkpoint={run_dir} episodes={config.eval_episodes} seed={config.seed}"
    write_report(report, run_dir / "report.json", run_dir, command)
    scores = {f"eval/{name}_reward": report.summary[name] for name in ("mean", "median", "std")}
    logger.log_scalars(progress.steps, scores, **progress.clock(config))
    logger.log_hparams(flat(config), scores)
    episode = play_moments(greedy(agent), protocol, config.frame_stack, config.seed, PANEL)
    video = VideoWriter(run_dir / "game.mp4", config.env.fps)
    write_video(episode, attribution_targets(agent), config.frame_stack, video)
    for what, path in {
        "score": "report.json",
        "video": "game.mp4",
        "weights": "agent.safetensors",
        "encoder": "encoder.safetensors",
        "checkpoints": "checkpoints",
        "TensorBoard": "",
    }.items():
        log.info("%12s  %s", what, run_dir / path)
    log.info("mean %.2f over %d episodes", report.summary["mean"], config.eval_episodes)


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""
    return launch(lambda composed: train(named(composed, Config)), "config", words, __doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
