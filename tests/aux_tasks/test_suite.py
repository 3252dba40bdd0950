"""The set of auxiliary tasks of a run: names, weights, the heads' optimiser, and looking without touching."""

import pytest
import torch
from aux_help import batch_of, make_setting, noise, tiny_encoder

from aux_tasks import AuxSuite, TaskConfig
from encoders import Encoder

SHAPE = (4, 12, 12)
BOTH = {"rotation": TaskConfig(weight=0.5), "permutation": TaskConfig(weight=2.0)}


def make_suite(tasks, encoder: Encoder | None = None, frame_stack: int = 4) -> AuxSuite:
    torch.manual_seed(0)
    return AuxSuite(
        tasks,
        make_setting(encoder or tiny_encoder(SHAPE), frame_stack=frame_stack),
        learning_rate=0.01,
        adam_eps=1e-8,
        max_grad_norm=10.0,
    )


@pytest.mark.parametrize(
    ("config", "step", "weight"),
    [
        (TaskConfig(weight=0.3), 10**9, 0.3),
        (TaskConfig(weight=1.0, final_weight=0.0, decay_steps=200), 0, 1.0),
        (TaskConfig(weight=1.0, final_weight=0.0, decay_steps=200), 50, 0.75),
        (TaskConfig(weight=1.0, final_weight=0.0, decay_steps=200), 500, 0.0),
        (TaskConfig(weight=0.5, final_weight=2.5, decay_steps=40), 10, 1.0),
    ],
)
def test_a_weight_moves_linearly_and_then_stays(config, step, weight):
    assert config.at(step) == pytest.approx(weight)
    assert make_suite({"rotation": config}).schedules()["rotation"](step) == config.at(step)


def test_terms_weights_and_metrics_carry_the_names_of_the_config():
    encoder = tiny_encoder(SHAPE)
    suite, obs = make_suite(BOTH, encoder), noise(5, *SHAPE)
    terms, metrics = suite.losses(batch_of(obs), encoder(obs), encoder)
    assert {name: weight(0) for name, weight in suite.schedules().items()} == {"rotation": 0.5, "permutation": 2.0}
    assert suite.reads == {"obs"}
    assert {name: term.shape for name, term in terms.items()} == {"rotation": (5,), "permutation": (5,)}
    assert metrics.keys() == {f"aux/{task}/{metric}" for task in BOTH for metric in ("loss", "accuracy", "chance")}
    for name, term in terms.items():
        assert metrics[f"aux/{name}/loss"] == term.mean()


