"""The set of auxiliary tasks of a run: names, weights, the heads' optimiser, and looking without touching."""

from dataclasses import replace

import pytest
import torch
from aux_help import batch_of, make_setting, noise, tiny_encoder
from contract_help import CASES, batch_for_all, small_encoder, suite_of

from aux_tasks import AuxSuite, TaskConfig

SHAPE = (4, 12, 12)
BOTH = {"rotation": TaskConfig(weight=0.5), "permutation": TaskConfig(weight=2.0)}


def made(tasks):
    """The suite, its encoder, and a batch."""
    encoder = tiny_encoder(SHAPE, 3)
    suite = AuxSuite(tasks, make_setting(encoder), learning_rate=0.01, adam_eps=1e-8, max_grad_norm=10.0)
    return suite, encoder, batch_of(noise(5, *SHAPE))


def losses(suite, encoder, batch):
    return suite.losses(batch, encoder(batch.obs), encoder)


def backward(suite, encoder, batch):
    sum(losses(suite, encoder, batch)[0].values()).sum().backward()


def values(*modules):
    return {name: p.detach().clone() for module in modules for name, p in module.named_parameters()}


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
    assert made({"rotation": config})[0].schedules()["rotation"](step) == config.at(step)


def test_terms_weights_and_metrics_carry_the_names_of_the_config():
    suite, *rest = made(BOTH)
    terms, metrics = losses(suite, *rest)
    assert {name: weight(0) for name, weight in suite.schedules().items()} == {"rotation": 0.5, "permutation": 2.0}
    assert suite.reads == {"obs"}
    assert terms.keys() == BOTH.keys()
    assert metrics.keys() == {f"aux/{task}/{metric}" for task in BOTH for metric in ("loss", "accuracy", "chance")}


@pytest.mark.parametrize("case", CASES)
def test_a_task_reads_what_it_says(case):
    encoder, batch = small_encoder(case), batch_for_all()
    suite = suite_of(case, encoder)
    hidden = dict.fromkeys(vars(batch).keys() - suite.reads - {"obs"})
    features = encoder(batch.obs) if "features" in suite.reads else None
    suite.losses(replace(batch, **hidden), features, encoder)


def test_an_update_moves_each_head_once_and_nothing_of_the_encoder():
    suite, encoder, batch = made(BOTH)
    backward(suite, encoder, batch)
    heads, shared = values(suite), values(encoder)
    suite.after_step(batch, encoder)
    assert all(torch.equal(p, shared[name]) for name, p in encoder.named_parameters())
    assert not any(torch.equal(p, heads[name]) for name, p in suite.named_parameters())
    assert all(p.grad is None for p in suite.parameters())
    heads = values(suite)
    suite.after_step(batch, encoder)  # without gradients nothing moves, though Adam has momentum
    assert all(torch.equal(p, heads[name]) for name, p in suite.named_parameters())


def test_adversaries_have_an_optimiser_of_their_own_which_alone_moves_them():
    games = {"bigan": TaskConfig(), "context_encoder": TaskConfig(options={"adversarial": 0.5})}
    suite, encoder, batch = made(games | {"curl": TaskConfig()})
    rivals = [p for name in games for p in suite.tasks[name].adversary.parameters()]
    held = [[id(p) for group in opt.param_groups for p in group["params"]] for opt in suite.optimizers]
    assert sorted(held[0] + held[1]) == sorted(id(p) for p in suite.parameters() if p.requires_grad)
    assert sorted(held[1]) == sorted(map(id, rivals))
    backward(suite, encoder, batch)
    assert all(p.grad is None for p in rivals)
    before = values(suite, encoder)
    norms = {name: vector.clone() for name, vector in suite.named_buffers() if "parametrizations" in name}
    suite.after_step(batch, encoder)
    for name, p in suite.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad, name
    assert all(torch.equal(p, before[name]) for name, p in encoder.named_parameters())
    moved = {name for name, vector in suite.named_buffers() if name in norms and not torch.equal(vector, norms[name])}
    assert {name.split(".")[1] for name in moved} == games.keys()


