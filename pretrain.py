"""Pretrain an encoder by auxiliary tasks alone, on recorded frames, images or videos.

    python pretrain.py aux=rotation source=frames/pong
    python pretrain.py aux=[simclr,rotation] aux.rotation.weight=0.5 source=idx source.folder=data/mnist

The encoder it leaves is what `python train.py encoder.init=RUN/encoder.safetensors` starts from.
Run the same command again to resume.
"""

import sys

if __name__ == "__main__":
    from harness.signals import guard_imports

    guard_imports()  # a signal may come while the rest is imported

    from experiment.launch import check_words

    check_words("pretrain", sys.argv[1:], __doc__)  # before torch loads

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from agents.learning import weighted_sum
from analysis.attribution import on_device, pictures, write_maps
from analysis.probes import outputs
from analysis.representation import representation
from aux_tasks.transform import questions
from configs.schema import PretrainConfig
from datasets import EpisodeSampler
from encoders import standardize
from experiment.build import without_init
from experiment.ending import log_finished, log_pretrained
from experiment.goal_space import export_goal_space
from experiment.launch import launch
from experiment.monitoring import log_examples
from experiment.pretraining import Pretraining, build_pretraining
from experiment.rescue import saving_first
from experiment.run_folder import claim_run_dir, named, run_folder
from experiment.solved import SolvedTasks
from experiment.sources import describe, keep_source
from experiment.weights import export_encoder
from harness.checkpoint import CheckpointError, holds_checkpoints, load_latest, save
from harness.finite import check_finite
from harness.logger import MetricWindow, RunLogger, shown_losses
from harness.process import matmul_rate, tune_process
from harness.seeding import numpy_stream
from harness.signals import GracefulExit
from replay import Batch

log = logging.getLogger("sidequest")

TEST_BATCHES = 8
MAPS = 8  # observations
PROJECTED, COMPONENTS = 1_000, 50  # observations, and dimensions, in the projector


def pretrain(config: PretrainConfig) -> int:
    """Run or continue a pretraining; returns the process exit code: 0, or 128 + the signal that ended it."""
    threads = tune_process(config.threads)
    resumed = holds_checkpoints(run_folder(config) / "checkpoints")
    parts, step = build_pretraining(without_init(config) if resumed else config), 0
    with claim_run_dir(config) as run_dir:
        keep_source(run_dir, describe(parts.episodes))
        if checkpoint := load_latest(run_dir / "checkpoints"):
            with checkpoint.restoring() as state:
                parts.load_state_dict(state["parts"])
            step = checkpoint.step
        rate = matmul_rate()
        log.info("%s: step %d of %d, %d torch threads, %.0f GFLOP/s", run_dir, step, config.steps, threads, rate)
        with RunLogger(run_dir, step=step, total=config.steps, tasks=config.aux) as logger:
            logger.log_matmul_rate(step, rate)
            with GracefulExit() as stop:
                learn(config, parts, step, logger, stop, run_dir)
            if not stop.requested:
                finish(parts, config, logger, run_dir)
    if not stop.requested:
        if step >= config.steps:
            log_finished(step, config)
        log_pretrained(run_dir, config, test(parts, config))
    return stop.exit_code


def learn(
    config: PretrainConfig, parts: Pretraining, step: int, logger: RunLogger, stop: GracefulExit, run_dir: Path
) -> None:
    """The loop, from `step` to the last or to a signal."""
    window, last, saved, solved = MetricWindow(), step >= config.steps, step, SolvedTasks(config.aux, config.steps)

    def save_rest() -> None:
        if step > saved:
            window.drain()  # a NaN stops here: it is not saved
            logger.flush()
            save_pretraining(run_dir, parts, config, step)

    with saving_first(run_dir, save_rest):
        while not last:
            batch = draw(parts, parts.train, config.batch_size, parts.rng)
            if not step:
                for module in (parts.encoder, parts.suite):
                    standardize(module, batch.obs)
            metrics = update(parts, batch, step)
            step += 1
            window.add(step, metrics)
            logger.meter.tick(step)
            last = step == config.steps or bool(stop.requested)
            saving = last or stop.save_requested or step % config.checkpoint_every == 0
            if step % config.log_every == 0 or saving:  # NaN stops the run here, before it is kept
                means = window.drain()
                logger.log_scalars(step, means, updates=step)
                logger.log_health(step, shown_losses(means))
                solved.check(step, means)
            if step % config.diagnose_every == 0 or last:
                logger.log_scalars(step, test(parts, config), updates=step)
                batch = draw(parts, parts.test, config.batch_size, numpy_stream(config.seed, "look"))
                log_examples(parts.suite.examples(batch, parts.encoder), config.frame_stack, step, logger)
            if saving:
                logger.flush()
                stop.save_requested = False
                saved = step if save_pretraining(run_dir, parts, config, step) else saved
    if stop.requested:
        log.info("%s: saved at step %d; run the same command to resume", stop.requested, saved)
    elif saved < step:
        raise CheckpointError(f"{run_dir}: saved up to step {saved}; make space and run the same command")


