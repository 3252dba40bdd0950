"""The command line: what works, and one line for what does not."""

import os
import re
import signal
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from agents import AGENTS
from agents.peers import PEERS
from aux_tasks import TASKS
from configs.schema import Config
from encoders import ENCODERS
from envs import ENVS
from experiment.command_line import modules, overrides
from experiment.command_line.composition import Composed, freeze, register
from experiment.command_line.overrides import CONFIGS, compose_jobs, compose_words
from experiment.launching import launch as module
from experiment.launching.launch import exit_code, launch
from harness.signals import Interrupted


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


PATHS = {
    "config": "run_dir encoder.init replay.path",
    "pretrain": "run_dir encoder.init source.path source.policy",
    "evaluate": "checkpoint json video attribution background_folder",
    "probe": "checkpoint report",
}


def test_an_error_while_a_library_cleans_up_after_a_signal_is_an_interruption(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run() -> int:
        try:
            raise Interrupted(signal.SIGTERM)
        finally:
            None.flags = 0  # type: ignore[attr-defined]  # as OmegaConf does

    assert exit_code(run) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "interrupted; run the same command again\n"


@pytest.mark.parametrize("typed", ["2026_11_27", "1e3", "true"])
@pytest.mark.parametrize("name", PATHS)
def test_a_path_stays_as_it_was_typed(name: str, typed: str) -> None:
    words = ["aux=rotation", "source=frames"] if name == "pretrain" else []
    keys = PATHS[name].split()
    composed = compose_words(name, *words, *(f"{key}={typed}" for key in keys))
    assert {OmegaConf.select(composed.config, key) for key in keys} == {typed}


def test_a_path_stays_as_it_was_typed_in_a_sweep() -> None:
    typed = ["007", "+1", "1.50", "0x1f", "1_0.0_1", "inf", "-0", "x", "1e3", "2026_11_27"]
    jobs = compose_jobs("evaluate", [f"json={','.join(typed)},'1e3'"], sweep=True)
    assert [job.config.json for job in jobs] == [*typed, "1e3"]


def test_a_number_stays_a_number_and_null_nothing() -> None:
    config = compose_words("config", "steps=1_000", "run_dir=null", "gamma=1e-1", "encoder.init=null").config
    assert (config.steps, config.run_dir, config.gamma, config.encoder.init) == (1000, None, 0.1, None)


@pytest.mark.parametrize("path", ["zoo/pong-dqn", "runs/a+b/s0", "2026_11_27", "it's", "a b/c,(1)"])
def test_a_bare_path_is_the_checkpoint(path: str) -> None:
    Path(path).mkdir(parents=True)
    for name in ("evaluate", "probe"):
        ran: list[Composed] = []
        assert launch(lambda composed: ran.append(composed) or 0, name, [path]) == 0  # noqa: B023 — runs at once
        assert [composed.config.checkpoint for composed in ran] == [path]


def test_a_bare_word_is_no_checkpoint_where_there_is_one_or_two(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {("a/x", "checkpoint=b"): "cannot read 'a/x'", ("a/x", "b/x"): "one checkpoint at a time"}
    for words, line in lines.items():
        assert launch(lambda _: pytest.fail("ran"), "evaluate", [*words]) == 2
        assert line in capsys.readouterr().err
    assert launch(lambda _: pytest.fail("ran"), "config", ["zoo/pong-dqn"]) == 2
    assert "cannot read 'zoo/pong-dqn'" in capsys.readouterr().err


WRONG = {
    "config": {
        # too large for the arrays that it becomes a size of
        "encoder.feature_dim=999999999999999999999": "encoder.feature_dim=9+: must be at most",
        "batch_size=-99999999999999999999": "batch_size=-9+: must be at most",
        "aux=rotation aux.rotation.options.crop_rows=[0,99999999999999999999]": "crop_rows=.*: must be at most",
        "aux=vicreg aux.vicreg.options.covariance=mmap": "covariance=mmap: must be a number",
        # nothing
        "run_dir=": "run_dir= is empty",
        "env=": "unknown env ''",
        "encoder.init=": "init= is empty",
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
        "video=x": "unknown key 'video'.*; it is a key of evaluate.py$",
        "source=idx": "unknown key 'source'.*; it is a key of pretrain.py, probe.py$",
        "checkpoint.path=x": "'checkpoint",
        "hydra.job.chdir=true": "'hydra.job.chdir': there are env",
        "env.foo=1": "'env.foo': there are name, num_envs, game",
        "agent=sac agent.warmth=1": "'agent.warmth': there are name, learning_rate",
        "aux.rotation.weight=3": "'aux.rotation.weight'.*add aux=rotation$",
        "seed.x=3": "'seed.x': seed is a single value",
        # choices
        "env=atari/": "env 'atari/'.*'atari'?",
        "env=toi": "env 'toi'.*'toy'?",
        "env=pong": "env 'pong'.*'atari/pong'?",
        "env=ALE/Pong-v5": "env 'ALE/Pong-v5'.*'atari/pong'?",
        "env=MontezumaRevengeNoFrameskip-v4": "env 'Mont.*'atari/montezuma_revenge'?",
        "env=walker_walk": "env 'walker_walk'.*'dmc/walker_walk'?",
        "env=dmc/walkr_walk": "'walkr_walk'.*'walker_walk'?",
        "env=toy/x": "'x': there are none",
        "env=atari/Pong": "'Pong'.*'pong'?",
        "env=atari/combat": "env.game=combat needs two players",
        "env=dmc env.domain=walkr": "domain 'walkr'.*'walker'?",
        "env=qqq": "env 'qqq': there are atari, bitflip, deep_sea, dmc",
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
        "experiment=pretrain_tcn": "experiment 'pretrain_tcn': it is one of pretrain.py$",
        "aux=rotation,permutation": r"aux=rotation,permutation .*aux=\[rotation,permutation\].*-m",
        "seed=0,1": r"seed=0,1 .*key=\[a,b\].*-m",
        "agent=[dqn,sac]": "agent takes one choice",
        "experiment=pong_cpu agent=sac": "sets agent.epsilon_end, .*of agent",
        "experiment=dbc_paper env=toy": "sets env.background, .*of env",
        "-m seed=interval(0,1)": "INTERVAL",
        # words and options
        "sweep.jobs=2": "sweep.jobs=2.*-m",
        "steps": "'steps'.*key=value",
        "run_dir=/tmp/a=b": "'run_dir=/tmp/a=b'.*\"key='value'\"",
        "+foo=1": "'.foo=1'.*neither added nor removed",
        "~steps": "'~steps'.*neither added nor removed",
        "env@x=toy": "'env@x'",
        "--halp": "'--halp'.*'--help'?",
        "--experiment pong_cpu": "'--experiment'.* experiment=pong_cpu$",
        "--lr=1e-3": "'--lr=1e-3'.* lr=1e-3$",
        "seed=1 --steps": r"'--steps'.* steps=\.\.\.$",
        "seed=1 -x": "'-x': there are --help",
        "import=no_such_module": "'no_such_module': ModuleNotFoundError",
        # values
        "agent.target=sfot": "agent.target.*'sfot'.*did you mean 'soft'?",
        "agent.precision=bfloat": "agent.precision.*'bfloat'.*'bfloat16'?",
        "agent.aux_schedule=": r"agent.aux_schedule.*\[joint, alternating\]$",
        "seed=x": "seed=x: must be a whole number",
        "replay.capacity=1.5": "replay.capacity=1.5: .*whole number",
        "steps=0": "steps must be at least 1, got 0",
        "steps=1.5e0": "steps=1.5: .*whole number",
        "steps=1e400": "steps.*whole number",
        "agent.learning_rate=x": "agent.learning_rate=x: must be a number",
        "clip_reward=2": "clip_reward=2: .*clip_reward=true or clip_reward=false",
        "clip_reward=yes": "clip_reward=true or",
        "env.grayscale=0": "env.grayscale=true or",
        "encoder.standardize=null": "encoder.standardize=true or",
        "aux=bigan -m replay.prioritized=true,1": "replay.prioritized=true or",
        "threads=-1": "threads must be at least 0, got -1",
    },
    "pretrain": {
        "sorce=idx": "'sorce'.*'source'?",
        "source=frmes": "source 'frmes'.*'frames'?",
        "agent=dqn": "'agent': there are source, env, encoder, aux",
        "replay.capacity=3": "'replay.capacity': there are source, env",
        "lr=1": "'learning_rate'?",
        "experiment=her_pusher": "experiment 'her_pusher': it is one of train.py$",
    },
    "probe": {
        "checkpont=x": "'checkpont'.*'checkpoint'?",
        "encoder=runs/mine": "unknown encoder 'runs/mine': there are alexnet",
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
    ("word", "key", "value"),
    [
        ("steps=1e6", "steps", 1_000_000),
        ("steps=2.0", "steps", 2),
        ("env.num_envs=1e1", "env.num_envs", 10),
        ("gamma=1", "gamma", 1.0),
        ("clip_reward=False", "clip_reward", False),
        ("env=dmc/ball_in_cup_catch", "env.domain", "ball_in_cup"),
        ("env=dmc/humanoid_CMU_walk", "env.task", "walk"),
    ],
)
def test_a_word_is_read_as_it_was_meant(word: str, key: str, value: object) -> None:
    found = OmegaConf.select(compose_words("config", word).config, key)
    assert (type(found), found) == (type(value), value)


def test_a_preset_brings_back_no_task_that_was_deselected() -> None:
    presets = sorted(path.stem for path in (CONFIGS / "experiment").iterdir())
    presets = [preset for preset in presets if not preset.startswith("pretrain_")]
    assert all(not compose_words("config", f"experiment={preset}", "aux=none").config.aux for preset in presets)


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
        (KeyboardInterrupt(), 130, "interrupted; run the same command again\n"),
    ],
)
def test_errors_of_a_run_are_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Composed) -> int:
        raise error

    assert launch(run, "config", []) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("dev_mode", [False, True])
