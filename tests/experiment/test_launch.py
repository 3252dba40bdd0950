"""The command line: what works, and one line for what does not."""

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from agents import AGENTS
from aux_tasks import TASKS
from configs.schema import Config
from encoders import ENCODERS
from envs import ENVS
from experiment import launch as module
from experiment.composition import freeze
from experiment.launch import Composed, compose_words, launch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def launched(line: str, codes: tuple[int, ...] = (), name: str = "config") -> tuple[int, list[Composed]]:
    """The exit code of a command line, and what it ran; job i returns `codes[i]`, or else 0."""
    jobs: list[Composed] = []

    def run(composed: Composed) -> int:
        if name == "config":
            freeze(composed.config, Config)
        jobs.append(composed)
        return dict(enumerate(codes, start=1)).get(len(jobs), 0)

    return launch(run, name, line.split(), "What it does."), jobs


WRONG = {
    "config": {
        # a key that is near
        "agent.lerning_rate=1": "'agent.learning_rate'?",
        "agnt.learning_rate=1": "'agent.learning_rate'?",
        "learning_rate=1e-3": "'agent.learning_rate'?",
        "lr=1e-3": "'agent.learning_rate'?",
        "encoder.dim=50": "'encoder.feature_dim'?",
        "n_step=3": "'replay.n_step'?",
        "agent.n_step=3": "'replay.n_step'?",
        "game=breakout": "'env.game'?",
        "num_envs=4": "'env.num_envs'?",
        "step=3": "'steps'?",
        "aux=[rotation,jigsaw] aux.jigsaw.wieght=3": "'aux.jigsaw.weight'?",
        "aux=rotation aux.rotation.options.hiden=3": "hiden.*'aux.rotation.options.hidden'?",
        "-m seed=0,1 agent.lerning_rate=1": "'agent.learning_rate'?",
        # none that is near
        "video=x": "'video': there are env, agent, encoder.* seed",
        "source=idx": "'source': there are env, agent, encoder",
        "checkpoint.path=x": "'checkpoint",
        "hydra.job.chdir=true": "'hydra.job.chdir': there are env",
        "env.foo=1": "'env.foo': there are name, num_envs, game",
        "agent=sac agent.warmth=1": "'agent.warmth': there are name, learning_rate",
        "aux.rotation.weight=3": "'aux.rotation.weight': aux is empty",
        "seed.x=3": "'seed.x': seed is a single value",
        # choices
        "env=atari/": "env 'atari/'.*'atari'?",
        "env=toi": "env 'toi'.*'toy'?",
        "env=qqq": "env 'qqq': there are atari, dmc",
        "env=atari/brekout": "'brekout'.*'breakout'?",
        "aux=rotaton": "aux 'rotaton'.*'rotation'?",
        "aux=[rotation,permutaton]": "aux 'permutaton'.*'permutation'?",
        "-m aux=none,rotaton": "aux 'rotaton'.*'rotation'?",
        "encoder=naturr": "encoder 'naturr'.*'nature'?",
        "encoder=3": "encoder 3: there are",
        "agent=scc": "agent 'scc'.*'sac'?",
        "experiment=pong": "experiment 'pong'.*'pong_cpu'?",
        "experiment=": "experiment '': there are .*pong_cpu",
        "experiment=null": "experiment None: there are .*pong_cpu",
        "aux=none,rotation": "aux=none,rotation .*-m",
        "-m seed=interval(0,1)": "INTERVAL",
        # words and options
        "steps": "'steps'.*key=value",
        "run_dir=/tmp/a=b": "'run_dir=/tmp/a=b'.*\"key='value'\"",
        "+foo=1": "'.foo=1'.*neither added nor removed",
        "~steps": "'~steps'.*neither added nor removed",
        "env@x=toy": "'env@x'",
        "--halp": "'--halp'.*'--help'?",
        "seed=1 -x": "'-x': there are --help",
        "import=no_such_module": "'no_such_module': ModuleNotFoundError",
        # values
        "agent.target=sfot": "agent.target.*'sfot'.*did you mean 'soft'?",
        "agent.precision=bfloat": "agent.precision.*'bfloat'.*'bfloat16'?",
        "agent.aux_schedule=": r"agent.aux_schedule.*\[joint, alternating\]$",
        "seed=x": "seed.*'x'.*Integer",
        "replay.capacity=1.5": "replay.capacity.*'1.5'.*Integer",
        "steps=0": "steps=0.*at least 1",
        "threads=-1": "threads=-1.*at least 0",
    },
    "pretrain": {
        "sorce=idx": "'sorce'.*'source'?",
        "source=frmes": "source 'frmes'.*'frames'?",
        "agent=dqn": "'agent': there are source, env, encoder, aux",
        "replay.capacity=3": "'replay.capacity': there are source, env",
        "lr=1": "'learning_rate'?",
    },
    "probe": {
        "checkpont=x": "'checkpont'.*'checkpoint'?",
        "encoder=runs/mine": "'encoder': there are checkpoint, aux, source",
        "source.folder=x": "'source.folder': source is empty",
        "train_label=3": "'train_labels'?",
        "episodes=3": "'episodes': there are checkpoint",
    },
    "evaluate": {
        "episode=3": "'episode'.*'episodes'?",
        "epsiodes=3": "'epsiodes'.*'episodes'?",
        "lr=1": "'lr': there are checkpoint, episodes.* device",
        "agent=dqn": "'agent': there are checkpoint",
        "seed.x=1": "'seed.x': seed is a single value",
        "video": "'video'.*key=value",
    },
}


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in WRONG.items() for line in lines])
def test_a_wrong_command_line_is_one_line(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(line, name=name) == (2, [])
    out, err = capsys.readouterr()
    assert re.fullmatch("error: .*\n", err)
    assert re.search(WRONG[name][line].replace("?", r"\?"), err.rstrip("\n"))
    assert len(err) < 440
    assert out == ""


def test_groups_keys_and_experiments() -> None:
    line = "experiment=pong_cpu env=atari/breakout aux=[rotation,moco] aux.rotation.options.hidden=9 seed=4"
    code, (made,) = launched(line)
    assert code == 0
    assert made.choices == {"experiment": "pong_cpu", "env": "atari/breakout", "aux": "[rotation,moco]"}
    for composed, hidden, seed in ((made.config, 9, 4), (made.preset, 256, 0)):
        assert (composed.env.game, list(composed.aux), composed.until_score) == ("breakout", ["rotation", "moco"], 17)
        assert (composed.aux.rotation.options.hidden, composed.seed) == (hidden, seed)


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (
            "-m env=atari/pong,atari/breakout aux=none,[rotation,moco]",
            [(g, a, 0) for g in ("pong", "breakout") for a in ([], ["rotation", "moco"])],
        ),
        ("steps=3 --multirun seed=range(0,3) steps=4", [("pong", [], seed) for seed in range(3)]),
        ("seed=choice(5,7) -m", [("pong", [], 5), ("pong", [], 7)]),
    ],
)
def test_a_sweep_runs_every_combination(line: str, made: list[tuple[str, list[str], int]]) -> None:
    code, jobs = launched(line)
    assert code == 0
    assert [(c.env.game, list(c.aux), c.seed) for c in (job.config for job in jobs)] == made


