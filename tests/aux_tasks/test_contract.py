"""What holds for every registered task."""

import copy
from dataclasses import replace

import pytest
import torch
from capture_help import run_without_data
from contract_help import (
    CASES,
    LONGEST,
    STACK,
    B,
    agent_of,
    batch_for_all,
    changes,
    learn,
    small_encoder,
    suite_of,
    whole_state,
)
from torch import Tensor

from analysis.picture import contact_sheet
from analysis.representation import diagnose
from aux_tasks import TASKS
from encoders import EncoderConfig, build_encoder
from encoders.momentum import is_momentum_copy

every = pytest.mark.parametrize("case", CASES)


def test_every_registered_task_has_a_row():
    assert {case.partition("/")[0] for case in CASES} == TASKS.keys()


# --- looking changes nothing ---


@every
@pytest.mark.parametrize("training", [True, False])
def test_losses_and_examples_leave_the_whole_state_as_it_was(case, training):
    encoder, batch = small_encoder(case), batch_for_all()
    suite = suite_of(case, encoder)
    learn(suite, encoder, batch, updates=2)
    for module in (encoder, suite):
        module.train(training)

    def state():
        return whole_state(encoder, suite, generators=[suite.generator], optimizers=suite.optimizers)

    before = state()
    with suite.preserved_streams():
        suite.losses(batch, encoder(batch.obs), encoder)
        with torch.no_grad():
            suite.losses(batch, encoder(batch.obs), encoder)
    assert changes(before, state()) == []
    suite.examples(batch, encoder)
    assert changes(before, state()) == []


@every
def test_examples_make_one_row_a_sample(case):
    encoder, batch = small_encoder(case), batch_for_all()
    for shown in suite_of(case, encoder).examples(batch, encoder).values():
        rows, frames = {len(pixels) for pixels in shown.pictures.values()}, shown.frames or STACK
        assert len(rows) == 1
        assert all(len(answers) in rows for answers in (shown.predicted, shown.correct) if answers is not None)
        assert (shown.predicted is None) == (shown.correct is None)
        assert {pixels.dtype for pixels in shown.pictures.values()} == {torch.uint8}
        pictures = {name: pixels.numpy() for name, pixels in shown.pictures.items()}
        sheet = contact_sheet(shown.question, pictures, shown.predicted, shown.correct, frames)
        assert (sheet[[0, -1]] == 255).all()


@pytest.mark.parametrize("case", [case for case in CASES if case != "deepmdp/maps"])  # for discrete actions alone
@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_diagnose_leaves_the_whole_state_as_it_was(kind, case):
    agent, batch = agent_of(kind, case), batch_for_all(continuous=kind == "sac")
    agent.update(batch)

    def state():
        streams = [agent.streams.augment, agent.streams.policy, agent.suite.generator]
        return whole_state(agent, generators=streams, optimizers=[*agent.optimizers, *agent.suite.optimizers])

    for training in (True, False):
        agent.train(training)
        before = state()
        diagnose(agent, batch)
        assert changes(before, state()) == []


# --- the loss ---


@every
@pytest.mark.parametrize("size", [2, B + 1])
def test_losses_are_finite_one_for_each_sample_and_metrics_are_detached_scalars(case, size):
    encoder, batch = small_encoder(case), batch_for_all(size)
    suite = suite_of(case, encoder)
    for _ in range(2):  # some tasks have nothing to choose from before the first update
        terms, metrics = suite.losses(batch, encoder(batch.obs), encoder)
        (loss,), (name,) = terms.values(), terms
        assert loss.shape == (size,)
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
        assert loss.requires_grad
        assert metrics[f"aux/{name}/loss"] == loss.mean()
        assert {tag.rpartition("/")[0] for tag in metrics} == {f"aux/{name}"}
        for tag, value in metrics.items():
            assert value.shape == (), tag
            assert not value.requires_grad, tag
            assert value.isfinite(), tag
        learn(suite, encoder, batch)


@every
def test_the_gradient_reaches_encoder_and_head_and_the_head_has_nothing_of_the_encoder(case):
    encoder, batch = small_encoder(case), batch_for_all()
    suite = suite_of(case, encoder)
    learn(suite, encoder, batch)
    shared = {p.data_ptr() for p in encoder.parameters()}
    assert not shared & {p.data_ptr() for p in [*suite.parameters(), *suite.buffers()]}
    suite.zero_grad()
    terms, _ = suite.losses(batch, encoder(batch.obs), encoder)
    sum(terms.values()).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in suite.heads)
    assert all(p.grad.any() for p in suite.heads if p.ndim > 1)  # a softmax does not see a bias that all share
    assert all(p.grad is not None and p.grad.any() for p in encoder.trunk.parameters())
    rest = {id(p) for p in suite.parameters()} - {id(p) for p in suite.heads}
    assert all(p.grad is None for p in suite.parameters() if id(p) in rest)
    trained = [p for optimizer in suite.optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, trained)) == sorted(id(p) for p in suite.parameters() if p.requires_grad)


@every
def test_weights_that_learn_are_first_used_with_a_gradient(case):
    """Autocast keeps the casts of weights, and older versions of torch also those without a gradient."""
    encoder, batch, uses = small_encoder(case), batch_for_all(), {}
    suite = suite_of(case, encoder)

    def note(module, _):
        uses.setdefault(module, []).append(torch.is_grad_enabled())

    for module in (*encoder.modules(), *suite.modules()):
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            module.register_forward_pre_hook(note)
    suite.losses(batch, encoder(batch.obs), encoder)
    assert all(used[0] or not any(used) for used in uses.values())


