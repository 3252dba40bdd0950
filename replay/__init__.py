"""Experience replay: frames stored once, stacks and n-step returns made when sampled."""

from typing import TYPE_CHECKING

from harness.lazy import lazily
from replay.config import ReplayConfig

if TYPE_CHECKING:
    from replay.batch import Batch
    from replay.build import build_replay
    from replay.frames import Padding
    from replay.replay import Replay
else:
    __getattr__ = lazily(
        {
            "replay.batch": ("Batch",),
            "replay.build": ("build_replay",),
            "replay.frames": ("Padding",),
            "replay.replay": ("Replay",),
        }
    )

__all__ = ["Batch", "Padding", "Replay", "ReplayConfig", "build_replay"]
