"""Do not lose what a run has learned: to an error, or to a full disk."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from experiment.training.monitoring import log_metrics
from experiment.training.run import Training, save_training
from harness.checkpoint import CheckpointError, load_latest
from harness.finite import NonFiniteError

log = logging.getLogger(__name__)


@contextmanager
def saving_on_error(run_dir: Path, save: Callable[[], None]) -> Iterator[None]:
    """When an error ends the block, save first, then raise the error.

    Args:
        run_dir: folder of the run.
        save: saves what is not saved yet; raises NonFiniteError if it is not finite.

    Raises:
        NonFiniteError: the error is, or follows from, a NaN or infinity. The message names the tensor, the step and
            the last good checkpoint.
    """
    try:
        yield
    except Exception as error:
        cause = _rescue(error, save)
        if isinstance(cause, NonFiniteError):
            raise NonFiniteError(f"{cause}; {_last_checkpoint(run_dir)}") from error
        raise


def check_saved(run_dir: Path, saved: int, step: int) -> None:
    """Raise CheckpointError if the newest checkpoint is older than `step`, as after a full disk."""
    if saved < step:
        raise CheckpointError(f"{run_dir}: saved up to step {saved}; make space and run the same command")


def save_rest(run: Training) -> None:
    """Save the steps of a training since its last checkpoint, if there are any."""
    progress = run.progress
    if progress.steps > progress.saved:
        if run.window or not progress.due(run.config.log_every):  # a NaN stops here: it is not saved
            log_metrics(run)
        save_training(run)


def _rescue(error: Exception, save: Callable[[], None]) -> Exception:
    """Save; returns `error`, or the NonFiniteError that it follows from."""
    if isinstance(error, NonFiniteError):
        return error
    try:
        save()
    except NonFiniteError as found:
        return found
    except Exception as other:  # noqa: BLE001 — the first error is the one to raise
        log.warning("what was learned since the last checkpoint is lost: %s", other)
    return error


def _last_checkpoint(run_dir: Path) -> str:
    try:
        checkpoint = load_latest(run_dir / "checkpoints")
    except CheckpointError as error:
        return str(error)
    return f"the last good checkpoint is {checkpoint.path}" if checkpoint else "there is no checkpoint before it"
