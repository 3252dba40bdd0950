"""Train an agent from pixels, with any set of side quests: act, step, remember, learn, judge, keep.

    python train.py experiment=pong_cpu
    python train.py env=atari/breakout aux=rotation seed=3
    python train.py -m aux=none,rotation,permutation seed=0,1,2

Running the same command again continues the run.
"""

import logging
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from analysis.picture import contact_sheet
from analysis.play import watch
from analysis.probes import OnlineProbe
from analysis.video import VideoWriter
from configs.schema import Config, claim_run_dir, flat, freeze, run_folder
from encoders import standardize
from envs import FrameStack, VectorStep
from evaluate import PANEL, choose_protocol, evaluate, explained, film, greedy, playback_fps, write_report
from experiment.build import Parts, build, export, load_agent, without_init
from experiment.launch import launch
from experiment.probing import build_online_probe
from harness.checkpoint import CheckpointError, holds_checkpoints, load_latest, save
from harness.logger import MetricWindow, RunLogger, shown_losses
from harness.process import matmul_rate, tune_process
from harness.seeding import derive
from harness.signals import GracefulExit
from replay import Batch

log = logging.getLogger("sidequest")


@dataclass
class Progress:
    """How far a run is. Steps are agent steps over all copies."""

    steps: int = 0
    updates: int = 0
    games: int = 0
    games_logged: int = 0
    scores: list[float] = field(default_factory=list)  # raw, of the last hundred whole games
    lengths: list[int] = field(default_factory=list)  # agent steps


class GameScores:
    """Raw score and length of the games in progress; a life loss ends neither."""

    def __init__(self, num_envs: int) -> None:
        self.score, self.length = np.zeros(num_envs), np.zeros(num_envs, np.int64)

    def add(self, step: VectorStep, progress: Progress) -> None:
        """Count one step and hand the finished games to `progress`."""
        self.score += step.reward
        self.length += ~step.first
        for i in np.flatnonzero(step.game_over):
            progress.scores = [*progress.scores, float(self.score[i])][-100:]
            progress.lengths = [*progress.lengths, int(self.length[i])][-100:]
            progress.games += 1
            self.score[i] = self.length[i] = 0


def train(config: Config) -> int:
    """Run or continue a training; returns the process exit code: 0, or 128 + the signal that ended it."""
    threads = tune_process(config.threads)
    resumed = holds_checkpoints(run_folder(config) / "checkpoints")
    parts, progress = build(without_init(config) if resumed else config), Progress()
    probe = build_online_probe(config, parts.agent.encoder)
    with claim_run_dir(config) as run_dir:  # only now: a config that cannot be built leaves no trace
        checkpoint = load_latest(run_dir / "checkpoints")
        if checkpoint:
            with checkpoint.restoring() as state:
                parts.load_state_dict(state["parts"])
                progress = Progress(**state["progress"])
        begun, rate = progress.steps, matmul_rate()
        log.info("%s: step %d of %d, %d torch threads, %.0f GFLOP/s", run_dir, begun, config.steps, threads, rate)
        with RunLogger(run_dir, step=begun, total=config.steps, tasks=config.aux) as logger:
            logger.log_matmul_rate(begun, rate)
            with GracefulExit() as stop:
                learn(config, parts, progress, probe, logger, stop, run_dir)
            parts.env.close()
            if stop.requested:
                log.info("%s: saved at step %d; run the same command to continue", stop.requested, progress.steps)
            elif config.eval_episodes and (progress.steps > begun or not (run_dir / "report.json").is_file()):
                judge(config, str(parts.agent.device), progress, logger, run_dir)
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
    """The loop, from `progress` to the last step or a signal."""
    env, replay, agent, window = parts.env, parts.replay, parts.agent, MetricWindow()
    stack = FrameStack(env.num_envs, env.frame_shape, config.frame_stack)
    everyone, nobody = np.ones(env.num_envs, bool), np.zeros(env.num_envs, bool)

    def due(every: int) -> bool:  # whether the step just taken crossed a multiple of it
        return every > 0 and progress.steps % every < env.num_envs

    def save_all() -> None:  # cuts the games in progress
        if window:  # NaN stops the run here, before it is kept
            write_log(config, progress, agent.schedules(progress.steps), window, logger)
        replay.cut(frame)
        logger.flush()
        write_checkpoint(run_dir, parts, progress)

    while not finished(config, progress):
        begun = progress.steps
        frame, first, over = env.reset(derive(config.seed, "env", begun)), everyone, nobody
        obs, games, keep = stack.reset(frame), GameScores(env.num_envs), False
        while not keep:
            # act and step
            action = agent.act(obs, step=progress.steps, explore=True)
            try:
                step = env.step(action)
            except RuntimeError:  # a worker died or hangs; what was learned before is kept
                if progress.steps > begun:
                    save_all()
                raise
            progress.steps += env.num_envs
            keep = due(config.checkpoint_every) or progress.steps >= config.steps or stop.save_requested

            # remember; what follows the end of a game is no transition
            replay.add(frame, first, action, step.reward, step.terminated, step.truncated, ~over)
            frame, first, over, obs = step.frame, step.first, step.game_over, stack.push(step)
            games.add(step, progress)

            # learn
            batch = catch_up(config, parts, progress, window)

            # tell
            if due(config.log_every) or keep:  # NaN stops the run here, before it is kept
                write_log(config, progress, agent.schedules(progress.steps), window, logger)
            if batch and due(config.diagnose_every):
                look(batch, parts, config, progress, logger)
            if probe and due(config.probe_every):
                logger.log_scalars(progress.steps, probe(agent.encoder), **clock(config, progress))

        # keep
        stop.save_requested = False
        save_all()
        if stop.requested:
            return


