"""Colorization: predict the colour of each position from the lightness of the picture."""

from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, over_valid
from aux_tasks.parts.colour import frame_channels, from_lab, in_gamut, to_lab
from aux_tasks.parts.decoder import decoder
from encoders import Encoder
from harness.checks import check_above, check_within
from replay import Batch

GRAYISH = 5.0  # images whose a and b are nowhere further from 0 have no colour to predict
TEMPERATURE = 0.38  # of the distribution whose mean is shown: the paper's, between mean and mode
MEMORY = 0.99  # of the colour counts at each batch: they follow an agent to new scenes
LIGHTNESS_LEVELS = 101


class Colorization(AuxTask):
    """Cross-entropy w(c) * -sum_q t_q log p_q between predicted and soft-encoded ab bins, mean over a grid of every
    `output_stride`-th pixel (Zhang, Isola, Efros 2016, "Colorful image colorization", section 2).

    t is a Gaussian of the distances to the bins, over all rather than the five nearest. Bins are the squares of a fixed
    grid that hold any of the 256^3 RGB colours: 261 of size 10. The authors' table has 313: some of theirs, such as the
    first, (-90, 50), hold no RGB colour. The weights w = 1 / ((1 - uniform) p + uniform / Q), scaled to a mean of 1,
    keep common colours from being the answer to everything; p comes from running counts of the pixels of past updates,
    smoothed like t. Images without colour are left out.

    The encoder sees no colour: one of colour frames sees their lightness in each channel, one of gray frames `obs`.
    `accuracy` is the mean over the batch's colours of the share of positions put right, so that each blind answer has
    `chance`. `lookup_accuracy` is that of the best table from a position's own lightness to its colour, by those
    counts: only beyond it is anything learned from context (the palette of an Atari game is nearly such a table).

    Args:
        setting: the run.
        bin_size: of ab; the Gaussian's standard deviation is half of it.
        uniform: share of the uniform distribution in the class prior: 1 for no rebalancing.
        output_stride: pixels from one predicted position to the next.
        channels: of the decoder's feature maps.

    Raises:
        ValueError: frames are neither gray nor colour, or an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "rgb"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        bin_size: float = 10.0,
        uniform: float = 0.5,
        output_stride: int = 4,
        channels: int = 32,
    ) -> None:
        super().__init__(setting)
        height, width = setting.obs_shape[1:]
        check_above(0, bin_size=bin_size)
        check_within("(0, 1]", uniform=uniform)
        if not 1 <= output_stride <= min(height, width):
            raise ValueError(f"output_stride must be 1 to {min(height, width)}, got {output_stride}")
        self.gray = frame_channels(setting) == 1
        self.bin_size, self.uniform, self.output_stride = bin_size, uniform, output_stride
        self.register_buffer("bins", in_gamut(bin_size), persistent=False)  # (Q, 2)
        classes = len(self.get_buffer("bins"))
        self.register_buffer("counts", torch.zeros(LIGHTNESS_LEVELS, classes))  # of lightness and colour together
        grid = classes, -(-height // output_stride), -(-width // output_stride)
        self.decoder = decoder(setting.feature_dim, setting.map_shape, grid, channels)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the rebalanced cross-entropy (B,), 0 for grayish images."""
        level, colour, coloured = self._targets(batch)
        soft = self.soften(colour)  # (B, P, Q)
        label = soft.argmax(2)
        logits = self.decoder(encoder(self.colourless(batch.obs))).flatten(2).transpose(1, 2).float()
        valid = coloured[:, None].expand_as(label)
        scores = self._balanced(logits.detach().argmax(2), label, valid)
        lookup = self._balanced(self._table()[level], label, valid)["accuracy"]
        entropy = -(soft * logits.log_softmax(2)).sum(2)
        loss = (self.class_weights()[label] * entropy).mean(1)
        return AuxOutput(over_valid(loss, coloured.float()), scores | {"lookup_accuracy": lookup})

    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Count the batch's colours."""
        level, colour, coloured = self._targets(batch)
        label = self.soften(colour).argmax(2)
        index = (level * len(self.get_buffer("bins")) + label).flatten()
        counts = self.get_buffer("counts").mul_(MEMORY).flatten()
        counts.index_add_(0, index, coloured[:, None].expand_as(label).flatten().float())

    def colourless(self, obs: Tensor) -> Tensor:
        """Return pixels (B, C, H, W) of the frames' lightness alone."""
        if self.gray:
            return obs
        lightness, colour = torch.split(to_lab(obs), [1, 2], dim=2)
        return from_lab(lightness, torch.zeros_like(colour))

    def soften(self, colour: Tensor) -> Tensor:
        """Return the soft assignment (..., Q) of ab values (..., 2) to the bins."""
        distance = (colour[..., None, :] - self.get_buffer("bins")).square().sum(-1)
        return (-2 * distance / self.bin_size**2).softmax(-1)

    def class_weights(self) -> Tensor:
        """Return the weights (Q,) of the bins by the running counts."""
        counts = self.get_buffer("counts").sum(0) + 1e-6
        prior = counts @ self.soften(self.get_buffer("bins")) / counts.sum()
        weight = 1 / ((1 - self.uniform) * prior + self.uniform / len(prior))
        return weight / (prior * weight).sum()

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four observations on the grid: lightness, predicted (annealed mean, equation 5) and true colours."""
        lightness, colour = torch.split(to_lab(self._on_grid(batch.rgb)[:4]), [1, 2], dim=2)
        logits = self.decoder(encoder(self.colourless(batch.obs[:4]))).float()
        share = (logits / TEMPERATURE).softmax(1)
        painted = torch.einsum("bqhw,qc->bchw", share, self.get_buffer("bins"))[:, None]
        shades = {"lightness": torch.zeros_like(colour), "predicted": painted, "true": colour}
        pictures = {name: from_lab(lightness, ab).round().to(torch.uint8) for name, ab in shades.items()}
        return Examples("Which colours does the gray picture have?", pictures, frames=1)

    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the lightness level (B, P) and ab (B, P, 2) of the positions, and which images (B,) have colour."""
        lab = to_lab(self._on_grid(batch.rgb)).flatten(3)[:, 0].transpose(1, 2)
        colour = lab[..., 1:]
        return lab[..., 0].round().long(), colour, colour.abs().amax((1, 2)) > GRAYISH

    def _on_grid(self, rgb: Tensor | None) -> Tensor:
        assert rgb is not None
        return rgb[:, :, :: self.output_stride, :: self.output_stride]

    def _table(self) -> Tensor:
        """Return the most typical colour of each lightness (LIGHTNESS_LEVELS,): the best balanced answer to it."""
        counts = self.get_buffer("counts")
        return (counts / counts.sum(0).clamp_min(1e-6)).argmax(1)

    def _balanced(self, answer: Tensor, label: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Return the share of right answers, mean over the classes among the labels (B, P), and its chance."""
        counts, hits = torch.zeros(2, len(self.get_buffer("bins")), device=label.device)
        counts.index_add_(0, label.flatten(), valid.flatten().float())
        hits.index_add_(0, label.flatten(), (valid & (answer == label)).flatten().float())
        present = (counts > 0).sum().clamp_min(1)
        return {"accuracy": (hits / counts.clamp_min(1)).sum() / present, "chance": 1 / present}