def test_the_optimiser_holds_the_heads_and_nothing_of_the_encoder():
    encoder = tiny_encoder(SHAPE)
    suite, obs = make_suite(BOTH, encoder), noise(5, *SHAPE)
    held = [p for group in suite.optimizer.param_groups for p in group["params"]]
    heads = [p for _, task in suite for p in task.head.parameters()]
    assert sorted(map(id, held)) == sorted(map(id, heads))
    before = [p.detach().clone() for p in encoder.parameters()]
    sum(suite.losses(batch_of(obs), encoder(obs), encoder)[0].values()).sum().backward()
    heads_before = [p.detach().clone() for p in heads]
    suite.after_step(batch_of(obs), encoder)
    assert all(torch.equal(p, q) for p, q in zip(encoder.parameters(), before, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(heads, heads_before, strict=True))
    assert all(p.grad is None for p in heads)


def test_a_step_without_gradients_moves_nothing():
    encoder = tiny_encoder(SHAPE)
    suite, obs = make_suite(BOTH, encoder), noise(5, *SHAPE)
    sum(suite.losses(batch_of(obs), encoder(obs), encoder)[0].values()).sum().backward()
    suite.after_step(batch_of(obs), encoder)  # from here on Adam has momentum
    before = [p.detach().clone() for p in suite.parameters()]
    suite.after_step(batch_of(obs), encoder)
    assert all(torch.equal(p, q) for p, q in zip(suite.parameters(), before, strict=True))


def test_adversaries_have_an_optimiser_of_their_own_which_alone_moves_them():
    encoder, obs = tiny_encoder(SHAPE, 3), noise(5, *SHAPE)
    games = {"bigan": TaskConfig(), "context_encoder": TaskConfig(options={"adversarial": 0.5})}
    suite = make_suite(games | {"curl": TaskConfig()}, encoder)
    rivals = [p for name in games for p in suite.tasks[name].adversary.parameters()]
    held = [[id(p) for group in opt.param_groups for p in group["params"]] for opt in suite.optimizers]
    assert sorted(held[0] + held[1]) == sorted(id(p) for p in suite.parameters() if p.requires_grad)
    assert sorted(held[1]) == sorted(map(id, rivals))
    batch = batch_of(obs)
    sum(suite.losses(batch, encoder(obs), encoder)[0].values()).sum().backward()
    assert all(p.grad is None for p in rivals)
    whole = {name: p.detach().clone() for name, p in [*suite.named_parameters(), *encoder.named_parameters()]}
    norms = {name: vector.clone() for name, vector in suite.named_buffers() if "parametrizations" in name}
    suite.after_step(batch, encoder)
    for name, p in suite.named_parameters():
        assert torch.equal(p, whole[name]) != p.requires_grad, name
    assert all(torch.equal(p, whole[name]) for name, p in encoder.named_parameters())
    moved = {name for name, vector in suite.named_buffers() if name in norms and not torch.equal(vector, norms[name])}
    assert {name.split(".")[1] for name in moved} == games.keys()


def test_only_a_task_that_asks_for_it_gets_weight_decay():
    suite = make_suite({"reconstruction": TaskConfig(options={"weight_decay": 0.1}), "rotation": TaskConfig()})
    decay = {id(p): group["weight_decay"] for group in suite.optimizer.param_groups for p in group["params"]}
    for name, expected in {"reconstruction": 0.1, "rotation": 0.0}.items():
        assert {decay[id(p)] for p in suite.tasks[name].parameters()} == {expected}


def test_both_sides_of_a_game_remember_less_momentum_than_other_heads():
    suite = make_suite({"bigan": TaskConfig(), "rotation": TaskConfig()})
    kept = {id(p): g["betas"][0] for optimizer in suite.optimizers for g in optimizer.param_groups for p in g["params"]}
    for name, expected in {"bigan": 0.5, "rotation": 0.9}.items():
        assert {kept[id(p)] for p in suite.tasks[name].parameters()} == {expected}


def test_no_task_is_a_valid_set():
    encoder = tiny_encoder(SHAPE)
    suite, obs = make_suite({}, encoder), noise(5, *SHAPE)
    suite.after_step(batch_of(obs), encoder)
    assert suite.losses(batch_of(obs), encoder(obs), encoder) == ({}, {})
    assert suite.schedules() == {}
    assert not suite.active
    assert suite.reads == frozenset()
    assert suite.optimizer is None


def test_aside_gives_the_random_stream_back_even_after_an_error():
    encoder = tiny_encoder(SHAPE)
    suite, obs = make_suite(BOTH, encoder), noise(5, *SHAPE)
    before = suite.generator.get_state()

    def look_and_fail():
        with suite.aside():
            suite.losses(batch_of(obs), encoder(obs), encoder)
            assert not torch.equal(suite.generator.get_state(), before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look_and_fail()
    assert torch.equal(suite.generator.get_state(), before)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"rotatoin": TaskConfig()}, "unknown auxiliary task 'rotatoin': did you mean 'rotation'"),
        ({"xyz": TaskConfig()}, "unknown auxiliary task 'xyz': there are rotation, permutation, "),
        (
            {"rotation": TaskConfig(options={"croprows": [1, 2]})},
            r"unknown option aux\.rotation\.options\.croprows: did you mean 'crop_rows'",
        ),
        ({"permutation": TaskConfig(options={"generator": 3})}, r"aux\.permutation\.options\.generator"),
        ({"rotation": TaskConfig(options={"crop_rows": [9, 3]})}, r"aux\.rotation: crop_rows must be .* got \[9, 3\]"),
        ({"rotation": TaskConfig(options={"hidden": "wide"})}, r"aux\.rotation: "),
        ({"rotation": TaskConfig(options={"hidden": -3})}, r"aux\.rotation: .*-3"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(tasks, message):
    with pytest.raises(ValueError, match=message):
        make_suite(tasks)


def test_a_task_that_does_not_fit_the_observations_is_named():
    with pytest.raises(ValueError, match=r"aux\.permutation: permutation needs frame_stack=4, got 2"):
        make_suite(BOTH, frame_stack=2)
