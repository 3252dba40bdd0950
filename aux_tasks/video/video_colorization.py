"""Video colorization: copy colours from earlier frames by attention."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting
from aux_tasks.parts.clips import observations
from aux_tasks.parts.colour import from_lab, to_lab
from aux_tasks.parts.moving_patches import most_moving
from aux_tasks.parts.palette import kmeans
from encoders import Encoder
from encoders.augment import luma
from encoders.vit import sinusoids
from harness.checks import check_least
from replay import Batch

CHANGED = 8  # gray levels, mean of a cell: less is no change of its pixels
DIM = 0.3  # of the brightness, where a picture shows what lies outside of a mask


class VideoColorization(AuxTask):
    """-log sum_i A_ij [c_i = c_j] with A_ij = softmax_i(f_i^T f_j) over the cells i of the reference frames, where f
    embeds a cell of the encoder's maps of gray frames, with its position, and c is its colour, one of K (Vondrick et
    al. 2018, "Tracking emerges by colorizing videos"). Without the position a convolution without borders could not
    even copy the colour of the same cell.

    The encoder sees luma alone, in all three channels. Colours are the mean Lab chroma of a cell, quantised by k-means
    on the batch: the head points and names no colour, so the palette need not last. Colours count alike, however rare,
    because a still background would be all else; cells whose colour no reference holds have no answer and are left out.
    All metrics are over the cells whose pixels changed since the last reference, their share is `changed`: `accuracy`,
    that of copying the colour of the same position, `copied`, and as `chance` that of the references' most frequent
    colour; `error_ratio` is the error to that of copying.

    Args:
        setting: the run.
        references: frames that can be pointed into, 1 to 3 in the paper; the observation behind them is coloured.
        colours: K.
        embedding_dim: d, size of a cell's embedding.
        stride: steps between frames.

    Raises:
        ValueError: the observations have no colour, or an option is less than 1 (`colours`: 2).
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})
    position: Tensor  # (P, H', W')

    def __init__(
        self, setting: TaskSetting, *, references: int = 3, colours: int = 8, embedding_dim: int = 64, stride: int = 1
    ) -> None:
        super().__init__(setting)
        channels = setting.obs_shape[0]
        if channels != 3 * setting.frame_stack:
            raise ValueError(
                f"video_colorization needs colour frames: {3 * setting.frame_stack} channels with "
                f"frame_stack={setting.frame_stack}, got {channels}"
            )
        check_least(1, references=references, embedding_dim=embedding_dim, stride=stride)
        check_least(2, colours=colours)
        self.references, self.colours, self.stride = references, colours, stride
        self.clip_length = references * stride + 1
        self.cells = setting.map_shape[1:]
        octaves = max(2, (max(self.cells) - 1).bit_length())  # sinusoids of 4, 8, ... cells, the longest past the grid
        rates = 2 * torch.pi / 2.0 ** torch.arange(2, octaves + 1)
        self.register_buffer("position", sinusoids(rates, *self.cells), persistent=False)
        self.embed = nn.Conv2d(setting.map_shape[0] + len(self.position), embedding_dim, 1)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the balanced cross-entropy (B,), mean over the target's cells."""
        clip, valid = observations(batch, self.references + 1, self.stride)
        label, _ = self._colours(clip, valid[:, -1])
        target, hot = label[:, -1], self._one_hot(label[:, :-1])
        share = self.propagate(hot, clip[:, :-1], clip[:, -1], encoder)
        held = hot.mean((1, 3, 4))  # (B, K), share of each colour in the references
        answered = valid[:, -1, None, None] * (held.gather(1, target.flatten(1)).view_as(target) > 0)
        frequency = (self._one_hot(target) * answered[:, None]).sum((0, 2, 3))
        weight = answered / frequency.clamp_min(1)[target]
        error = -share.gather(1, target[:, None])[:, 0].clamp_min(1e-12).log()
        loss = (error * weight).sum((1, 2)) * (len(error) / weight.sum().clamp_min(1e-12))
        moved = (clip[:, -1, -3:].float() - clip[:, -2, -3:].float()).abs().mean(1)
        changed = (F.adaptive_avg_pool2d(moved, self.cells) > CHANGED) * answered
        answers = {"accuracy": share.detach().argmax(1), "copied": label[:, -2]}
        answers["chance"] = held.argmax(1)[:, None, None].expand_as(target)
        metrics = {name: ((found == target) * changed).sum() / changed.sum() for name, found in answers.items()}
        metrics = {name: part.nan_to_num() for name, part in metrics.items()}  # where nothing changed
        metrics["error_ratio"] = (1 - metrics["accuracy"]) / (1 - metrics["copied"]).clamp_min(1e-6)
        metrics["changed"] = changed.sum() / answered.sum().clamp_min(1)
        return AuxOutput(loss, metrics)

    def propagate(self, reference_labels: Tensor, reference: Tensor, target: Tensor, encoder: Encoder) -> Tensor:
        """Carry labels along: each cell of `target` takes those of the reference cells that it points to.

        Args:
            reference_labels: (B, R, K, h, w) of any size, such as masks; averaged over the cells of the maps.
            reference: (B, R, C, H, W) uint8 observations.
            target: (B, C, H, W) uint8.
            encoder: whose maps are compared.

        Returns:
            (B, K, H', W') mixtures of the labels.
        """
        batch, count = reference.shape[:2]
        maps = encoder.maps(colourless(torch.cat([reference, target[:, None]], dim=1).flatten(0, 1)))
        located = torch.cat([maps, self.position.expand(len(maps), -1, -1, -1).to(maps.dtype)], dim=1)
        embedded = self.embed(located).float().unflatten(0, (batch, count + 1))
        keys = embedded[:, :-1].movedim(1, 2).flatten(2)  # (B, d, R * H' * W')
        query = embedded[:, -1].flatten(2)
        pointer = (query.mT @ keys).softmax(-1)  # (B, H' * W', R * H' * W')
        labels = F.adaptive_avg_pool2d(reference_labels.flatten(0, 1), self.cells)
        labels = labels.view(batch, count, -1, *self.cells)
        carried = labels.movedim(1, 2).flatten(2) @ pointer.mT
        return carried.view(*carried.shape[:2], *self.cells)  # type: ignore[no-any-return]

    @torch.no_grad()
    def track(self, mask: Tensor, clip: Tensor, encoder: Encoder) -> Tensor:
        """Follow what a mask shows through a clip, each frame by those before it; nothing was trained for that.

        Args:
            mask: (B, 1, H, W) in [0, 1], of the first observation.
            clip: (B, T, C, H, W) uint8.
            encoder: whose maps are compared.

        Returns:
            (B, T, 1, H', W') shares of the cells; the first are those of `mask`.
        """
        masks = F.adaptive_avg_pool2d(mask, self.cells)[:, None]
        for t in range(1, clip.shape[1]):
            known = slice(max(0, t - self.references), t)
            found = self.propagate(masks[:, known], clip[:, known], clip[:, t], encoder)
            masks = torch.cat([masks, found[:, None]], dim=1)
        return masks

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return three observations as the encoder sees them, coloured by the pointer, and as they are.

        Then the patch of the first reference that moves most, and what of the observation points into it.
        """
        clip, valid = observations(batch, self.references + 1, self.stride)
        label, palette = self._colours(clip, valid[:, -1])
        clip, hot, stack = clip[:3], self._one_hot(label[:3, :-1]), clip.shape[2] // 3
        share = self.propagate(hot, clip[:, :-1], clip[:, -1], encoder)
        chroma = torch.einsum("bkhw,kc->bchw", share, palette)
        true = clip[:, -1]
        lightness = to_lab(true[:, -3:])[:, :, :1]
        coloured = from_lab(lightness, F.interpolate(chroma, true.shape[2:])[:, None]).repeat(1, stack, 1, 1)
        marked = self._moving(clip)
        tracked = F.interpolate(self.propagate(marked[:, None], clip[:, :1], true, encoder), true.shape[2:])
        pictures = {"gray": colourless(true), "predicted": coloured, "true": true}
        pictures |= {"marked": clip[:, 0] * (DIM + marked * (1 - DIM)), "tracked": true * (DIM + tracked * (1 - DIM))}
        question = "Where in earlier frames is the colour of each position? And where is the marked patch now?"
        return Examples(question, {name: pixels.to(torch.uint8) for name, pixels in pictures.items()})

    def _moving(self, clip: Tensor) -> Tensor:
        """Return a mask (B, 1, H, W) of the patch of the first of the observations (B, T, C, H, W) that moves most."""
        frames, side = clip[:, :, -3:].float().mean(2), min(clip.shape[3:]) // 3
        mask = torch.zeros_like(frames[:, :1])
        for marked, (top, left) in zip(mask, most_moving(frames, side)[0].tolist(), strict=True):
            marked[:, top : top + side, left : left + side] = 1
        return mask

    def _colours(self, clip: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the colours (B, T, H', W') of the cells of the newest frames, and the palette (K, 2) in Lab."""
        chroma = to_lab(clip[:, :, -3:].flatten(0, 1))[:, 0, 1:]
        points = F.adaptive_avg_pool2d(chroma, self.cells).movedim(1, -1).flatten(0, 2)
        label, palette = kmeans(points, valid.repeat_interleave(len(points) // len(valid)), self.colours)
        return label.view(*clip.shape[:2], *self.cells), palette

    def _one_hot(self, label: Tensor) -> Tensor:
        """Return labels (..., H', W') one-hot, (..., K, H', W')."""
        return F.one_hot(label, self.colours).movedim(-1, -3).float()


def colourless(obs: Tensor) -> Tensor:
    """Return the luma of each frame of colour stacks (B, C, H, W) in all three of its channels, float32."""
    return luma(obs).repeat_interleave(3, dim=1)