def draw(parts: Pretraining, source: EpisodeSampler, batch_size: int, rng: np.random.Generator) -> Batch:
    """A batch with all that the tasks read."""
    return source.sample(batch_size, parts.suite.reads, parts.suite.clip_length, rng)


def losses(parts: Pretraining, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss terms (B,) and metrics on a batch; the features are made only if a task reads them."""
    features = parts.encoder(batch.obs) if "features" in parts.suite.reads else batch.obs.new_empty(0)
    return parts.suite.losses(batch, features, parts.encoder)


def update(parts: Pretraining, batch: Batch, step: int) -> dict[str, Tensor]:
    """Move encoder and heads once; returns scalars by TensorBoard tag."""
    parts.schedule.advance(step)
    terms, metrics = losses(parts, batch)
    loss = weighted_sum(terms, parts.schedule.tensors, batch.weight)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(parts.encoder.parameters(), parts.suite.max_grad_norm)
    parts.optimizer.step()
    parts.optimizer.zero_grad()
    parts.suite.after_step(batch, parts.encoder)
    return {"train/loss": loss.detach(), "health/grad_norm": norm} | metrics


@torch.no_grad()
def test(parts: Pretraining, config: PretrainConfig) -> dict[str, float]:
    """`test/<task>/<metric>` on the held-out episodes, always the same batches, and the rank of the features."""
    rng, window = numpy_stream(config.seed, "test"), MetricWindow()
    parts.suite.eval()
    with parts.suite.aside():
        for _ in range(TEST_BATCHES):
            batch = draw(parts, parts.test, config.batch_size, rng)
            metrics = losses(parts, batch)[1]
            window.add(0, {name.replace("aux/", "test/", 1): value for name, value in metrics.items()})
    parts.suite.train()
    features = parts.encoder(batch.obs)
    window.add(0, {name: value for name, value in representation(features).items() if not value.ndim})
    return window.drain()


def finish(parts: Pretraining, config: PretrainConfig, logger: RunLogger, run_dir: Path) -> None:
    """Leave the encoder, maps and points for the projector, each unless it is there and of the last step."""
    export_weights(run_dir, parts, config)
    shown = logger.has_embedding(config.steps)  # written last
    if not shown or not (run_dir / "attribution" / "moment_0.png").is_file():
        write_attribution(parts, config, logger, run_dir)
    if not shown:
        write_projector(parts, config, logger)


def write_attribution(parts: Pretraining, config: PretrainConfig, logger: RunLogger, run_dir: Path) -> None:
    """Maps of what the heads look at in held-out observations, of tasks that are asked which class."""
    obs = draw(parts, parts.test, MAPS, numpy_stream(config.seed, "look")).obs
    if heads := on_device(questions(parts.suite, parts.encoder), obs.device):
        maps = write_maps(run_dir / "attribution", obs.cpu().numpy(), heads, config.frame_stack)
        for k, picture in enumerate(maps):
            logger.log_image(config.steps, f"attribution/moment_{k}", picture)


def write_projector(parts: Pretraining, config: PretrainConfig, logger: RunLogger) -> None:
    """The main components of held-out features for TensorBoard's projector, with pictures and labels."""
    episodes, rng = parts.test.episodes, numpy_stream(config.seed, "project")
    rows = rng.permutation(episodes.rows())[:PROJECTED]
    features = outputs(parts.encoder, parts.test, rows)
    left, scale, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    shown = [pictures(obs, config.frame_stack)[-1] for obs in parts.test.observe(rows).cpu().numpy()]
    episode = np.searchsorted(episodes.begin, rows, "right") - 1
    labels = {name: values[rows] for name, values in episodes.labels.items()}
    labels |= {"episode": episode, "frame": rows - episodes.begin[episode]}
    logger.log_embedding(config.steps, (left * scale)[:, :COMPONENTS], np.stack(shown), labels)


def export_weights(run_dir: Path, parts: Pretraining, config: PretrainConfig) -> None:
    """Leave the encoder, and the goal space if a task defines one."""
    export_encoder(parts.encoder, run_dir)
    export_goal_space(config, parts.encoder, parts.suite, parts.train.actions, run_dir)


def save_pretraining(run_dir: Path, parts: Pretraining, config: PretrainConfig, step: int) -> bool:
    """Save everything, or warn and go on with the previous checkpoint when the disk does not take it.

    Returns:
        Whether it is saved.

    Raises:
        NonFiniteError: a tensor holds NaN or infinity; nothing was written.
    """
    state = parts.state_dict()
    check_finite(state, step)
    try:
        export_weights(run_dir, parts, config)
        save(run_dir / "checkpoints", step, {"parts": state})
    except (CheckpointError, OSError) as error:
        log.warning("no checkpoint at step %d: %s", step, error)
        return False
    return True


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""
    return launch(
        lambda composed: pretrain(named(composed, PretrainConfig)), "pretrain", words, __doc__, module=__name__
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