@pytest.mark.parametrize(("codes", "result", "jobs"), [((2, 0), 2, 3), ((2, 130), 130, 2), ((143,), 143, 1)])
def test_a_failed_job_does_not_stop_a_sweep_and_a_signal_does(codes: tuple[int, ...], result: int, jobs: int) -> None:
    code, ran = launched("-m seed=0,1,2", codes)
    assert (code, len(ran)) == (result, jobs)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [(kind("no such thing"), 2, "error: no such thing\n") for kind in (ValueError, MemoryError, OSError, RuntimeError)]
    + [
        (MemoryError(), 2, "error: MemoryError\n"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command to resume\n"),
    ],
)
def test_errors_of_a_run_are_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Composed) -> int:
        raise error

    assert launch(run, "config", []) == code
    assert capsys.readouterr().err == line


def test_errors_in_the_code_keep_their_traceback() -> None:
    def run(_: Composed) -> int:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        launch(run, "config", [])


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_groups_choices_and_keys(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(f"{option} agent.learning_rate=1e-3") == (0, [])
    text = capsys.readouterr().out
    groups = {"agent": AGENTS, "aux": ["none", "dbc_robust", *TASKS], "encoder": ENCODERS, "env": ENVS}
    assert all(f"{group}: {', '.join(sorted(choices))}\n" in text for group, choices in groups.items())
    assert all(part in text for part in ("What it does.", "--multirun", "--cfg", "import=", "  learning_rate: 0.001\n"))
    assert "Hydra" not in text
    assert "schema" not in text


def test_cfg_prints_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert launched("--cfg aux=rotation seed=3") == (0, [])
    assert OmegaConf.create(capsys.readouterr().out) == compose_words("config", "aux=rotation", "seed=3").config


def test_modules_of_the_user_are_imported_before_the_groups_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ConfigStore.instance()
    monkeypatch.setitem(store.repo, "env", {**store.repo.get("env", {})})
    monkeypatch.setitem(ENVS, "mine", ENVS["toy"])
    del ENVS["mine"]
    (folder / "mine_env.py").write_text("from envs import ENVS\nENVS['mine'] = ENVS['toy']\n")
    (folder / "mine_parts").mkdir()
    for name in ("one", "two"):
        (folder / "mine_parts" / f"{name}.py").write_text("")
    code, (made,) = launched("import=[mine_parts.one,mine_parts.two] env=mine import=mine_env")
    assert (code, made.choices) == (0, {"env": "mine"})
    assert {"mine_parts.one", "mine_parts.two"} <= set(sys.modules)
    assert made.config.imports == ["mine_parts.one", "mine_parts.two", "mine_env"]


def test_an_entry_point_is_loaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def found(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("mine", "json", group), EntryPoint("broken", "no_such_module", group)]

    monkeypatch.setattr(module, "entry_points", found)
    assert launched("") == (2, [])
    assert asked == ["sidequest"]
    assert "cannot import 'no_such_module'" in capsys.readouterr().err


def test_a_module_that_fails_is_one_line_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken_module.py").write_text("\nraise KeyError('two\\nlines')\n")
    assert launched("import=broken_module") == (2, [])
    assert re.fullmatch(
        r"error: cannot import 'broken_module': KeyError: .*broken_module\.py:2\)\n", capsys.readouterr().err
    )


def test_nothing_private_of_hydra_is_used() -> None:
    source = Path(module.__file__).read_text()
    assert "hydra._" not in source
    assert "sys.argv" not in source
