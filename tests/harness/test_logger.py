"""What a run writes down."""

import errno
import io
import json
import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from experiment.training.charts import open_logger, shown_losses
from harness.finite import NonFiniteError
from harness.logger import MetricWindow, RunLogger

ROW = '{"step": 1, "clock": {"seconds": 2.5, "env_steps": 1, "updates": 0}}'


def logger(run_dir: Path, step: int = 0) -> RunLogger:
    return open_logger(run_dir, step=step, total=1_000_000, tasks=["rotation", "permutation"])


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_the_mean_of_one_update_is_its_value_and_of_many_as_exact_as_float32() -> None:
    values = torch.randn(1_000, 3, generator=torch.Generator().manual_seed(0)) * 10 ** torch.tensor([-20.0, 0, 20])
    window = MetricWindow()
    for rows in (values[:1], values):
        buffer = torch.empty(3)  # written again at each update, as by a captured graph
        assert not window
        for step, row in enumerate(rows):
            rare = {"rare": torch.tensor(5.0)} if step == 7 else {}
            window.add(step, dict(zip("abc", buffer.copy_(row), strict=True)) | rare)
        assert window
        drained = window.drain()
        assert drained.pop("rare", None) == (5.0 if len(rows) > 7 else None)
        assert list(drained.values()) == rows.double().mean(0).float().tolist()
    assert window.drain() == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_window_names_what_was_not_finite_first_and_reads_nothing_before(value: float) -> None:
    window = MetricWindow()
    for step in (8, 12, 16, 20):
        bad = {"total": step >= 16, "part": step == 12, "fine": False} | ({"rare": True} if step == 20 else {})
        window.add(step, {name: torch.tensor(value if wrong else 1.0) for name, wrong in bad.items()})
    with pytest.raises(NonFiniteError, match=f"^part is {value} at step 12$"):
        window.drain()
    window = MetricWindow()
    for step in range(3):
        window.add(step, {name: torch.empty((), device="meta") for name in ("loss", "norm")})  # reading it raises
    with pytest.raises(NotImplementedError, match="meta"):
        window.drain()


def test_continuing_drops_later_and_torn_records_and_the_clock_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    logged: list[tuple[int, dict[int, float]]] = [(0, {}), (0, {10: 1.25, 20: 2.5, 30: 3.75}), (20, {40: 1.0})]
    logged += [(20, {25: 1.0})]  # of the one before nothing is kept
    for kept, losses in logged:
        with logger(tmp_path, step=kept) as opened:
            for step, loss in losses.items():
                now += 60
                values = {"loss": loss, "score": float("nan")} if kept == 0 else {"loss": loss}
                opened.log_scalars(step, values, updates=step // 2, env_steps=4 * step)
        now += 999
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 15, "lo')
    with logger(tmp_path, step=25):
        pass
    expected = [
        {"step": 10, "clock": {"seconds": 60.0, "env_steps": 40, "updates": 5}, "loss": 1.25, "score": None},
        {"step": 20, "clock": {"seconds": 120.0, "env_steps": 80, "updates": 10}, "loss": 2.5, "score": None},
        {"step": 25, "clock": {"seconds": 180.0, "env_steps": 100, "updates": 12}, "loss": 1.0},
    ]
    assert rows(tmp_path) == expected
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [10, 20, 25]
    (layout,) = events.Tensors("custom_scalars__config__")  # written once
    for chart in (b"aux/rotation/accuracy", b"aux/permutation/loss", b"repr/effective_rank"):
        assert chart in layout.tensor_proto.string_val[0]


def kill(path: Path, content: bytes) -> None:
    path.open("w").close()
    raise KeyboardInterrupt


@pytest.mark.parametrize("torn", ["{", '{"loss": 1}', "\x00\x00"])
def test_what_a_crash_left_is_dropped_and_a_kill_meanwhile_loses_none(torn: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f"{ROW}\n{torn}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", kill)
        with pytest.raises(KeyboardInterrupt):
            logger(tmp_path, step=5)
    assert (tmp_path / "metrics.jsonl").read_text() == f"{ROW}\n{torn}"
    with logger(tmp_path, step=5):
        pass
    assert (tmp_path / "metrics.jsonl").read_text() == f"{ROW}\n"


@pytest.mark.parametrize("damaged", [
    "{", "null", "[]", "3", '"step"', '{"step": null}', '{"step": "1"}', '{"step": 1, "clock": []}', "[" * 100_000,
    '{"loss": 1}', "\x00\x00",
])  # fmt: skip
def test_a_damaged_line_takes_no_other_with_it(damaged: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    later = ROW.replace("1", "3", 1).replace("2.5", "7.5")
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f"{ROW}\n{damaged}\n{later}\n".encode() + b"\xff\n")
    with logger(tmp_path, step=5) as opened:
        assert opened._earlier == 7.5
    assert path.read_text() == f"{ROW}\n{later}\n"
    assert "1 lines are damaged" in caplog.text


def test_the_progress_shows_every_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {"aux/permutation/loss": 1.6094, "aux/permutation/accuracy": 0.9, "aux/rotation/loss": 0.69}
    with logger(tmp_path) as opened:
        opened.log_health(1_000, {"score": -21.0} | shown_losses({"train/loss": 0.0123} | tasks))
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"step 1,000/1,000,000  .*score -21  loss 0.0123  permutation 1.61  rotation 0.69  memory .*", line
    )


