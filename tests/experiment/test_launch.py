"""The command line: what works, and one line for what does not."""

import sys
from pathlib import Path

import pytest

from agents import AGENTS
from aux_tasks import TASKS
from configs.schema import Config
from encoders import ENCODERS
from envs import ENVS
from experiment.composition import freeze, register
from experiment.launch import launch

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    register()


def launched(line: str, codes: tuple[int, ...] = ()) -> tuple[int, list[Config]]:
    """The exit code of a command line, and the configs that it ran; job i returns `codes[i]`, or else 0."""
    configs: list[Config] = []

    def task(composed: object) -> int:
        configs.append(freeze(composed, Config))  # type: ignore[arg-type]
        return dict(enumerate(codes, start=1)).get(len(configs), 0)

    return launch(task, CONFIGS, line.split()), configs


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("agent.lerning_rate=1", ["'agent.lerning_rate'", "'agent.learning_rate'"]),
        ("agnt.learning_rate=1", ["'agnt'", "'agent'"]),
        ("learning_rate=1e-3", ["'learning_rate'", "'agent.learning_rate'"]),
        ("n_step=3", ["'replay.n_step'"]),
        ("agent.n_step=3", ["'replay.n_step'"]),
        ("game=breakout", ["'env.game'"]),
        ("num_envs=4", ["'env.num_envs'"]),
        ("aux=[rotation,jigsaw] aux.jigsaw.wieght=3", ["'aux.jigsaw.weight'"]),
        ("step=3", ["'steps'"]),
        ("env=atari/", ["env 'atari/'", "'atari'"]),
        ("steps", ["'steps'", "key=value"]),
        ("run_dir=/tmp/a=b", ["'run_dir=/tmp/a=b'", "\"key='value'\""]),
        ("--halp", ["'--halp'", "'--help'"]),
        ("seed=1 -x", ["'-x'"]),
        ("aux=rotaton", ["aux 'rotaton'", "'rotation'"]),
        ("aux=[rotation,permutaton]", ["aux 'permutaton'", "'permutation'"]),
        ("encoder=naturr", ["encoder 'naturr'", "'nature'"]),
        ("agent=scc", ["agent 'scc'", "'sac'"]),
        ("agent=sac agent.epsilon_end=0.1", ["'agent.epsilon_end'"]),
        ("env=toi", ["env 'toi'", "'toy'"]),
        ("encoder=3", ["string", "int"]),
        ("agent.target=sfot", ["agent.target", "'sfot'", "[soft, hard]", "did you mean 'soft'?"]),
        ("agent.precision=bfloat", ["agent.precision", "'bfloat'", "did you mean 'bfloat16'?"]),
        ("agent.aux_schedule=", ["agent.aux_schedule", "[joint, alternating]", "did you mean"]),
        ("seed=x", ["seed", "'x'", "Integer"]),
        ("replay.capacity=1.5", ["replay.capacity", "'1.5'", "Integer"]),
        ("env=atari/brekout", ["'brekout'", "'breakout'"]),
        ("experiment=pong", ["experiment 'pong'", "'pong_cpu'"]),
        ("experiment=", ["experiment ''", "there are", "pong_cpu"]),
        ("aux=rotation aux.rotation.options.hiden=3", ["hiden", "'aux.rotation.options.hidden'"]),
        ("aux=rotation aux.rotation.wieght=3", ["wieght", "'aux.rotation.weight'"]),
        ("aux.rotation.weight=3", ["'aux.rotation'", "aux is empty"]),
        ("aux=none,rotation", ["aux=none,rotation", "-m"]),
        ("+foo=1", ["'foo'"]),
        ("+env.foo=1", ["foo"]),
        ("steps=0", ["steps=0", "at least 1"]),
        ("threads=-1", ["threads=-1", "at least 0"]),
        ("-m seed=0,1 agent.lerning_rate=1", ["'agent.learning_rate'"]),
        ("-m aux=none,rotaton", ["aux 'rotaton'", "'rotation'"]),
    ],
)
def test_a_wrong_command_line_is_one_line(line: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(line) == (2, [])
    out, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not [part for part in parts if part not in err]
    assert out == ""


@pytest.mark.parametrize(
    ("name", "line", "parts"),
    [
        ("probe", "encoder=runs/mine", ["'encoder'", "there are checkpoint, aux, source"]),
        ("pretrain", "agent=dqn", ["'agent'", "source, env, encoder, aux"]),
        ("config", "source=idx", ["'source'", "env, agent, encoder"]),
    ],
)
def test_a_group_of_another_program_is_answered_with_the_keys_of_this(
    name: str, line: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(lambda _: 0, CONFIGS, [line], name) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: unknown key ")
    assert err.count("\n") == 1
    assert not [part for part in parts if part not in err]


def test_groups_keys_and_experiments() -> None:
    code, (made,) = launched("experiment=pong_cpu env=atari/breakout aux=rotation aux.rotation.options.hidden=9 seed=4")
    assert code == 0
    assert (made.env.game, list(made.aux), made.seed) == ("breakout", ["rotation"], 4)
    assert made.aux["rotation"].options["hidden"] == 9


def test_a_sweep_runs_every_combination() -> None:
    code, configs = launched("-m env=atari/pong,atari/breakout aux=none,[rotation,permutation]")
    assert code == 0
    assert [(made.env.game, list(made.aux)) for made in configs] == [
        ("pong", []),
        ("pong", ["rotation", "permutation"]),
        ("breakout", []),
        ("breakout", ["rotation", "permutation"]),
    ]


def test_options_stand_anywhere() -> None:
    code, configs = launched("steps=3 -m seed=0,1 steps=4")
    assert code == 0
    assert [(made.seed, made.steps) for made in configs] == [(0, 4), (1, 4)]


@pytest.mark.parametrize(("codes", "result", "jobs"), [((2, 0), 2, 3), ((2, 130), 130, 2)])
def test_a_failed_job_does_not_stop_a_sweep_and_a_signal_does(codes: tuple[int, ...], result: int, jobs: int) -> None:
    code, configs = launched("-m seed=0,1,2", codes)
    assert (code, len(configs)) == (result, jobs)


def test_ctrl_c_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def task(_: object) -> int:
        raise KeyboardInterrupt

    assert launch(task, CONFIGS, []) == 130
    assert capsys.readouterr().err == "interrupted; run the same command to continue\n"


@pytest.mark.parametrize("error", [ValueError, MemoryError, OSError, RuntimeError])
def test_errors_of_a_run_are_one_line(error: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    def task(_: object) -> int:
        raise error("no such thing")

    assert launch(task, CONFIGS, []) == 2
    assert capsys.readouterr().err == "error: no such thing\n"


def test_errors_in_the_code_keep_their_traceback() -> None:
    def task(_: object) -> int:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        launch(task, CONFIGS, [])


def test_help_lists_groups_choices_and_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        launched("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    for group, choices in {
        "agent": AGENTS,
        "aux": ["none", "dbc_robust", *TASKS],
        "encoder": ENCODERS,
        "env": ENVS,
    }.items():
        assert f"{group}: {', '.join(sorted(choices))}\n" in text
    assert "  learning_rate: 0.00025\n" in text
    assert "Hydra" not in text
