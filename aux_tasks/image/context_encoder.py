"""Context encoder: what was in the missing regions?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting
from aux_tasks.parts.adversary import Discriminator, call_frozen, discrimination_loss
from aux_tasks.parts.decoder import centred, decoder, image_error, to_pixels
from encoders import Encoder
from harness.checks import check_choice, check_least, check_within
from replay import Batch

REGIONS = ("random", "centre")


class ContextEncoder(AuxTask):
    """(1 - adversarial) |D(E(x~)) - x|^2 on the missing region alone + adversarial * -log A(filling), non-saturating
    (Pathak et al. 2016, "Context encoders: feature learning by inpainting").

    Random regions are where low-resolution noise is among the `mask_ratio` of its highest values; they keep the encoder
    from learning the border of one hole. A region is missing from every frame of a stack, since the other frames would
    show it, and is filled with the batch's mean colour. The discriminator A sees the filling without its context.
    `error_ratio` is to the batch's mean image in the region; `fooled` the share of fillings that A takes for real.

    Args:
        setting: the run.
        region: `random` or `centre`.
        mask_ratio: share of the pixels that are missing.
        grain: cells of the noise along each axis.
        adversarial: weight of the adversarial term, 0 for none; 0.001 in the paper.
        channels: of the decoder's feature maps.

    Raises:
        ValueError: an unknown region, or an option out of range.
    """

    adversary: Discriminator | None

    def __init__(
        self,
        setting: TaskSetting,
        *,
        region: str = "random",
        mask_ratio: float = 0.25,
        grain: int = 6,
        adversarial: float = 0.0,
        channels: int = 32,
    ) -> None:
        super().__init__(setting)
        check_choice("region", region, REGIONS)
        check_within("(0, 1)", mask_ratio=mask_ratio)
        check_least(2, grain=grain)
        check_within("[0, 1)", adversarial=adversarial)
        self.region, self.mask_ratio, self.grain, self.adversarial = region, mask_ratio, grain, adversarial
        self.decoder = decoder(setting.feature_dim, setting.map_shape, setting.obs_shape, channels)
        if adversarial:
            self.adversary = Discriminator(setting.obs_shape)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the error (B,) in the region, and the adversarial loss if there is one."""
        missing, holed = self._holed(batch.obs)
        decoded = self.decoder(encoder(holed)).float()
        output = image_error(decoded, centred(batch.obs), missing.float())
        if self.adversary is None:
            return output
        logits = call_frozen(self.adversary, decoded * missing)
        loss = (1 - self.adversarial) * output.loss + self.adversarial * F.softplus(-logits)
        return AuxOutput(loss, output.metrics | {"fooled": (logits.detach() > 0).float().mean()})

    def adversary_loss(self, batch: Batch, encoder: Encoder) -> Tensor:
        """Return the cross-entropy of telling true from decoded fillings."""
        assert self.adversary is not None
        with torch.no_grad():
            missing, holed = self._holed(batch.obs)
            decoded = self.decoder(encoder(holed)).float()
        return discrimination_loss(self.adversary(centred(batch.obs) * missing), self.adversary(decoded * missing))

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Let the discriminator's spectral norms follow its weights."""
        if self.adversary is not None:
            self.adversary.advance()

    def missing(self, obs: Tensor) -> Tensor:
        """Return a mask (B, 1, H, W) of the pixels to leave out."""
        height, width = obs.shape[2:]
        if self.region == "centre":
            top, left = (round(side * (1 - self.mask_ratio**0.5) / 2) for side in (height, width))
            hole = obs.new_zeros(len(obs), 1, height, width, dtype=torch.bool)
            hole[:, :, top : height - top, left : width - left] = True
            return hole
        draw = self.generator
        coarse = torch.rand(len(obs), 1, self.grain, self.grain, generator=draw, device=draw.device)
        noise = F.interpolate(coarse, (height, width), mode="bicubic").flatten(1)
        return (noise > noise.quantile(1 - self.mask_ratio, dim=1, keepdim=True)).view(-1, 1, height, width)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four observations: whole, as the encoder sees them, and filled."""
        obs = batch.obs[:4]
        missing, holed = self._holed(obs)
        decoded = to_pixels(self.decoder(encoder(holed)))
        shown = {"whole": obs, "input": holed, "predicted": torch.where(missing, decoded, obs)}
        return Examples("What is in the hole?", shown)

    def _holed(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        missing = self.missing(obs)
        colour = obs.float().mean((0, 2, 3), keepdim=True).round().to(torch.uint8)
        return missing, torch.where(missing, colour, obs)
