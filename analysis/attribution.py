"""Attribution maps: which pixels a head reads, by SmoothGrad and by occlusion.

SmoothGrad (Smilkov et al. 2017, squared as in Hooker et al. 2019) measures how much a small change of a pixel would
change the score; it may be large where nothing is shown. Occlusion (Zeiler and Fergus 2014) covers what is there. The
two methods fail in different ways, so trust what both mark.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.picture import Pixels, above_each_other, panel, rgb_frames, side_by_side
from harness.files import write_png
from harness.lazy import LazyModule
from harness.provenance import write_json
from harness.seeding import seeded

captum, ndimage, stats = map(LazyModule, ("captum.attr", "scipy.ndimage", "scipy.stats"))

Head: TypeAlias = Callable[[Tensor], Tensor]  # pixels (B, C, H, W) -> action values or class logits (B, K)
PANEL = 252  # pixels of a side of each frame in a picture
AGREEMENT = "agreement.json"
NOISE = 25.0  # standard deviation, grey levels
CHUNK = 64  # images in a forward pass
EPS = 1e-12


def smoothgrad(scores: Head, obs: Tensor, *, frames: int = 1, samples: int = 32) -> NDArray[np.float32]:
    """Squared gradients of the greatest score, averaged over noisy copies of the pixels.

    Args:
        scores: the function to explain; differentiable in the pixels.
        obs: (B, C, H, W) pixels in [0, 255], on the CPU, where the noise is drawn.
        frames: number F of maps of an observation, each summed over its share of the C channels.
        samples: noisy copies of each observation.

    Returns:
        (B, F, H, W) in [0, 1], divided by the maximum of an observation's maps; all 0 where no pixel matters.
    """
    pixels = obs.float()
    with torch.no_grad():
        best = scores(pixels).argmax(1)
    with seeded(0, "attribution"):
        squares = captum.NoiseTunnel(captum.Saliency(scores)).attribute(
            pixels,
            nt_type="smoothgrad_sq",
            nt_samples=samples,
            nt_samples_batch_size=max(1, CHUNK // len(obs)),
            stdevs=NOISE,
            target=best,
        )
    return _scaled(squares.unflatten(1, (frames, -1)).sum(2))


def background(obs: Tensor) -> Tensor:
    """Observations (B, C, H, W) without objects: every row of each channel has its median value; float."""
    return obs.float().median(3, keepdim=True).values.expand(obs.shape)


def covered_window(height: int) -> int:
    """Side in pixels of the square that `occlusion` covers, for observations of that height."""
    return max(2, round(height / 12))


def occlusion(scores: Head, obs: Tensor, *, frames: int = 1) -> NDArray[np.float32]:
    """How much the greatest score changes, up or down, when a square of one frame is covered by `background`.

    The squares overlap by half. A pixel has the mean over the squares that cover it.

    Args:
        scores: the function to explain.
        obs: (B, C, H, W) pixels in [0, 255].
        frames: number F of maps of an observation, each of its share of the C channels, which are covered together.

    Returns:
        (B, F, H, W) in [0, 1], divided by the maximum of an observation's maps; all 0 where nothing matters.
    """

    def change(pixels: Tensor, best: Tensor, before: Tensor) -> Tensor:
        return (scores(pixels).to(pixels.device).gather(1, best) - before).abs().squeeze(1)

    pixels, channels, side = obs.float(), obs.shape[1] // frames, covered_window(obs.shape[2])
    with torch.no_grad():
        before, best = scores(pixels).to(pixels.device).max(1, keepdim=True)
        changes = captum.Occlusion(change).attribute(
            pixels,
            sliding_window_shapes=(channels, side, side),
            strides=(channels, (side + 1) // 2, (side + 1) // 2),
            baselines=background(pixels),
            additional_forward_args=(best, before),
            perturbations_per_eval=CHUNK,
        )
    return _scaled(changes.abs().unflatten(1, (frames, -1)).mean(2))


def _scaled(heat: Tensor) -> NDArray[np.float32]:
    """Maps (B, F, H, W) divided by the maximum of each observation."""
    peak = heat.amax((1, 2, 3), keepdim=True)
    scaled: NDArray[np.float32] = (heat / peak.where(peak > 0, 1)).cpu().numpy()
    return scaled


METHODS: dict[str, Callable[..., NDArray[np.float32]]] = {
    "SmoothGrad": partial(smoothgrad, samples=64),
    "occlusion": occlusion,
}


def common_map(smooth: NDArray[np.floating], occluded: NDArray[np.floating]) -> NDArray[np.floating]:
    """The smaller value of two maps (F, H, W) of an observation, scaled to at most 1.

    SmoothGrad's map is first averaged over the squares that occlusion covers, which never covers a single pixel.
    """
    side = covered_window(smooth.shape[1])
    blurred = ndimage.uniform_filter(smooth, (0, side, side))
    least = np.minimum(blurred / max(blurred.max(), EPS), occluded)
    scaled: NDArray[np.floating] = least / max(least.max(), EPS)
    return scaled


def agreement(maps: Sequence[NDArray[np.floating]], obs: Tensor) -> float | None:
    """Spearman's rank correlation of two maps (F, H, W) of one observation (C, H, W), over squares of its frames.

    Squares that `background` does not change are left out, since covering them has no effect.

    Returns:
        A value in [-1, 1]; None if fewer than three squares are left, or if a map is constant over them.
    """
    side = covered_window(obs.shape[1])
    shown = (obs - background(obs[None])[0]).abs().numpy().reshape(len(maps[0]), -1, *obs.shape[1:])
    visible = _squares(shown.max(1), side).max((-1, -2)) > 0
    first, second = (_squares(heat, side).mean((-1, -2))[visible] for heat in maps)
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(stats.spearmanr(first, second).statistic)


def _squares(values: NDArray[Any], side: int) -> NDArray[Any]:
    """(F, H, W) as (F, rows, columns, side, side); incomplete squares at the right and lower edge are left out."""
    rows, columns = (length // side for length in values.shape[1:])
    cut = values[:, : rows * side, : columns * side]
    return cut.reshape(len(values), rows, side, columns, side).swapaxes(2, 3)


def on_device(heads: Mapping[str, Head], device: torch.device) -> dict[str, Head]:
    """The same heads, whose networks are on `device`, as functions of pixels on the CPU."""

    def there(scores: Head, obs: Tensor) -> Tensor:
        return scores(obs.to(device))

    return {name: partial(there, scores) for name, scores in heads.items()}


def overlay(image: Pixels, heat: NDArray[np.floating]) -> Pixels:
    """An image (H, W, 3) with its heat map (H, W) in [0, 1] on top, in orange."""
    weight = heat[..., None]
    blend: Pixels = ((1 - weight) * 0.6 * image + weight * np.array([255, 120, 0])).astype(np.uint8)
    return blend


def heat_panels(targets: Mapping[str, Head], obs: Pixels, frame_stack: int, size: int, samples: int) -> list[Pixels]:
    """For each head, its heat map over the newest frame of one observation (C, H, W)."""
    batch, newest = torch.from_numpy(obs[None]), rgb_frames(obs, frame_stack)[-1]
    heats = {name: smoothgrad(scores, batch, samples=samples)[0, 0] for name, scores in targets.items()}
    return [panel(overlay(newest, heat), size, f"{name}, SmoothGrad") for name, heat in heats.items()]


def write_maps(
    folder: Path, observations: Iterable[Pixels], targets: Mapping[str, Head], frame_stack: int
) -> list[Pixels]:
    """Write `moment_<k>.png` for each observation (C, H, W): its frames, and the maps of each head by each method.

    `both_<k>.png` shows what both methods mark. `agreement.json` holds their rank correlation for each head.

    Returns:
        The pictures `moment_<k>` (H', W', 3).
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, ranks = [], {name: list[float | None]() for name in targets}
    for k, obs in enumerate(observations):
        batch, frames = torch.from_numpy(obs[None]), list(rgb_frames(obs, frame_stack))
        rows, common = {"frame": frames}, {"frame": frames}
        for name, scores in targets.items():
            maps = {method: explain(scores, batch, frames=frame_stack)[0] for method, explain in METHODS.items()}
            rows |= {f"{name}, {method}": list(map(overlay, frames, heats)) for method, heats in maps.items()}
            common[f"{name}, both"] = list(map(overlay, frames, common_map(*maps.values())))
            ranks[name].append(agreement(list(maps.values()), batch[0]))
        written.append(_moment(rows))
        write_png(written[-1], folder / f"moment_{k}.png")
        write_png(_moment(common), folder / f"both_{k}.png")
    heads = {name: {"spearman": _mean(values), "of_moments": values} for name, values in ranks.items()}
    write_json({"methods": list(METHODS), "covered_by": "the median of each row", "heads": heads}, folder / AGREEMENT)
    return written


def _moment(rows: Mapping[str, Sequence[Pixels]]) -> Pixels:
    """Rows of frames, oldest first, with captions."""
    return above_each_other(
        [
            side_by_side([panel(image, PANEL, f"{name}, t-{len(images) - 1 - i}") for i, image in enumerate(images)])
            for name, images in rows.items()
        ]
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean over the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