def test_a_picture_is_the_same_in_tensorboard_and_in_its_file(tmp_path: Path) -> None:
    sheet = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    with logger(tmp_path) as opened:
        opened.log_picture(7, "rotation", sheet, "aux/rotation/inputs")
        opened.log_picture(9, "rotation", 255 - sheet, "aux/rotation/inputs")
    events = EventAccumulator(str(tmp_path)).Reload().Images("aux/rotation/inputs")
    assert [event.step for event in events] == [7, 9]
    for event, expected in zip(events, (sheet, 255 - sheet), strict=True):
        for file in (io.BytesIO(event.encoded_image_string), tmp_path / "pictures" / f"rotation-{event.step}.png"):
            np.testing.assert_array_equal(np.asarray(Image.open(file)), expected)


def test_the_score_comes_first(tmp_path: Path) -> None:
    with logger(tmp_path) as opened:
        opened.log_scalars(40, {"eval/mean_reward": 20.5, "aux/rotation/loss": 1.0}, updates=0)
    events = EventAccumulator(str(tmp_path)).Reload()
    for tag in ("eval/mean_reward", min(events.Tags()["scalars"])):  # TensorBoard sorts: the score comes first
        assert [(event.step, event.value) for event in events.Scalars(tag)] == [(40, 20.5)]
    assert min(events.Tags()["scalars"]) != "eval/mean_reward"


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")  # its traceback
def test_a_full_disk_leaves_a_gap_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with logger(tmp_path) as opened:
        opened.log_scalars(10, {"loss": 1.0}, updates=0)
        opened.flush()
        with monkeypatch.context() as patch:
            patch.setattr(opened, "_file", SimpleNamespace(write=full, flush=full))
            patch.setattr(RecordWriter, "write", full)
            patch.setattr(Image.Image, "save", full)
            patch.setattr(sys, "stderr", SimpleNamespace(write=full))
            for step in (20, 30):
                opened.log_scalars(step, {"loss": 1.0}, updates=0)
                opened.log_health(step, {})
                opened.log_picture(step, "rotation", np.zeros((2, 3, 3), np.uint8), "aux/rotation/inputs")
                opened.flush()
        opened.flush()
        for step in (40, 50):
            opened.log_scalars(step, {"loss": 1.0}, updates=0)
            opened.flush()
    assert [record.message for record in caplog.records] == [
        "the log will have gaps: [Errno 28] No space left on device"
    ]
    assert [row["step"] for row in rows(tmp_path)] == [10, 40, 50]
    assert sorted(event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("loss")) == [10, 40, 50]
