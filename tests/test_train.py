"""The real training on a toy: what it learns from, leaves and refuses; broken things stop it in one line."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_help import COPIES, at_step, continuous, final, hard, run, small
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import agents.dqn
import train as script
from aux_tasks import TASKS, TaskConfig
from configs.schema import Config
from encoders import EncoderConfig
from envs import EnvError, ToyConfig, ToyVector
from experiment.command_line.composition import complete, read_config
from experiment.launching.launch import exit_code
from experiment.training import ending
from experiment.training.build import build, load_agent
from harness.checkpoint import load_latest
from replay import Replay, ReplayConfig


def test_a_run_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert exit_code(lambda: run(small(tmp_path / "file" / "run"))) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_a_config_that_cannot_be_built_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match=r"set replay\.capacity to"):
        run(small(tmp_path / "run", replay=ReplayConfig(capacity=10**11)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [small, hard])
def test_nan_stops_the_run_and_names_where_it_began(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    original = agents.dqn.DQN.learn
    with monkeypatch.context() as patch:

        def poisoned(self: agents.dqn.DQN, batch: Any) -> Any:
            if self.updates == 6:  # counted already
                batch.nstep_reward[0] = float("nan")
            return original(self, batch)

        patch.setattr(agents.dqn.DQN, "learn", poisoned)
        assert exit_code(lambda: run(kind(tmp_path))) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert checkpoint.step == 48
    assert errors == [f"error: train/loss is nan at step 60; the last good checkpoint is {checkpoint.path}"]
    _, agent = load_agent(tmp_path)
    assert all(tensor.isfinite().all() for tensor in agent.state_dict().values())


def test_a_weight_of_zero_reproduces_the_baseline_bit_for_bit(tmp_path: Path) -> None:
    assert run(small(tmp_path, aux={"rotation": TaskConfig(weight=0.0)})) == 0
    assert run(small(tmp_path / "baseline")) == 0
    encoders = [(folder / "encoder.safetensors").read_bytes() for folder in (tmp_path, tmp_path / "baseline")]
    assert encoders[0] == encoders[1]


def test_probes_change_no_bit_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the recording goes
    monkeypatch.setattr("experiment.probing.build.ONLINE_FRAMES", 320)
    for every in (0, 30):
        assert run(hard(tmp_path / str(every), steps=60, probe_every=every)) == 0
    (plain, plain_rows), (probed, rows) = (final(tmp_path / name) for name in ("0", "30"))
    assert probed == plain
    assert [row for row in rows if not any("repr/probe" in name for name in row)] == plain_rows
    first, last = (row for row in rows if any("repr/probe" in name for name in row))
    assert (first.pop("step"), last.pop("step")) == (30, 60)
    labels = ("paddle", "ball_x", "ball_y", "drift", "mean")
    assert first.keys() == last.keys() == {f"repr/probe/{name}" for name in labels}
    assert first != last


def test_evaluations_during_a_run_change_no_bit_of_it(tmp_path: Path) -> None:
    for every in (0, 30):
        assert run(hard(tmp_path / str(every), steps=60, eval_every=every, eval_every_episodes=3)) == 0
    (plain, plain_rows), (evaluated, rows) = (final(tmp_path / name) for name in ("0", "30"))
    assert evaluated == plain
    assert [row for row in rows if "eval/mean_reward" not in row] == plain_rows
    assert [row["step"] for row in rows if "eval/mean_reward" in row] == [30, 60]


def lose() -> None:
    raise EnvError("worker 0 died")


@pytest.mark.parametrize("lost", [(), (3,), (90,), (63,)], ids=str)
@pytest.mark.parametrize("env", [ToyConfig(num_envs=COPIES), ToyConfig(num_envs=COPIES, time_limit=9)], ids=str)
def test_no_transition_joins_two_games(
    env: ToyConfig, lost: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What replay gives is the set of transitions that the games made, though saving cut them at 60 and 120.

    A worker that is `lost` before a step cuts them too; 3 and 63 are the first steps of their games.
    """
    played: set[Any] = set()  # (obs, action, reward, next obs, terminated)
    stacks: list[Any] = [None] * COPIES  # the previous frame and the newest, of each copy
    games: list[Any] = []  # terminated, truncated
    replays: list[Replay] = []
    reset_of, step_of = ToyVector.reset, ToyVector.step

    def reset(self: ToyVector, seed: int) -> Any:
        frame = reset_of(self, seed)
        stacks[:] = [np.stack([0 * f, f]) for f in frame[:, 0]]
        return frame

    def step(self: ToyVector, action: Any) -> Any:
        result = step_of(self, action)
        for i, frame in enumerate(result.frame[:, 0]):
            before, stacks[i] = stacks[i], np.stack([0 * frame if result.first[i] else stacks[i][1], frame])
            if not result.first[i]:
                ended = bool(result.terminated[i])
                played.add((before.tobytes(), int(action[i]), float(result.reward[i]), stacks[i].tobytes(), ended))
        games.extend(zip(result.terminated, result.truncated, strict=True))
        return result

    monkeypatch.setattr(ToyVector, "reset", reset)
    monkeypatch.setattr(ToyVector, "step", step)
    monkeypatch.setattr(script, "build", lambda config: replays.append((parts := build(config)).replay) or parts)
    changes = {"replay": ReplayConfig(capacity=600, n_step=1), "checkpoint_every": 60, "learning_starts": 1000}
    config = small(tmp_path, env=env, frame_stack=2, steps=180, **changes)
    for at in lost:
        with monkeypatch.context() as patch:
            at_step(at, lose, patch)
            with pytest.raises(RuntimeError, match="worker 0 died"):
                run(config)
        checkpoint = load_latest(tmp_path / "checkpoints")
        assert (checkpoint.step if checkpoint else 0) == at - COPIES
    run(config)
    batch = replays[-1].sample(5000, frozenset({"next_obs"}))
    columns = (batch.obs, batch.action, batch.reward, batch.next_obs, batch.discount)
    given = {
        (obs.numpy().tobytes(), int(action), float(reward), next_obs.numpy().tobytes(), float(discount) == 0)
        for obs, action, reward, next_obs, discount in zip(*columns, strict=True)
    }
    assert given == played
    assert any(truncated if env.time_limit else terminated for terminated, truncated in games)


