"""Which pixels a head looks at: SmoothGrad (Smilkov et al. 2017), squared (Hooker et al. 2019)."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from captum.attr import NoiseTunnel, Saliency
from numpy.typing import NDArray
from torch import Tensor

from analysis.video import Pixels, panel, side_by_side
from harness.files import write_png
from harness.seeding import seeded

Scores: TypeAlias = Callable[[Tensor], Tensor]  # pixels (B, C, H, W) -> action values or class logits (B, K)


def smoothgrad(
    scores: Scores,
    obs: Tensor,
    *,
    frames: int = 1,
    samples: int = 32,
    noise: float = 25.0,
    chunk: int = 64,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Squared gradients of the greatest score, averaged over noisy copies of the pixels.

    Args:
        scores: what to explain; differentiable in the pixels.
        obs: (B, C, H, W) pixels in [0, 255], on the CPU, where the noise is drawn.
        frames: maps F of an observation, each summed over its share of the C channels; 1: over the whole stack.
        samples: noisy copies of each observation.
        noise: their standard deviation, grey levels.
        chunk: noisy images that go through the network at once, or B if that is more.
        seed: of the noise.

    Returns:
        (B, F, H, W) in [0, 1], divided by the maximum of an observation's maps; all 0 where no pixel matters.
    """
    pixels = obs.float()
    with torch.no_grad():
        best = scores(pixels).argmax(1)
    with seeded(seed, "attribution"):
        squares = NoiseTunnel(Saliency(scores)).attribute(
            pixels,
            nt_type="smoothgrad_sq",
            nt_samples=samples,
            nt_samples_batch_size=max(1, chunk // len(obs)),
            stdevs=noise,
            target=best,
        )
    heat = squares.unflatten(1, (frames, -1)).sum(2)
    peak = heat.amax((1, 2, 3), keepdim=True)
    scaled: NDArray[np.float32] = (heat / peak.where(peak > 0, 1)).cpu().numpy()
    return scaled


def on_device(heads: Mapping[str, Scores], device: torch.device) -> dict[str, Scores]:
    """The same heads, whose networks are on `device`, for pixels on the CPU."""

    def there(scores: Scores, obs: Tensor) -> Tensor:
        return scores(obs.to(device))

    return {name: partial(there, scores) for name, scores in heads.items()}


def overlay(image: Pixels, heat: NDArray[np.floating]) -> Pixels:
    """An image (H, W, 3) with its heat map (H, W) in [0, 1] on top, in orange."""
    weight = heat[..., None]
    blend: Pixels = ((1 - weight) * 0.6 * image + weight * np.array([255, 120, 0])).astype(np.uint8)
    return blend


def pictures(obs: Pixels, frame_stack: int) -> Pixels:
    """The frames of an observation (frame_stack * C, H, W), grey or RGB: (frame_stack, H, W, 3), oldest first."""
    _, height, width = obs.shape
    frames = obs.reshape(frame_stack, -1, height, width).transpose(0, 2, 3, 1)
    return np.broadcast_to(frames, (frame_stack, height, width, 3))


def heat_panels(targets: Mapping[str, Scores], obs: Pixels, frame_stack: int, size: int, samples: int) -> list[Pixels]:
    """For each head, the newest frame of one observation (C, H, W) under its heat map."""
    batch, newest = torch.from_numpy(obs[None]), pictures(obs, frame_stack)[-1]
    heats = {name: smoothgrad(scores, batch, samples=samples)[0, 0] for name, scores in targets.items()}
    return [panel(overlay(newest, heat), size, name) for name, heat in heats.items()]


def write_maps(
    folder: Path, observations: Iterable[Pixels], targets: Mapping[str, Scores], frame_stack: int
) -> list[Pixels]:
    """Write `moment_<k>.png` for each observation (C, H, W): its frames in a row, below it what each head looks at.

    Returns:
        The pictures (H', W', 3).
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for k, obs in enumerate(observations):
        batch, rows = torch.from_numpy(obs[None]), {"frame": list(pictures(obs, frame_stack))}
        for name, scores in targets.items():
            heats = smoothgrad(scores, batch, frames=frame_stack, samples=64)[0]
            rows[name] = list(map(overlay, rows["frame"], heats))
        grid = [
            side_by_side([panel(image, 252, f"{name} t-{frame_stack - 1 - i}") for i, image in enumerate(row)])
            for name, row in rows.items()
        ]
        written.append(np.concatenate(grid))
        write_png(written[-1], folder / f"moment_{k}.png")
    return written
