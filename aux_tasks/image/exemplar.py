"""Exemplar: of which remembered image is this a view?"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, Examples, TaskSetting, classify
from aux_tasks.parts.patches import corner_of, crop
from aux_tasks.views import ViewTask
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class Exemplar(ViewTask):
    """Cross-entropy of a softmax over N remembered images, from a fresh view of one of them (Dosovitskiy et al. 2014,
    "Discriminative unsupervised feature learning with convolutional neural networks"). Chance is 1 / N, over the
    images remembered so far.

    The bank takes the images of the first batches until it holds N. Images that it already holds (equal bytes) and
    images without gradients are not stored: no view could tell such classes apart. With `patch_size` the bank holds
    patches, as in the paper, drawn with probability proportional to the mean squared gradient in them and stretched to
    the encoder's input. Views of a patch repeat its border, since its surroundings are not kept.

    Args:
        setting: the run.
        classes: N, at least 2; the bank is N observations of memory, and of every checkpoint.
        patch_size: side of a patch, pixels; None for whole images.
        flat: root mean square of the differences between neighbours, levels, up to which an image is not stored.
        options: of `ViewTask`.

    Raises:
        ValueError: fewer than two classes, a patch that has no gradients or does not fit, or a negative `flat`.
    """

    bank: Tensor
    hashes: Tensor
    filled: Tensor

    def __init__(
        self,
        setting: TaskSetting,
        *,
        classes: int = 1000,
        patch_size: int | None = None,
        flat: float = 2.0,
        **options: Any,
    ) -> None:
        check_least(2, classes=classes)
        check_least(0, flat=flat)
        side = min(setting.obs_shape[1:])
        if patch_size is not None and not 2 <= patch_size <= side:
            raise ValueError(f"patch_size must be 2 to {side}, got {patch_size}")
        super().__init__(setting, nn.Linear(setting.feature_dim, classes), **options)
        self.classes, self.patch_size, self.flat = classes, patch_size, flat
        # The slot behind the last image takes what is refused, so that no update has to wait for a count.
        self.register_buffer("bank", torch.zeros(classes + 1, *setting.obs_shape, dtype=torch.uint8))
        self.register_buffer("hashes", torch.zeros(classes + 1, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        salt = torch.randint(-(2**63), 2**63 - 1, setting.obs_shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("salt", salt.flatten(), persistent=False)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the cross-entropy (B,) over the images remembered, and their number; before the first it is 0."""
        inputs, label = self._draw(len(batch.obs))
        output = classify(self._logits(inputs, encoder), label)
        chance = 1 / self.filled.clamp_min(1).float()
        return AuxOutput(output.loss, output.metrics | {"chance": chance, "filled": self.filled.float()})

    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Remember the images of the batch that are worth it, while there is room."""
        obs = batch.obs
        gradients = _gradients(obs)
        if self.patch_size is None:
            gradient = gradients.mean((1, 2))
        else:
            obs, gradient = self._cut(obs, gradients, self.patch_size)
        hashed = (obs.flatten(1).long() * self.get_buffer("salt")).sum(1)  # equal for equal bytes, else hardly ever
        known = ((hashed[:, None] == self.hashes) & self._held()).any(1)
        twin = (hashed[:, None] == hashed).tril(-1).any(1)
        fresh = ~known & ~twin & (gradient > self.flat**2)
        slot = torch.where(fresh, self.filled + fresh.cumsum(0) - 1, self.classes).clamp_max(self.classes)
        self.bank[slot], self.hashes[slot] = obs, hashed
        self.filled.add_(fresh.sum()).clamp_max_(self.classes)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return eight views, with the remembered images of the right and the predicted class."""
        inputs, label = self._draw(min(8, len(batch.obs)))
        predicted = self._logits(inputs, encoder).argmax(1)
        said, right = ([str(i) for i in classes.tolist()] for classes in (predicted, label))
        shown = {"view": inputs.to(torch.uint8), "its picture": self.bank[label], "predicted": self.bank[predicted]}
        return Examples("Of which remembered picture is this a view?", shown, said, right)

    def _cut(self, obs: Tensor, gradients: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
        """Return a patch of each image, stretched to it, and the mean (B,) of `gradients` (B, H - 1, W - 1) in it."""
        score = F.avg_pool2d(gradients[:, None], patch_size - 1, 1)[:, 0]
        chance = score.flatten(1) + 1e-6
        uniform = torch.rand(chance.shape, generator=self.generator, device=chance.device)
        index = (chance / -uniform.log()).argmax(1, keepdim=True)  # `multinomial` would wait for the device
        cut = crop(obs, corner_of(index[:, 0], score.shape[2]), (patch_size, patch_size))
        pixels = F.interpolate(cut.float(), obs.shape[2:], mode="bilinear")
        return pixels.round().to(obs.dtype), score.flatten(1).gather(1, index)[:, 0]

    def _draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return views (B, C, H, W) of remembered images, and the images' classes (B,)."""
        ticket = torch.randint(2**62, (count,), generator=self.generator, device=self.generator.device)
        label = ticket % self.filled.clamp_min(1)
        return self.view(self.bank[label]), label

    def _logits(self, inputs: Tensor, encoder: Encoder) -> Tensor:
        """Return logits (B, N), -inf for classes without an image but the first, so that a run can begin."""
        missing = ~self._held()[:-1]
        missing[0] = False
        return self.embed(inputs, encoder).masked_fill(missing, -torch.inf)

    def _held(self) -> Tensor:
        """Return a mask (N + 1,) of the slots of the bank that hold images."""
        return torch.arange(self.classes + 1, device=self.filled.device) < self.filled


def _gradients(obs: Tensor) -> Tensor:
    """Return the mean square (B, H - 1, W - 1) of each pixel's differences from those below and to the right."""
    pixels = obs.float()
    down, across = pixels.diff(dim=2)[..., :-1], pixels.diff(dim=3)[:, :, :-1]
    return (down.square() + across.square()).mean(1) / 2
