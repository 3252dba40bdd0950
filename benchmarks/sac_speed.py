"""Speed and memory of learning SAC from pixels, beside a straightforward implementation: `make bench-sac`.

Both learn `experiment=sac_cartpole agent.random_shift=4` with the same networks and losses, which a check compares
first. `PlainSAC` below is written as the published code bases of SAC-AE and DrQ are: replay that holds both stacks of
a transition, float pixels in the default layout, an optimiser for each part, the encoder run again for the actor and
once more for the critics that evaluate it. Ours encodes once for both, after the critics' step.

Times are CPU time of one thread, which on an idle core is wall-clock time, and arms alternate in one process: a busy
machine changes the figures little, and the ratios less. Writes results/sac_speed.json and the block of
its page. Options: rounds=N.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import RESULTS, config_of, options, read_json, table, with_block
from gymnasium.spaces import Box
from torch import Tensor, nn

from agents import SAC, Precision, SACConfig
from aux_tasks import AuxSuite, TaskConfig
from aux_tasks.control.dbc import DBC
from aux_tasks.parts.dynamics import MIN_STD
from configs.schema import Config
from encoders import Encoder, EncoderConfig, build_encoder
from experiment.training.build import build_agent, build_streams, own_agent
from harness.process import tune_process
from harness.provenance import versions, write_json
from replay import Batch, Replay, build_replay

JSON, PAGE = RESULTS / "sac_speed.json", RESULTS / "sac_speed.md"
CPU = torch.device("cpu")
FRAME, ACTIONS = (3, 84, 84), Box(-1, 1, (1,), np.float32)  # of cartpole
TRANSITIONS = 2_000  # in either replay
OURS, BFLOAT16, WITH_DBC = "Sidequest, float32", "Sidequest, bfloat16", "Sidequest, float32, aux=dbc"
PLAIN, PLAIN_DBC = "straightforward, float32", "straightforward, float32, DBC"
PEERS = {OURS: PLAIN, BFLOAT16: PLAIN, WITH_DBC: PLAIN_DBC}  # which learn from the same losses


# --- the straightforward implementation ---


class PlainReplay:
    """Both stacks of each transition as uint8, drawn as floats."""

    def __init__(self, batches: list[Batch]) -> None:
        self.columns = [
            torch.cat([getattr(batch, name) for batch in batches]).contiguous().numpy()
            for name in ("obs", "action", "reward", "nstep_obs", "discount")
        ]
        self.rng = np.random.default_rng(0)

    def sample(self, batch_size: int) -> list[Tensor]:
        """Observations, actions, rewards, next observations, discounts."""
        index = self.rng.integers(len(self.columns[0]), size=batch_size)
        return [torch.as_tensor(column[index]).float() for column in self.columns]

    @property
    def bytes_per_transition(self) -> float:
        """Of all columns."""
        return sum(column.nbytes for column in self.columns) / len(self.columns[0])


class PlainSAC:
    """SAC with the weights that `agent` has, and its random streams from now on."""

    def __init__(self, agent: SAC) -> None:
        def copy(module: nn.Module) -> Any:
            return deepcopy(module).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

        self.encoder, self.target_encoder = copy(agent.encoder), copy(agent.target_encoder)
        self.critic, self.target_critic, self.actor = map(copy, (agent.critic, agent.target_critic, agent.actor))
        self.log_temperature = agent.log_temperature.detach().clone().requires_grad_()
        self.config, self.action_dim, self.updates = agent.config, agent.action_dim, 0
        self.augment, self.noise = (g.clone_state() for g in (agent.streams.augment, agent.streams.policy))
        adam = partial(torch.optim.Adam, lr=agent.config.learning_rate, eps=agent.config.adam_eps)
        self.critic_optimizer = adam([*self.encoder.parameters(), *self.critic.parameters()])
        self.actor_optimizer = adam(self.actor.parameters())
        self.temperature_optimizer = adam([self.log_temperature])

    def update(self, columns: Sequence[Tensor]) -> Tensor:
        """Learn from one sample of the replay; returns the critics' loss."""
        obs, action, reward, next_obs, discount = columns
        obs, next_obs = self.shift(obs), self.shift(next_obs)
        with torch.no_grad():
            next_action, log_prob = self.sample(self.encoder.trunk(next_obs / 255))
            next_q = self.target_critic(encode(self.target_encoder, next_obs / 255), next_action).amin(0)
            target = reward + discount * (next_q - self.log_temperature.exp() * log_prob)
        q = self.critic(encode(self.encoder, obs / 255), action)
        loss = F.mse_loss(q[0], target) + F.mse_loss(q[1], target)
        descend(self.critic_optimizer, loss)
        self.updates += 1
        if self.updates % self.config.policy_delay == 0:
            self.update_policy(obs)
            self.update_target()
        return loss.detach()

    def update_policy(self, obs: Tensor) -> None:
        """Actor, then temperature."""
        action, log_prob = self.sample(self.encoder.trunk(obs / 255).detach())
        q = self.critic(encode(self.encoder, obs / 255).detach(), action).amin(0)
        descend(self.actor_optimizer, (self.log_temperature.exp().detach() * log_prob - q).mean())
        missing = self.action_dim - log_prob.detach()
        descend(self.temperature_optimizer, (self.log_temperature.exp() * missing).mean())

    @torch.no_grad()
    def update_target(self) -> None:
        """Polyak averages of encoder and critics."""
        tau = self.config.target_tau
        for online, target in ((self.encoder, self.target_encoder), (self.critic, self.target_critic)):
            for p, q in zip(online.parameters(), target.parameters(), strict=True):
                q.copy_(tau * p + (1 - tau) * q)

    def sample(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Actions and their log-densities."""
        mean, log_std = self.actor(maps)
        noise = torch.randn(mean.shape, generator=self.noise)
        action = torch.tanh(mean + log_std.exp() * noise)
        log_prob = -0.5 * noise.pow(2) - log_std - 0.5 * math.log(2 * math.pi) - torch.log(1 - action.pow(2) + 1e-6)
        return action, log_prob.sum(1)

    def shift(self, obs: Tensor) -> Tensor:
        """DrQ's augmentation as DrQ-v2 makes it: repeat the border, then read a moved grid bilinearly."""
        pad, (batch, _, height, width) = self.config.random_shift, obs.shape
        down, right = torch.randint(-pad, pad + 1, (2, batch), generator=self.augment)
        map_ = torch.zeros(batch, 2, 3)
        map_[:, 0, 0], map_[:, 1, 1] = width / (width + 2 * pad), height / (height + 2 * pad)
        map_[:, 0, 2], map_[:, 1, 2] = 2 * right / (width + 2 * pad), 2 * down / (height + 2 * pad)
        grid = F.affine_grid(map_, list(obs.shape), align_corners=False)
        return F.grid_sample(F.pad(obs, (pad,) * 4, mode="replicate"), grid, align_corners=False)


class PlainDBC(PlainSAC):
    """And DBC in the paper's form as its authors' code has it: the encoder run again, and optimisers for that loss."""

    def __init__(self, agent: SAC, task: DBC) -> None:
        super().__init__(agent)
        assert task.transition is not None
        assert task.reward is not None
        self.transition, self.reward = deepcopy(task.transition.members[0]), deepcopy(task.reward)
        self.weight, self.gamma, self.pairs = task.bisimulation_weight, task.gamma, task.generator.clone_state()
        adam = partial(torch.optim.Adam, lr=agent.config.learning_rate, eps=agent.config.adam_eps)
        self.encoder_optimizer = adam(self.encoder.parameters())
        self.model_optimizer = adam([*self.transition.parameters(), *self.reward.parameters()])

    def update(self, columns: Sequence[Tensor]) -> Tensor:
        """Learn from one sample of the replay; returns the critics' loss."""
        loss = super().update(columns)
        obs, action, reward, next_obs, _ = columns
        self.model_optimizer.zero_grad()
        descend(self.encoder_optimizer, self.bisimulation(self.shift(obs), action, reward, next_obs))
        self.model_optimizer.step()
        return loss

    def bisimulation(self, obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor) -> Tensor:
        """Loss of metric, transition and reward."""
        latent = encode(self.encoder, obs / 255)
        with torch.no_grad():
            target = encode(self.encoder, next_obs / 255)
        mean, raw = self.transition(torch.cat([latent, action], dim=1)).chunk(2, dim=1)
        std = F.softplus(raw) + MIN_STD
        other = torch.randperm(len(obs), generator=self.pairs)
        w2 = ((mean - mean[other]) ** 2 + (std - std[other]) ** 2).sum(1).sqrt().detach()
        wanted = (reward - reward[other]).abs() + self.gamma * w2
        metric = ((latent - latent[other]).abs().sum(1) - wanted) ** 2
        likelihood = (((target - mean) / std) ** 2 / 2 + std.log()).mean(1)
        error = (self.reward(mean).squeeze(1) - reward) ** 2
        loss: Tensor = (self.weight * metric + likelihood + error).mean()
        return loss


def encode(encoder: Encoder, pixels: Tensor) -> Tensor:
    """Features of pixels in [0, 1]."""
    return encoder.features(encoder.trunk(pixels))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


# --- the measurement ---


class Arm:
    """One way to learn, its bytes a transition, and by round the milliseconds of sample, update and bare passes."""

    def __init__(
        self, draw: Callable[[], Any], update: Callable[[Any], Any], networks: Callable[[], None], stored: float
    ) -> None:
        self.draw, self.update, self.networks, self.stored = draw, update, networks, stored
        self.rounds: list[list[float]] = []

    def measure(self, delay: int) -> None:
        """One round: as many updates as make one of the actor."""
        marks = [time.process_time()]
        batches = [self.draw() for _ in range(delay)]
        marks.append(time.process_time())
        for batch in batches:
            self.update(batch)
        marks.append(time.process_time())
        self.networks()
        marks.append(time.process_time())
        self.rounds.append([1e3 * (end - start) / delay for start, end in pairwise(marks)])

    def row(self, name: str) -> dict[str, Any]:
        """What the JSON of results keeps."""
        return {"arm": name, "peer": PEERS.get(name, name), "bytes": self.stored, "rounds": self.rounds}


def cells(row: dict[str, Any], peer: dict[str, Any]) -> list[str]:
    """A line of the table."""
    speeds, theirs = ([1e3 / (sample + update) for sample, update, _ in r["rounds"]] for r in (row, peer))
    ratios = [a / b for a, b in zip(speeds, theirs, strict=True)]
    sample, update, _ = (statistics.median(column) for column in zip(*row["rounds"], strict=True))
    other = statistics.median(1 - networks / update for _, update, networks in row["rounds"])
    told = [f"{sample:.1f}", f"{update:.0f}", f"{other:.0%}", f"{row['bytes']:.0f}"]
    return [row["arm"], spread(speeds), spread(ratios), *told]


def bare_passes(nets: SAC | PlainSAC, batch: Batch) -> Callable[[], None]:
    """The passes that the updates of a round cannot do without, each once, on pixels that are floats already."""
    layout = torch.channels_last if isinstance(nets, SAC) else torch.contiguous_format
    pixels, next_pixels = (p.to(torch.float32, memory_format=layout) / 255 for p in (batch.obs, batch.nstep_obs))
    trained = nn.ModuleList([nets.encoder, nets.critic, nets.actor])

    def run() -> None:
        with nets.autocast() if isinstance(nets, SAC) else nullcontext():
            for _ in range(nets.config.policy_delay):
                with torch.no_grad():
                    next_action = nets.actor(nets.encoder.trunk(next_pixels))[0].tanh()
                    nets.target_critic(encode(nets.target_encoder, next_pixels), next_action)
                maps = nets.encoder.trunk(pixels)
                features = nets.encoder.features(maps)
                nets.critic(features, batch.action).sum().backward()
            with torch.no_grad():  # the actor learns on what the encoder gives after its step
                maps = nets.encoder.trunk(pixels)
                features = nets.encoder.features(maps)
            q = nets.critic(features, nets.actor(maps)[0].tanh())
        q.sum().backward(inputs=list(nets.actor.parameters()))
        trained.zero_grad()

    return run


def configs() -> dict[str, Config]:
    """The preset with DrQ's augmentation, and its variants."""
    words = ["experiment=sac_cartpole", "agent.random_shift=4", f"replay.capacity={TRANSITIONS}", "device=cpu"]
    preset: Config = config_of("config", words, Config)
    return {
        OURS: preset,
        BFLOAT16: replace(preset, agent=replace(own_agent(preset), precision=Precision.bfloat16)),
        WITH_DBC: replace(preset, aux={"dbc": TaskConfig()}),
    }


def noise(config: Config) -> Replay:
    """A full replay."""
    rng, no, yes = np.random.default_rng(0), np.zeros(1, np.bool_), np.ones(1, np.bool_)
    replay = build_replay(
        config.replay,
        num_envs=1,
        frame_shape=FRAME,
        action_space=ACTIONS,
        frame_stack=config.frame_stack,
        gamma=config.gamma,
        clip_reward=config.clip_reward,
        rng=rng,
        device=CPU,
    )
    for row in range(TRANSITIONS):
        frame = rng.integers(256, size=(1, *FRAME), dtype=np.uint8)
        replay.add(frame, yes if row == 0 else no, rng.uniform(-1, 1, (1, 1)), rng.random(1), no, no, yes)
    return replay


def check(agent: SAC, suite: AuxSuite, plain: PlainSAC, batch: Batch) -> float:
    """The largest relative difference of their losses, whose weights and random numbers are equal.

    Raises:
        RuntimeError: it is above 1e-4.
    """
    pixels, next_pixels = (obs.contiguous().float() for obs in (batch.obs, batch.nstep_obs))
    pairs = []
    if isinstance(plain, PlainDBC):
        with suite.preserved_streams(), torch.no_grad():
            ours = suite.losses(batch, agent.encoder(batch.obs), agent.encoder)[0]["dbc"].mean()
            theirs = plain.bisimulation(pixels, batch.action, batch.reward, next_pixels)
        pairs.append((ours, theirs))
    theirs = plain.update((pixels, batch.action, batch.reward, next_pixels, batch.discount))
    pairs.append((agent.update(batch).metrics["train/loss"], theirs))
    difference = max(abs(float(mine) / float(other) - 1) for mine, other in pairs)
    if difference > 1e-4:
        raise RuntimeError(f"the losses differ by {difference:.1e}")
    return difference


def build_arms(configs: dict[str, Config], replay: Replay) -> tuple[dict[str, Arm], float]:
    """Every way to learn, and how far the losses of the two implementations are apart."""
    arms, differences = {}, []
    for name, config in configs.items():
        agent, suite = build_agent(config, (3 * FRAME[0], *FRAME[1:]), ACTIONS, build_streams(config.seed, CPU))
        assert isinstance(agent, SAC)
        draw = partial(replay.sample, config.batch_size, suite.reads)
        batch = draw()
        if (peer := PEERS[name]) not in arms:
            plain = PlainDBC(agent, dict(suite)["dbc"]) if name == WITH_DBC else PlainSAC(agent)  # type: ignore[arg-type]
            plain_replay = PlainReplay([draw() for _ in range(TRANSITIONS // len(batch.obs))])
            differences.append(check(agent, suite, plain, batch))
            arms[peer] = Arm(
                partial(plain_replay.sample, config.batch_size),
                plain.update,
                bare_passes(plain, batch),
                plain_replay.bytes_per_transition,
            )
        arms[name] = Arm(draw, agent.update, bare_passes(agent, batch), replay.bytes_per_transition)
    return arms, max(differences)


def encoder_ratio(batch_size: int, rounds: int = 7) -> float:
    """CPU time of forward and backward of the papers' encoder over that of the strided one, median."""
    obs = torch.randint(256, (batch_size, 9, 84, 84), dtype=torch.uint8)
    encoders = [build_encoder(EncoderConfig(name, feature_dim=50), (9, 84, 84)) for name in ("control", "control_fast")]
    ratios = []
    for _ in range(rounds + 1):  # the first warms up
        marks = [time.process_time()]
        for encoder in encoders:
            encoder(obs).sum().backward()
            marks.append(time.process_time())
        ratios.append((marks[1] - marks[0]) / (marks[2] - marks[1]))
    return statistics.median(ratios[1:])


def main() -> None:
    """Measure and write the table."""
    given = options(rounds=25)
    tune_process(1)
    variants = configs()
    config = variants[OURS]
    assert isinstance(config.agent, SACConfig)
    arms, difference = build_arms(variants, noise(config))
    for arm in arms.values():
        arm.update(arm.draw())  # warm
    for _ in range(given["rounds"]):
        for arm in arms.values():
            arm.measure(config.agent.policy_delay)
    content = {
        "command": f'make bench-sac ARGS="{" ".join(sys.argv[1:])}"',
        "options": given,
        "setting": f"{config.agent.policy_delay} updates, batch {config.batch_size}, encoder {config.encoder.name}, "
        f"{config.agent.hidden} units",
        "loss_difference": difference,
        "encoder_ratio": encoder_ratio(32),
        "versions": versions(),
        "rows": [arm.row(name) for name, arm in arms.items()],
    }
    write_json(content, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content = read_json(JSON)
    rows = {row["arm"]: row for row in content["rows"]}
    text = (
        f"`{content['command']}`: {content['options']['rounds']} alternating rounds of {content['setting']}, one torch "
        f"thread; torch {content['versions']['torch']}. The losses of the two implementations on one batch, with equal "
        f"weights and random numbers, differ by at most {content['loss_difference']:.0e} of their size. Forward and "
        f"backward of the papers' encoder (`control`) take {content['encoder_ratio']:.1f} times as long as those of "
        "`control_fast`.\n\n"
    )
    header = ["", "updates/s with sampling (median, range)", "ratio to the straightforward one of the same losses"]
    header += ["ms a batch", "ms an update", "share of the update outside of SAC's bare network passes"]
    header += ["bytes a transition"]
    return with_block(page, __file__, text + table(header, [cells(row, rows[row["peer"]]) for row in rows.values()]))


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