def test_a_run_acts_samples_and_logs_by_its_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acted, advanced = [], []
    act, advance = agents.dqn.DQN.act, Replay.advance

    def noted(self: agents.dqn.DQN, obs: Any, *, explore: bool) -> Any:
        acted.append((self.schedule.values["epsilon"], explore))
        return act(self, obs, explore=explore)

    monkeypatch.setattr(agents.dqn.DQN, "act", noted)
    monkeypatch.setattr(Replay, "advance", lambda self, step: advanced.append(step) or advance(self, step))
    assert run(hard(tmp_path)) == 0
    epsilons = [max(0.01, 1 - 0.99 * step / 60) for step in range(0, 120, COPIES)]
    assert [epsilon for epsilon, explore in acted if explore] == pytest.approx(epsilons)
    assert advanced[1:] == list(range(30, 121, 6))  # after the replay was made
    priority = load_latest(tmp_path / "checkpoints").state["parts"]["replay"]["sampler"]["priority"]
    assert len(np.unique(priority[priority > 0])) > 10
    events = EventAccumulator(str(tmp_path)).Reload()
    tags = {"mem/rss_gb", "time/fps", "rollout/exploration_rate", "repr/effective_rank", "health/grad_norm"}
    assert tags <= set(events.Tags()["scalars"])
    pictures = {f"{task}-{step}.png" for task in ("permutation", "rotation") for step in (60, 120)}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == pictures


