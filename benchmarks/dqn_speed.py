"""Speed and memory of the DQN beside Stable-Baselines3's, on the same work: `make bench`.

Same Nature network (the two dueling streams together are as wide as SB3's hidden layer), batch 32, one update every
four agent steps, eight copies of Pong, the same torch threads, in alternating rounds of one process. Ours learns
double, dueling, 3-step; SB3's plain one-step update has one forward pass less. The preset is `experiment=pong_cpu`
without its auxiliary task. Writes results/dqn_speed.json
and the block of its page. Options: threads=N rounds=N steps=N.

`make bench ARGS=variants=1` measures what heads, auxiliary tasks and `agent.conflict` add to the preset instead, in
seconds of one core, so that other work on the machine counts little.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import RESULTS, config_of, need, options, read_json, table, with_block
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

import agents
import train
from configs.schema import Config
from experiment.training.build import Parts, build
from experiment.training.run import Progress, Training
from harness.process import matmul_rate, tune_process
from harness.progress import Meter
from harness.provenance import versions, write_json
from harness.signals import GracefulExit

JSON, PAGE = RESULTS / "dqn_speed.json", RESULTS / "dqn_speed.md"
WARMUP, COPIES, BATCH = 5_000, 8, 32
FRAME = 84 * 84
PEER = ["encoder.layer_norm=false", "agent.hidden=256", "agent.layer_norm=false"]  # what SB3's network has
NETWORKS = {
    "nature": ["encoder=nature", *PEER],
    "der": ["encoder=der", *PEER],
    "the preset": ["experiment=pong_cpu", "aux=none", "until_score=null"],
}
VARIANTS = {  # of the preset; each with what its speed is compared to
    "head=quantile": (["agent.head=quantile"], "the preset"),
    "head=implicit": (["agent.head=implicit"], "the preset"),
    "aux=permutation": (["aux=permutation"], "the preset"),
    "aux=permutation conflict=gate": (["aux=permutation", "agent.conflict=gate"], "aux=permutation"),
    "aux=permutation conflict=pcgrad": (["aux=permutation", "agent.conflict=pcgrad"], "aux=permutation"),
    "aux=curl": (["aux=curl"], "the preset"),
    "aux=curl conflict=gate": (["aux=curl", "agent.conflict=gate"], "aux=curl"),
}
ARMS = [f"{network}, {precision}" for network in NETWORKS for precision in ("float32", "bfloat16")]


class Stopwatch:
    """Stands where the run's logger stands and notes by a clock when each step was reached."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.marks: list[tuple[int, float]] = []
        self.meter = Meter("step", 0, 0)  # which is never entered and shows nothing

    def log_scalars(self, *_: Any, **__: Any) -> None:
        """Nothing is written."""

    def flush(self) -> None:
        """Nothing is written."""

    def log_health(self, step: int, *_: float) -> None:
        """Note the time, once it learns."""
        if step > WARMUP:
            self.marks.append((step, self._clock()))

    def speed(self) -> float:
        """Steps a second between the first and the last mark."""
        (first, start), (last, end) = self.marks[0], self.marks[-1]
        return (last - first) / (end - start)


def our_config(arm: str, steps: int) -> Config:
    """The real loop, with nothing but the network, its width and the precision changed."""
    network, precision = arm.split(", ")
    words = [f"agent.precision={precision}", f"learning_starts={WARMUP}", f"batch_size={BATCH}", "device=cpu"]
    words += [f"env.num_envs={COPIES}", "log_every=200", "diagnose_every=0", f"steps={steps}"]
    network_words = NETWORKS.get(network) or [*NETWORKS["the preset"], *VARIANTS[network][0]]
    return config_of("config", [*network_words, *words], Config)  # type: ignore[no-any-return]


def our_speed(arm: str, steps: int, clock: Callable[[], float] = time.perf_counter) -> tuple[float, Parts]:
    """Agent steps a second of `train.learn`, learning all the while, and the parts for closer looks."""
    config = our_config(arm, WARMUP + steps)
    parts, watch = build(config), Stopwatch(clock)
    with TemporaryDirectory() as folder, GracefulExit() as stop:
        run = Training(config, parts, Progress(), Path(folder), watch)  # type: ignore[arg-type]
        train.learn(run, stop)
    watch.marks.pop()  # the last one came after the run's end had begun
    return watch.speed(), parts


