"""Split-brain autoencoding: each half of the observation from the other."""

import torch
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting
from aux_tasks.parts.colour import frame_channels, from_lab, to_lab
from aux_tasks.parts.decoder import centred, decoder, image_error, to_pixels
from encoders import Encoder
from harness.checks import check_choice
from replay import Batch

HALVES = ("auto", "colour", "time")


class SplitBrain(AuxTask):
    """Mean of the squared errors |D1(E(x1)) - x2|^2 and |D2(E(x2)) - x1|^2 for an observation cut into halves x1, x2
    (Zhang, Isola, Efros 2017, "Split-brain autoencoders: unsupervised learning by cross-channel prediction").

    Halves are lightness and colour; or, where frames are gray, the older and the newer ones of a stack. Each half goes
    through the encoder as a whole observation in which the other half is blank: a gray picture and one of even
    lightness; black frames, which leave the first layer's weights for them without effect. The paper cuts the network
    instead, into two groups of channels that never meet; here the encoder is whole, and both halves shape all its
    features. The encoder never sees the half that it has to predict. Nor does it quantise: both halves are regressed.
    The metrics tell the two directions' error ratios apart; `error_ratio` is their mean.

    Args:
        setting: the run.
        halves: `colour`, `time`, or `auto`: colour if there is any.
        channels: of the decoders' feature maps.

    Raises:
        ValueError: the observation does not have such halves.
    """

    def __init__(self, setting: TaskSetting, *, halves: str = "auto", channels: int = 32) -> None:
        super().__init__(setting)
        check_choice("halves", halves, HALVES)
        in_colour, frames = frame_channels(setting) == 3, setting.frame_stack
        self.by_colour = in_colour if halves == "auto" else halves == "colour"
        if self.by_colour and not in_colour:
            raise ValueError("halves=colour needs colour observations; gray ones of several frames allow halves=time")
        if not self.by_colour and frames < 2:
            raise ValueError("split_brain needs colour observations or a frame_stack of at least 2")
        depth, height, width = setting.obs_shape
        self.cut = frames if self.by_colour else frames // 2 * (depth // frames)  # channels of the first half
        self.decoders = nn.ModuleList(
            decoder(setting.feature_dim, setting.map_shape, (count, height, width), channels)
            for count in (depth - self.cut, self.cut)
        )

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the mean error (B,) of both predictions."""
        inputs, halves = self.split(batch.obs)
        seen = encoder(torch.cat(inputs)).chunk(2)
        decoded = (decode(half) for decode, half in zip(self.decoders, seen, strict=True))
        second, first = (image_error(d, target) for d, target in zip(decoded, reversed(halves), strict=True))
        ratios = [output.metrics["error_ratio"] for output in (second, first)]
        names = (
            ("colour_error_ratio", "lightness_error_ratio")
            if self.by_colour
            else ("newer_error_ratio", "older_error_ratio")
        )
        metrics = dict(zip(names, ratios, strict=True)) | {"error_ratio": torch.stack(ratios).mean()}
        return AuxOutput((second.loss + first.loss) / 2, metrics)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four observations, each above the one that its two halves make of each other."""
        obs = batch.obs[:4]
        second, first = (decode(encoder(half)) for decode, half in zip(self.decoders, self.split(obs)[0], strict=True))
        if self.by_colour:
            lightness, colour = first[:, :, None] + 0.5, second.unflatten(1, (-1, 2))
            predicted = from_lab(lightness * 100, colour * 100).round().to(torch.uint8)
        else:
            predicted = to_pixels(torch.cat([first, second], dim=1))
        what = "lightness and colours" if self.by_colour else "older and newer frames"
        return Examples(f"What are {what}, each predicted from the other?", {"picture": obs, "predicted": predicted})

    def split(self, obs: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return observations (B, C, H, W) that show one half alone, and the halves as targets of their decoders."""
        if self.by_colour:
            lightness, colour = torch.split(to_lab(obs), [1, 2], dim=2)
            shown = from_lab(lightness, torch.zeros_like(colour)), from_lab(torch.full_like(lightness, 50), colour)
            return shown, (lightness.flatten(1, 2) / 100 - 0.5, colour.flatten(1, 2) / 100)
        first, second = obs[:, : self.cut], obs[:, self.cut :]
        shown = torch.cat([first, torch.zeros_like(second)], dim=1), torch.cat([torch.zeros_like(first), second], dim=1)
        return shown, (centred(first), centred(second))