@pytest.mark.parametrize("clip", [True, False])
def test_the_learner_clips_rewards_if_asked_and_replay_keeps_them_raw(
    clip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_of, batches, update = ToyVector.step, [], agents.dqn.DQN.learn

    def step(self: ToyVector, action: Any) -> Any:
        result = step_of(self, action)
        return replace(result, reward=5 * result.reward)

    monkeypatch.setattr(ToyVector, "step", step)
    monkeypatch.setattr(agents.dqn.DQN, "learn", lambda self, batch: batches.append(batch) or update(self, batch))
    assert run(small(tmp_path, clip_reward=clip, replay=ReplayConfig(capacity=90, n_step=1))) == 0
    assert max(float(batch.reward.abs().max()) for batch in batches) == 5
    assert max(float(batch.nstep_reward.abs().max()) for batch in batches) == (1 if clip else 5)


@pytest.mark.parametrize("kind", [small, continuous])
def test_the_end_of_a_run_is_a_report_a_video_and_weights(kind: Any, tmp_path: Path) -> None:
    config = kind(tmp_path, steps=48, eval_episodes=5)
    assert run(config) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["eval/mean_reward"]) == (48, report["summary"]["mean"])
    for name in ("game.mp4", "agent.safetensors", "encoder.safetensors"):
        assert (tmp_path / name).stat().st_size > 0
    read, agent = load_agent(tmp_path)
    assert read == complete(config)
    trained = load_latest(tmp_path / "checkpoints").state["parts"]["agent"]
    acting = agent.acting_weights()
    moments = [tensor for name, tensor in trained.items() if name.endswith("pixel_moments")]
    assert len(moments) == (0 if kind is small else 3), "encoder, its average and CURL's keys"
    assert all(torch.equal(tensor, moments[0]) and tensor[0] > 0 for tensor in moments)
    assert all(torch.equal(trained[name], tensor) for name, tensor in acting.items())
    left_out = {name.rpartition("target_")[2].split(".")[0] for name in trained.keys() - acting.keys()}
    assert left_out == ({"encoder", "head"} if kind is small else {"encoder", "critic"})


def test_the_average_is_what_a_run_leaves_and_is_evaluated_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acting, greedy = [], ending.greedy
    monkeypatch.setattr(ending, "greedy", lambda agent: acting.append(agent) or greedy(agent))
    assert run(hard(tmp_path, steps=60, eval_episodes=2)) == 0
    trained = load_latest(tmp_path / "checkpoints").state["parts"]["agent"]
    alone = load_file(tmp_path / "encoder.safetensors")
    for name, tensor in acting[0].encoder.state_dict().items():
        assert torch.equal(tensor, trained[f"average.encoder.{name}"])
        assert torch.equal(tensor, alone[name])
    weight = acting[0].head.value.weight
    assert torch.equal(weight, trained["average.head.value.weight"])
    assert not torch.equal(weight, trained["head.value.weight"])


COLOUR_TASKS = {"colorization", "soda", "video_colorization"}


@pytest.mark.parametrize("task", sorted(COLOUR_TASKS))
def test_a_task_about_colour_is_refused_where_there_is_none(task: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{task}.*colour"):
        run(small(tmp_path, aux={task: TaskConfig()}))


VIEW_TASKS = {"grasp2vec", "mftcn", "tcn"}


@pytest.mark.parametrize("task", sorted(VIEW_TASKS))
def test_a_task_of_several_views_is_refused_where_there_is_one(task: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"aux={task} reads .*views.*pretrain.py"):
        run(small(tmp_path, aux={task: TaskConfig()}))


@pytest.mark.parametrize("task", sorted(TASKS.keys() - VIEW_TASKS))
def test_every_task_trains(task: str, tmp_path: Path) -> None:
    env = ToyConfig(num_envs=COPIES, grayscale=task not in COLOUR_TASKS)
    encoder = EncoderConfig("vit" if task == "masked_autoencoder" else "der")
    assert run(small(tmp_path, aux={task: TaskConfig()}, env=env, encoder=encoder)) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row[f"aux/{task}/loss"] for row in rows if f"aux/{task}/loss" in row]
    assert len(losses) == 8  # from step 36 to 120
    assert all(map(math.isfinite, losses))
    assert sum(f"aux/{task}/grad_cosine" in row for row in rows) == 2


def test_two_runs_in_one_folder_are_one_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(60, lambda: run(small(tmp_path, steps=999)), monkeypatch)
    with pytest.raises(ValueError, match=f"{tmp_path} is in use"):
        run(small(tmp_path))
    assert read_config(tmp_path / "config.yaml", Config).steps == 120


