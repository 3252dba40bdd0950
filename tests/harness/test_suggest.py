"""What a wrong name may have meant."""

import pytest

from harness.suggest import closest, nearest

KEYS = ["env.num_envs", "agent.learning_rate", "agent.final_learning_rate", "encoder.feature_dim", "encoder.name"]
KEYS += ["replay.n_step", "agent.epsilon_steps", "steps", "log_every", "storage", "adam_eps"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("agent.lerning_rate", "agent.learning_rate"),
        ("learning_rate", "agent.learning_rate"),
        ("lr", "agent.learning_rate"),
        ("LR", "agent.learning_rate"),
        ("encoder.dim", "encoder.feature_dim"),
        ("agent.n_step", "replay.n_step"),
        ("envs", "env.num_envs"),
        ("eps", "adam_eps"),
        ("step", "steps"),
        ("source", None),
        ("video", None),
        ("x", None),
        ("", None),
    ],
)
def test_only_what_is_close_is_suggested(name: str, near: str | None) -> None:
    assert closest(name, KEYS) == near


def test_without_anything_close_a_list_of_bounded_length() -> None:
    for name, near in {"rotaton": "did you mean 'rotation'?", "zzz": "there are rotation, moco"}.items():
        assert nearest(name, ["rotation", "moco"]) == near
    assert nearest("zzz", []) == "there are none"
    many = nearest("zzz", [f"name_{i}" for i in range(1_000)])
    assert (many[:26], many[-5:]) == ("there are name_0, name_1, ", " more")
    assert len(many) < 360