def test_an_error_in_the_code_tells_its_place_and_its_traceback_on_request(
    dev_mode: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Composed) -> int:
        raise KeyError("bug")

    monkeypatch.setattr(module.sys, "flags", SimpleNamespace(dev_mode=dev_mode))
    assert launch(run, "config", []) == 2
    *trace, line = capsys.readouterr().err.splitlines()
    assert re.match(rf"error: KeyError: 'bug' \({__file__}:\d+\)", line)
    assert (trace[:1] == ["Traceback (most recent call last):"]) == dev_mode


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_a_program_is_one_line_and_an_exit_code(
    signum: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Composed) -> int:
        os.kill(os.getpid(), signum)
        return 0

    code = 0 if signum == signal.SIGUSR1 else 128 + signum
    assert launch(run, "config", []) == code
    assert capsys.readouterr().err.count("\n") == bool(code)


@pytest.mark.parametrize(("option", "name"), [("--help", "config"), ("-h", "config"), ("-h", "pretrain")])
def test_help_lists_groups_choices_and_keys(option: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(f"{option} seed=3", name=name) == (0, [])
    text, presets = capsys.readouterr().out, [path.stem for path in (CONFIGS / "experiment").iterdir()]
    groups = {
        "aux": ["none", *(path.stem for path in (CONFIGS / "aux").iterdir()), *TASKS],
        "encoder": ENCODERS,
        "env": ENVS,
        "experiment": [preset for preset in presets if preset.startswith("pretrain_") == (name == "pretrain")],
        **({"agent": {**AGENTS, **PEERS}} if name == "config" else {}),
    }
    for group, choices in groups.items():
        assert f"{group}: {', '.join(sorted(choices))}\n" in text
    assert all(part in text for part in ("What it does.", "--multirun", "--cfg", "import=", "  seed: 3  # "))
    assert "Hydra" not in text
    assert "schema" not in text


def test_cfg_prints_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert launched("--cfg aux=rotation seed=3") == (0, [])
    assert OmegaConf.create(capsys.readouterr().out) == compose_words("config", "aux=rotation", "seed=3").config


def test_modules_of_the_user_are_imported_before_the_groups_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    store = ConfigStore.instance()
    monkeypatch.setitem(store.repo, "env", {**store.repo["env"]})
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

    monkeypatch.setattr(modules, "entry_points", found)
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
    source = "".join(Path(each.__file__).read_text() for each in (module, modules, overrides))
    assert "hydra._" not in source
    assert "sys.argv" not in source
