"""Protocols of evaluation: what they set, and what does not fit them."""

import pytest

from envs import AtariConfig, DmcConfig, EnvConfig


@pytest.mark.parametrize(
    ("name", "sticky", "noop_max", "max_frames", "epsilon"),
    [
        ("nature", 0.0, 30, 18_000, 0.05),
        ("rainbow", 0.0, 30, 108_000, 0.001),
        ("ale_v5", 0.25, 0, 108_000, 0.001),
        ("machado", 0.25, 0, 18_000, 0.01),
        ("env", 0.1, 7, 999, 0.0),
    ],
)
def test_protocols(name, sticky, noop_max, max_frames, epsilon):
    run = AtariConfig(game="breakout", full_actions=name == "machado", sticky=0.1, noop_max=7, max_frames=999, size=80)
    protocol = run.protocol(name)
    played = protocol.env
    assert (played.sticky, played.noop_max, played.max_frames) == (sticky, noop_max, max_frames)
    assert (played.game, played.size, played.life_loss) == ("breakout", 80, False)
    assert (protocol.name, protocol.epsilon) == (name, epsilon)


@pytest.mark.parametrize(
    ("env", "name", "message"),
    [
        (AtariConfig(), "machado", "protocol=machado .*full_actions=true: use protocol=ale_v5"),
        (AtariConfig(), "natur", "unknown protocol 'natur': did you mean 'nature'"),
        (AtariConfig(), "x", "unknown protocol 'x': there are nature, rainbow, ale_v5, machado, env"),
        (DmcConfig(), "nature", "unknown protocol 'nature' of env=dmc: use protocol=env"),
    ],
)
def test_protocols_that_do_not_fit(env: EnvConfig, name, message):
    with pytest.raises(ValueError, match=message):
        env.protocol(name)