def test_a_run_goes_on_without_the_file_that_its_encoder_began_with(tmp_path: Path) -> None:
    assert run(small(tmp_path / "first", steps=30)) == 0
    init = tmp_path / "first" / "encoder.safetensors"
    encoder = EncoderConfig("der", init=str(init))
    given: Any = {"encoder": encoder, "diagnose_every": 0}  # else also at the last step of a part
    assert run(small(tmp_path / "whole", **given)) == 0
    assert run(small(tmp_path / "parted", **given, steps=48)) == 0
    init.unlink()
    assert run(small(tmp_path / "parted", **given)) == 0
    assert final(tmp_path / "parted") == final(tmp_path / "whole")
    assert load_agent(tmp_path / "parted")[0].encoder == encoder
    with pytest.raises(ValueError, match=f"{init} does not exist"):
        run(small(tmp_path / "new", encoder=encoder))


def test_a_sweep_leaves_one_folder_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = "-m aux=none,rotation seed=0,1 agent.learning_rate=1e-3,1e-4 env=toy steps=32 learning_starts=16"
    words += " batch_size=4 eval_episodes=0 threads=1 replay.capacity=100 agent.hidden=8 device=cpu"
    assert script.main(words.split()) == 0
    made = sorted(path.relative_to(tmp_path / "runs/toy") for path in tmp_path.glob("runs/toy/*/s?"))
    ends = "learning_rate_{}-batch_size_4-learning_starts_16-capacity_100"
    arms = ("dqn-hidden_8", "dqn+rotation-agent.hidden_8")  # the task has an option `hidden` too
    names = [f"{arm}-{ends.format(rate)}" for arm in arms for rate in (0.001, 0.0001)]
    assert made == sorted(Path(name) / f"s{seed}" for name in names for seed in (0, 1))
    assert all(load_latest(tmp_path / "runs/toy" / path / "checkpoints").step == 32 for path in made)
    assert len({(tmp_path / "runs/toy" / path / "encoder.safetensors").read_bytes() for path in made}) == 8


def test_learning_may_be_rarer_than_logging(tmp_path: Path) -> None:
    for steps in (75, 120):  # continues at a step without an update
        config = small(tmp_path, steps=steps, learning_starts=15, replay_ratio=1 / 40, log_every=3, diagnose_every=3)
        assert run(config) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = [(row["step"], row["train/n_updates"]) for row in rows if "train/n_updates" in row]
    assert logged == [(step, (step >= 57) + (step >= 96)) for step in range(3, 121, 3)]
    assert [row["step"] for row in rows if "train/n_updates" not in row] == [57, 96]  # looked at
    assert [row["step"] for row in rows if "train/loss" in row] == [57, 96]


def test_a_diagnosis_waits_for_an_update_and_a_checkpoint_does_not_drop_it(tmp_path: Path) -> None:
    settings = {"learning_starts": 30, "replay_ratio": 1 / 16, "log_every": 0, "diagnose_every": 60}
    diagnosed = []
    for name, stops in {"whole": (120,), "continued": (60, 120)}.items():
        for steps in stops:
            assert run(small(tmp_path / name, steps=steps, checkpoint_every=60, **settings)) == 0
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        diagnosed.append([row["step"] for row in rows if "repr/effective_rank" in row])
    assert diagnosed == [[63], [63]]


def test_progress_is_told_before_learning_starts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(small(tmp_path, learning_starts=1_000)) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(12, 121, 12))
    assert sum("rollout/score" in row for row in rows) > 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    assert len(lines) == len(rows)
    assert "nan" not in "".join(lines)


def test_a_good_score_ends_the_run_at_a_checkpoint(tmp_path: Path) -> None:
    for until_score, name in ((-1.0, "won"), (1.1, "lost")):  # Catch scores between -1 and 1
        assert run(small(tmp_path / name, steps=480, until_score=until_score, diagnose_every=10_000)) == 0
        rows = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        assert sum("repr/effective_rank" in row for row in rows) == 1  # at the last step alone
    won, lost = (load_latest(tmp_path / name / "checkpoints") for name in ("won", "lost"))
    assert won is not None
    assert lost is not None
    assert won.step < lost.step == 480
    assert won.step % 48 == 0
    assert len(won.state["progress"]["returns"]) >= 10