def catch_up(config: Config, parts: Parts, progress: Progress, window: MetricWindow) -> Batch | None:
    """Make the updates that are due after `progress.steps`; returns the batch of the last one, None without any."""
    batch: Batch | None = None
    while progress.updates < (progress.steps - config.learning_starts) // config.steps_per_update:
        done = progress.steps / config.steps
        batch = parts.replay.sample(config.batch_size, parts.suite.reads, done, parts.suite.clip_length)
        if not progress.updates:
            standardize(parts.agent, batch.obs)
        update = parts.agent.update(batch, step=progress.steps)
        window.add(progress.steps, update.metrics)
        if config.replay.prioritized:
            try:
                parts.replay.update_priorities(batch.index, update.td_error)
            except ValueError:  # NaN: the window says where it began
                window.drain()
                raise
        progress.updates += 1
    return batch


def finished(config: Config, progress: Progress) -> bool:
    """Whether a run that was just saved is at its end: enough steps, or a score that is good enough."""
    if progress.steps >= config.steps:
        return True
    recent = progress.scores[-10:]
    return config.until_score is not None and len(recent) == 10 and float(np.mean(recent)) >= config.until_score


def judge(config: Config, device: str, progress: Progress, logger: RunLogger, run_dir: Path) -> None:
    """Play full games with the weights in `run_dir` under the default protocol, film one, say where everything is."""
    protocol, agent = choose_protocol(None, config.env), load_agent(run_dir, device)[1]
    log.info("playing %d games, protocol %s", config.eval_episodes, protocol.name)
    (run_dir / "report.json").unlink(missing_ok=True)  # of fewer steps: interrupted here, the next run judges anew
    report = evaluate(agent, config.env, config.frame_stack, protocol, config.eval_episodes, config.seed)
    command = f"python evaluate.py checkpoint={run_dir} episodes={config.eval_episodes} seed={config.seed}"
    write_report(report, run_dir / "report.json", run_dir, command)
    scores = {f"eval/{name}_reward": report.summary[name] for name in ("mean", "median", "std")}
    logger.log_scalars(progress.steps, scores, **clock(config, progress))
    logger.log_hparams(flat(config), scores)
    game = watch(greedy(agent), protocol.apply(config.env), config.frame_stack, protocol.epsilon, config.seed, PANEL)
    film(game, explained(agent), config.frame_stack, VideoWriter(run_dir / "game.mp4", playback_fps(config.env)))
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


def write_log(
    config: Config, progress: Progress, schedules: dict[str, float], window: MetricWindow, logger: RunLogger
) -> None:
    """Average what happened since the last call into the log."""
    metrics = window.drain()
    metrics |= schedules | {"train/n_updates": progress.updates}
    if progress.scores:
        means = {"ep_rew_mean": np.mean(progress.scores), "ep_len_mean": np.mean(progress.lengths)}
        metrics |= {f"rollout/{name}": float(mean) for name, mean in means.items()}
    if fresh := min(progress.games - progress.games_logged, len(progress.scores)):
        metrics["rollout/score"] = float(np.mean(progress.scores[-fresh:]))  # a hundred games lag far behind
        progress.games_logged = progress.games
    logger.log_scalars(progress.steps, metrics, **clock(config, progress))
    recent = {"score": float(np.mean(progress.scores[-10:]))} if progress.scores else {}
    logger.log_health(progress.steps, recent | (shown_losses(metrics) if "train/loss" in metrics else {}))


def clock(config: Config, progress: Progress) -> dict[str, int]:
    """Environment steps, action repeats included, and updates."""
    return {"env_steps": progress.steps * getattr(config.env, "repeat", 1), "updates": progress.updates}


def look(batch: Batch, parts: Parts, config: Config, progress: Progress, logger: RunLogger) -> None:
    """Costly measurements and pictures, outside the random streams of the training."""
    step, metrics = progress.steps, parts.agent.diagnose(batch)
    scalars = {name: float(value) for name, value in metrics.items() if not value.ndim}
    logger.log_scalars(step, scalars, **clock(config, progress))
    for name, value in metrics.items():
        if value.ndim:
            logger.log_histogram(step, name, value)
    for name, seen in parts.suite.examples(batch, parts.agent.encoder).items():
        frames = seen.frames or config.frame_stack
        picture = contact_sheet(seen.inputs.cpu().numpy(), seen.predicted, seen.correct, frames)
        logger.log_examples(step, name, picture)


def write_checkpoint(run_dir: Path, parts: Parts, progress: Progress) -> None:
    """Save everything, or warn and go on with the previous checkpoint when the disk does not take it."""
    state = {"parts": parts.state_dict(), "progress": asdict(progress)}
    try:
        export(parts.agent, run_dir)  # first: the last checkpoint ends the run, and nothing may be missing then
        save(run_dir / "checkpoints", progress.steps, state)
    except (CheckpointError, OSError) as error:
        log.warning("no checkpoint at step %d: %s", progress.steps, error)


if __name__ == "__main__":
    sys.exit(launch(lambda composed: train(freeze(composed.config, Config)), "config", sys.argv[1:], __doc__))
