"""The end of a pretraining: weights, attribution maps, points for the projector, and what to do next."""

import logging
from collections.abc import Mapping

import numpy as np
import torch

from analysis.attribution import on_device, write_maps
from analysis.picture import rgb_frames
from analysis.probes import outputs
from aux_tasks.transform import questions
from experiment.folders.next_commands import follow_up, log_finished, log_outputs, log_tensorboard, start_from
from experiment.pretraining.run import Pretraining, draw, export, held_out_metrics
from harness.seeding import numpy_stream

log = logging.getLogger("sidequest")

MAPS = 8  # observations with attribution maps
PROJECTED, COMPONENTS = 1_000, 50  # observations and dimensions in the projector


def finish(run: Pretraining) -> None:
    """Write weights, attribution maps and points of the projector where they are missing or of an earlier step."""
    export(run)
    shown = run.logger.has_embedding(run.step)  # written last
    if not shown or not (run.run_dir / "attribution" / "moment_0.png").is_file():
        write_attribution(run)
    if not shown:
        write_projector(run)


def write_attribution(run: Pretraining) -> None:
    """Draw what the heads look at in held-out observations, for the tasks that predict a class."""
    config, parts = run.config, run.parts
    obs = draw(parts, parts.test, MAPS, numpy_stream(config.seed, "look")).obs
    if heads := on_device(questions(parts.suite, parts.encoder), obs.device):
        maps = write_maps(run.run_dir / "attribution", obs.cpu().numpy(), heads, config.frame_stack)
        for k, picture in enumerate(maps):
            run.logger.log_image(run.step, f"attribution/moment_{k}", picture)


def write_projector(run: Pretraining) -> None:
    """Write the principal components of held-out features for TensorBoard's projector, with pictures and labels."""
    config, parts, episodes = run.config, run.parts, run.parts.test.episodes
    rows = numpy_stream(config.seed, "project").permutation(episodes.rows())[:PROJECTED]
    features = outputs(parts.encoder, parts.test, rows)
    left, scale, _ = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    shown = [rgb_frames(obs, config.frame_stack)[-1] for obs in parts.test.observe(rows).cpu().numpy()]
    episode = np.searchsorted(episodes.begin, rows, "right") - 1
    labels = {name: values[rows] for name, values in episodes.labels.items()}
    labels |= {"episode": episode, "frame": rows - episodes.begin[episode]}
    run.logger.log_embedding(run.step, (left * scale)[:, :COMPONENTS], np.stack(shown), labels)


def log_end(run: Pretraining, begun: int) -> None:
    """Log the held-out result of each task beside chance, where the files are, and the next commands."""
    config, run_dir = run.config, run.run_dir
    if begun >= config.steps:
        log_finished(begun, config)
    metrics = held_out_metrics(run.parts, config)
    for task in config.aux:
        log.info("%-13s %s", task, held_out_result(task, metrics))
    log_outputs({name: run_dir / name for name in ("encoder.safetensors", "pictures", "attribution")})
    log.info("probe         %s", follow_up(config, "python probe.py"))
    log.info("train         %s", start_from(config, run_dir / "encoder.safetensors"))
    log_tensorboard(run_dir)


def held_out_result(task: str, metrics: Mapping[str, float]) -> str:
    """`held-out accuracy 0.93, chance 0.25`, by the metrics that a task declares, or else its loss."""
    prefix = f"test/{task}/"
    found = {tag.removeprefix(prefix): value for tag, value in metrics.items() if tag.startswith(prefix)}
    if "chance" in found:
        return f"held-out accuracy {found['accuracy']:.3f}, chance {found['chance']:.3f}"
    if "error_ratio" in found:
        return f"held-out error {found['error_ratio']:.3f} of that of the trivial answer"
    return f"held-out loss {found['loss']:.3g}, which has no scale of its own"