@every
def test_only_the_auxiliary_stream_decides(case):
    batch, losses, before = batch_for_all(), [], torch.get_rng_state()
    for seed in (5, 5, 6):
        encoder = small_encoder(case)
        suite = suite_of(case, encoder)
        torch.set_rng_state(before)
        suite.generator.manual_seed(seed)
        learn(suite, encoder, batch)
        losses.append(suite.losses(batch, encoder(batch.obs), encoder)[0])
        assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (next(iter(terms.values())) for terms in losses)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (case in DRAW_NOTHING)


DRAW_NOTHING = {
    "rotation/all",
    "deepmdp",
    "deepmdp/maps",
    "deepmdp/mmd",
    "dbc/robust",
    "dbc/simsr",
    "dbc/normed",
    "dbc/mico",
    "dbc/rap",
    "self_prediction",
    "self_prediction/bonus",
    "contrastive_ucb",
    "contrastive_ucb/bonus",
    "inverse_dynamics",
    "temporal_cpc",
    "st_dim",
}
DRAW_NOTHING |= {
    "contrastive_goal",
    "grasp2vec",
    "colorization",
    "split_brain",
    "split_brain/time",
    "arrow_of_time",
    "motion_statistics",
    "video_colorization",
}


@every
def test_momentum_copies_begin_equal_and_follow_at_their_pace(case):
    encoder, batch = small_encoder(case), batch_for_all()
    ((_, task),) = suite_of(case, encoder)
    copies = {name: module for name, module in task.named_modules() if is_momentum_copy(module)}
    assert bool(copies) == (
        case
        in {
            "self_prediction",
            "self_prediction/bonus",
            "dbc/simsr",
            "dbc/mico",
            "curl",
            "spr",
            "moco",
            "byol",
            "soda",
            "temporal_distance",
        }
    )
    followed = {n: encoder if n == "target_encoder" else getattr(task, n.removeprefix("target_")) for n in copies}
    for name, module in copies.items():
        assert changes(module.state_dict(), followed[name].state_dict()) == []
    with torch.no_grad():
        for p in {*encoder.parameters(), *task.parameters()}:
            p += p.requires_grad
    task.after_step(batch, encoder)
    for name, module in copies.items():
        for p, q in zip(module.parameters(), followed[name].parameters(), strict=True):
            torch.testing.assert_close(p, q.detach() - task.momentum)


@every
def test_a_weight_of_0_leaves_every_step_of_the_agent_as_it_would_be_without_the_task(case):
    with_task, without = agent_of("dqn", case, weight=0.0), agent_of("dqn", case, alone=True)
    for agent in (with_task, without):
        for _ in range(2):
            agent.update(batch_for_all())
    for part in ("encoder", "head", "target_encoder"):
        for p, q in zip(getattr(with_task, part).parameters(), getattr(without, part).parameters(), strict=True):
            assert torch.equal(p, q)


@every
def test_a_saved_task_goes_on_as_if_nothing_had_happened(case):
    encoder, batch = small_encoder(case), batch_for_all()
    suite, resumed = suite_of(case, encoder), suite_of(case, small_encoder(case, 7), seed=8)
    learn(suite, encoder, batch, updates=2)
    resumed.load_state_dict(suite.state_dict())
    for saved, loaded in zip(suite.optimizers, resumed.optimizers, strict=True):
        loaded.load_state_dict(copy.deepcopy(saved.state_dict()))
    resumed.generator.set_state(suite.generator.get_state())
    other = copy.deepcopy(encoder)
    for _ in range(2):
        learn(suite, encoder, batch)
        learn(resumed, other, batch)
    states = [
        whole_state(e, s, generators=[s.generator], optimizers=s.optimizers)
        for e, s in ((encoder, suite), (other, resumed))
    ]
    assert changes(*states) == []


@pytest.mark.parametrize("name", TASKS)
def test_it_runs_at_its_defaults_with_an_encoder_of_the_field(name):
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig("vit" if name == "masked_autoencoder" else "der"), (12, 84, 84))
    clip = torch.randint(256, (2, LONGEST, 12, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    whole = batch_for_all(2)
    later, views = clip[:, 1], clip[:, [0, 9, 18]]
    batch = replace(whole, obs=clip[:, 0], next_obs=later, nstep_obs=later, clip=clip, rgb=clip[:, 0, 9:], views=views)
    batch = replace(batch, clip_views=torch.stack([clip, clip.flip(4)], dim=2), context=clip[:, 0], future=later)
    suite = suite_of(name, encoder, options={})
    for _ in range(2):
        learn(suite, encoder, batch)
        assert suite.losses(batch, encoder(batch.obs), encoder)[0][name].isfinite().all()


# --- an update can be captured ---


def update(suite, encoder, batch) -> None:
    terms, _ = suite.losses(batch, encoder(batch.obs), encoder)
    torch.stack(list(terms.values())).sum(0).mean().backward()
    suite.after_step(batch, encoder)


@every
def test_an_update_has_no_control_flow_that_depends_on_data(case):
    """Tensors without data raise where a value is read or decides a shape: `.item()`, `if tensor`, boolean masks."""
    encoder, batch = small_encoder(case), batch_for_all()
    suite = suite_of(case, encoder)
    learn(suite, encoder, batch)
    run_without_data(lambda parts: update(*parts), (suite, encoder, batch), [suite.generator])


@pytest.mark.parametrize("read", [Tensor.item, bool, lambda loss: loss[loss > 0], lambda loss: loss[[0, 1]]])
def test_a_value_that_is_read_is_noticed(read):
    with pytest.raises(RuntimeError):
        run_without_data(read, torch.ones(()) if read in (Tensor.item, bool) else torch.ones(3))