def test_a_task_chooses_weight_decay_and_both_sides_of_a_game_remember_less_momentum():
    decays = TaskConfig(options={"weight_decay": 0.1})
    suite, *_ = made({"rotation": TaskConfig(), "reconstruction": decays, "bigan": TaskConfig()})
    groups = {id(p): group for opt in suite.optimizers for group in opt.param_groups for p in group["params"]}
    for name, decay, momentum in (("rotation", 0, 0.9), ("reconstruction", 0.1, 0.9), ("bigan", 0, 0.5)):
        for p in suite.tasks[name].parameters():
            assert groups[id(p)]["weight_decay"] == decay
            assert groups[id(p)]["betas"][0] == momentum


def test_no_task_is_a_valid_set():
    suite, encoder, batch = made({})
    suite.after_step(batch, encoder)
    assert losses(suite, encoder, batch) == ({}, {})
    assert suite.schedules() == {}
    assert suite.reads == frozenset()
    assert suite.optimizer is None


def test_aside_gives_the_random_stream_back_even_after_an_error():
    suite, *rest = made(BOTH)
    before = suite.generator.get_state()

    def look_and_fail():
        with suite.preserved_streams():
            losses(suite, *rest)
            assert not torch.equal(suite.generator.get_state(), before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        look_and_fail()
    assert torch.equal(suite.generator.get_state(), before)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("rotatoin", {}, "unknown auxiliary task 'rotatoin': did you mean 'rotation'"),
        ("xyz", {}, "unknown auxiliary task 'xyz': there are rotation, permutation, "),
        ("rotation", {"croprows": [1]}, r"unknown option aux\.rotation\.options\.croprows: did you mean 'crop_rows'"),
        ("permutation", {"generator": 3}, r"aux\.permutation\.options\.generator"),
        ("rotation", {"crop_rows": [9, 3]}, r"aux\.rotation: crop_rows must be .* got \[9, 3\]"),
        ("rotation", {"hidden": "wide"}, r"aux\.rotation: "),
        ("rotation", {"hidden": -3}, r"aux\.rotation: .*-3"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(task, options, message):
    with pytest.raises(ValueError, match=message):
        made({task: TaskConfig(options=options)})


def test_a_separate_encoder_begins_equal_and_the_shared_one_hears_nothing_of_its_task():
    alone = {"deepmdp": TaskConfig(encoder="separate", options={"hidden": 8}), "rotation": TaskConfig()}
    encoder, batch = small_encoder(), batch_for_all()
    setting = make_setting(encoder, num_actions=3, action_dim=3)
    suite = AuxSuite(alone, setting, learning_rate=0.01, adam_eps=1e-8, max_grad_norm=10.0)
    own = suite.encoder_of("deepmdp", encoder)
    assert own is not encoder
    assert suite.encoder_of("rotation", encoder) is encoder
    before = values(encoder)
    assert all(torch.equal(p, before[name]) for name, p in own.named_parameters())
    terms, _ = suite.losses(batch, encoder(batch.obs), encoder)
    terms["deepmdp"].sum().backward()
    assert all(p.grad is None for p in encoder.parameters())
    suite.after_step(batch, encoder)
    assert all(torch.equal(p, before[name]) for name, p in encoder.named_parameters())
    assert any(not torch.equal(p, before[name]) for name, p in own.named_parameters())


def test_each_separate_encoder_is_clipped_by_itself():
    moved = {}
    for other in ({}, {"deepmdp": TaskConfig(encoder="separate", weight=1, options={"hidden": 8})}):
        encoder, batch = small_encoder(), batch_for_all()
        setting = make_setting(encoder, num_actions=3, action_dim=3)
        torch.manual_seed(1)
        suite = AuxSuite(
            {"rotation": TaskConfig()} | other, setting, learning_rate=0.1, adam_eps=1.0, max_grad_norm=1e-3
        )
        terms, _ = suite.losses(batch, encoder(batch.obs), encoder)
        (terms["rotation"].sum() + 1e3 * sum(terms[name].sum() for name in other)).backward()
        for head in dict(suite)["deepmdp"].parameters() if other else ():
            head.grad = None  # which shares the heads' norm
        suite.after_step(batch, encoder)
        moved[bool(other)] = [p.detach().clone() for p in dict(suite)["rotation"].parameters()]
    assert all(torch.equal(p, q) for p, q in zip(moved[False], moved[True], strict=True))


def test_an_unknown_place_of_the_encoder_is_refused():
    with pytest.raises(ValueError, match="encoder must be one of shared, separate, got 'alone'"):
        TaskConfig(encoder="alone")