def peer_speed(steps: int) -> tuple[float, float]:
    """Agent steps a second of SB3's DQN, learning all the while, and its frames' bytes a stored transition."""
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=COPIES, seed=0), n_stack=4)
    peer = DQN(
        "CnnPolicy",
        env,
        buffer_size=20_000,
        learning_starts=WARMUP,
        batch_size=BATCH,
        train_freq=(1, "step"),
        gradient_steps=COPIES // 4,
        device="cpu",
    )
    marks: list[tuple[int, float]] = []

    class Note(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps > WARMUP + 200:
                marks.append((self.num_timesteps, time.perf_counter()))
            return True

    peer.learn(WARMUP + steps, callback=Note())
    env.close()
    buffer: Any = peer.replay_buffer
    stacks = buffer.observations.nbytes + buffer.next_observations.nbytes
    return (marks[-1][0] - marks[0][0]) / (marks[-1][1] - marks[0][1]), stacks / peer.buffer_size


def milliseconds(work: Callable[[], Any], repeats: int = 60) -> float:
    """Median time of one call."""
    for _ in range(5):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def closer(parts: Parts) -> dict[str, float]:
    """Milliseconds of sampling, of an update, and of its bare network passes; bytes per stored transition."""
    agent, batch = parts.agent, parts.replay.sample(BATCH, frozenset())
    assert isinstance(agent, agents.DQN)

    def bare() -> None:
        with agent.autocast():
            with torch.no_grad():
                agent.online_q(batch.nstep_obs)
                agent.target_head(agent.target_encoder(batch.nstep_obs))
            q = agent.online_q(batch.obs)
        q.sum().backward()  # type: ignore[no-untyped-call]
        agent.optimizers[0].zero_grad()

    # Alternating, since the machine's speed wanders.
    rows = [
        (
            milliseconds(lambda: parts.replay.sample(BATCH, frozenset()), 20),
            milliseconds(lambda: agent.update(batch), 20),
            milliseconds(bare, 20),
        )
        for _ in range(5)
    ]
    sample, update, network = (statistics.median(column) for column in zip(*rows, strict=True))
    share = statistics.median(1 - bare_ms / (sample_ms + update_ms) for sample_ms, update_ms, bare_ms in rows)
    return {
        "sample": sample,
        "update": update,
        "network": network,
        "other share": share,
        "bytes": parts.replay.bytes_per_transition,
    }


def main() -> None:
    """Measure and write the table."""
    given = options(threads=0, rounds=3, steps=2_000, variants=0)
    command = f'make bench ARGS="{" ".join(sys.argv[1:])}"'
    of_variants = given.pop("variants")
    measured = variants(given) if of_variants else networks(given)
    content = {"command": command, "options": given, "gflops": matmul_rate()} | measured
    kept = read_json(JSON)
    write_json(kept | {"variants": content} if of_variants else content | {"variants": kept["variants"]}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


def variants(given: dict[str, int]) -> dict[str, Any]:
    """Speed of the preset and its variants, in steps a second of one core."""
    given["threads"] = tune_process(1)
    speeds: dict[str, list[float]] = {arm: [] for arm in ("the preset", *VARIANTS)}
    for _ in range(given["rounds"]):
        for arm, found in speeds.items():
            speed, parts = our_speed(f"{arm}, float32", given["steps"], time.process_time)
            found.append(speed)
            parts.env.close()
    return {"versions": versions(), "speeds": speeds}


def networks(given: dict[str, int]) -> dict[str, Any]:
    """Speed and memory of the networks beside Stable-Baselines3."""
    need("cv2", "pip install 'opencv-python-headless>=4.10,<5', with which Stable-Baselines3 scales Atari's frames")
    given["threads"] = tune_process(given["threads"])
    ours: dict[str, list[float]] = {arm: [] for arm in ARMS}
    peer: list[tuple[float, float]] = []
    details = {}
    for _ in range(given["rounds"]):
        for arm, speeds in ours.items():
            speed, parts = our_speed(arm, given["steps"])
            speeds.append(speed)
            details[arm] = closer(parts)
            parts.env.close()
        peer.append(peer_speed(given["steps"]))
    rows = [{"arm": f"Sidequest, {arm}", "speeds": speeds, **details[arm]} for arm, speeds in ours.items()]
    theirs = {"arm": "SB3 DQN, nature, float32", "speeds": [speed for speed, _ in peer], "bytes": peer[0][1]}
    return {"versions": versions("stable-baselines3"), "rows": [*rows, theirs]}


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content = read_json(JSON)
    given, used, peer = content["options"], content["versions"], content["rows"][-1]["speeds"]
    header = ["", "agent steps/s (median, range)", "ratio to SB3 in the same round", "updates/s", "ms a sample of 32"]
    header += ["ms an update", "share of both outside of the network", "bytes a transition"]
    lines = []
    for row in content["rows"]:
        speeds = row["speeds"]
        ratios = spread([a / b for a, b in zip(speeds, peer, strict=True)], 2) if "sample" in row else "1"
        parts = [""] * 3
        if "sample" in row:
            parts = [f"{row['sample']:.2f}", f"{row['update']:.1f}", f"{row['other share']:.0%}"]
        first = [row["arm"], spread(speeds), ratios, f"{statistics.median(speeds) / 4:.0f}"]
        lines.append([*first, *parts, f"{row['bytes']:.0f} ({row['bytes'] / FRAME:.3f} x frame)"])
    told = (
        f"`{content['command']}`: {given['rounds']} alternating rounds of {given['steps']} agent steps, "
        f"{given['threads']} torch threads, {used['cpu']}, {content['gflops']:.0f} GFLOP/s at float32 1024 x 1024 "
        f"matrix products; torch {used['torch']}, stable-baselines3 {used['stable-baselines3']}.\n\n"
    )
    return with_block(page, __file__, told + table(header, lines) + compared(content["variants"]))


def compared(content: dict[str, Any]) -> str:
    """A table of what the variants of the preset cost."""
    speeds, given = content["speeds"], content["options"]
    told = (
        f"`{content['command']}`: {given['rounds']} alternating rounds of {given['steps']} agent steps, one thread, "
        f"seconds of the core; {content['versions']['cpu']}, torch {content['versions']['torch']}.\n\n"
    )
    ratios = [[b / a for a, b in zip(speeds[arm], speeds[base], strict=True)] for arm, (_, base) in VARIANTS.items()]
    rows = [[arm, base, spread(of, 2)] for (arm, (_, base)), of in zip(VARIANTS.items(), ratios, strict=True)]
    return f"\n{told}{table(['the preset with', 'beside', 'time of an agent step, ratio'], rows)}"


def spread(values: list[float], digits: int = 0) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
