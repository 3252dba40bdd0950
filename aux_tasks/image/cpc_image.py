"""Contrastive predictive coding on images: predict lower patches from the rows above."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from aux_tasks.parts.patches import MIDDLE, PatchGrid, normalize, resize, some_gray
from encoders import Encoder
from harness.checks import check_least, check_within
from replay import Batch

FIRST = 2  # rows below: the patches of the next one overlap what the context has seen


class CPCImage(AuxTask):
    """InfoNCE -log softmax_j(p_k(context_i)^T t_j) of the patch k rows below position i among all patches of all images
    of the batch (van den Oord et al. 2018, "Representation learning with contrastive predictive coding"; the masked
    context network after Henaff et al. 2019). Mean over positions and k = 2 to `steps` + 1; chance 1 / (B * cells^2).

    Patches overlap by half and are encoded alone, resized to the encoder's input. The context of a position has seen
    its row and the rows above; k = 1 is left out, since that row shares pixels with it. No layer normalises over
    patches or images: the statistics would tell one from the other.

    Guards against answers without content: each patch lies at a random position in its cell; its mean and contrast are
    normalised, into the range of pixels (mean 127.5); images are gray. Patches that look alike bound the accuracy.

    Args:
        setting: the run.
        cells: patches along each axis.
        steps: rows to predict.
        embedding_dim: size of latents, contexts and targets.
        layers: of the context network; each sees one row further up.
        patch_ratio: side of a patch over that of its cell.
        gray: share of colour images turned gray.

    Raises:
        ValueError: an option is out of range, or the observation is too small.
    """

    def __init__(
        self,
        setting: TaskSetting,
        *,
        cells: int = 6,
        steps: int = 3,
        embedding_dim: int = 64,
        layers: int = 4,
        patch_ratio: float = 0.9,
        gray: float = 1.0,
    ) -> None:
        super().__init__(setting)
        if not 1 <= steps <= cells - FIRST:
            raise ValueError(f"steps must be at least 1 and at most cells - {FIRST}, got {steps} of {cells} cells")
        check_least(1, embedding_dim=embedding_dim, layers=layers)
        check_within("(0, 1]", patch_ratio=patch_ratio)
        check_within("[0, 1]", gray=gray)
        self.frame_stack, self.shape, self.gray = setting.frame_stack, setting.obs_shape[1:], gray
        self.grid, self.scale = PatchGrid(self.shape, cells, patch_ratio, overlap=True), embedding_dim**-0.5
        self.latent = nn.Sequential(nn.Linear(setting.feature_dim, embedding_dim), nn.LayerNorm(embedding_dim))
        self.context = nn.Sequential(*(RowsAbove(embedding_dim) for _ in range(layers)), nn.LayerNorm(embedding_dim))
        self.predictors = nn.ModuleList(nn.Linear(embedding_dim, embedding_dim) for _ in range(steps))
        self.target = nn.Linear(embedding_dim, embedding_dim, bias=False)  # a bias would be the same for all

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return InfoNCE (B,) and the share of predictions closest to their own patch."""
        logits = self._logits(self._patches(batch.obs), encoder)
        index = torch.arange(logits[0].shape[1], device=logits[0].device).view(len(batch.obs), self.grid.cells, -1)
        outputs = [classify(step, index[:, below:].flatten()) for below, step in enumerate(logits, start=FIRST)]
        loss = torch.stack([output.loss.view(len(batch.obs), -1).mean(1) for output in outputs]).mean(0)
        accuracy = torch.stack([output.metrics["accuracy"] for output in outputs]).mean()
        return AuxOutput(loss, {"accuracy": accuracy, "chance": outputs[0].metrics["chance"]})

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four images as patches, and at each position the patch that the rows above predict."""
        patches = self._patches(batch.obs)
        chosen = self._logits(patches, encoder)[0].argmax(1).view(len(patches), -1)
        predicted = torch.full_like(patches, MIDDLE)
        predicted[:, FIRST * self.grid.cells :] = patches.flatten(0, 1)[chosen]
        question = "Which patches of the batch are further below? Each was chosen by what is above it."
        shown = {"patches": self.grid.join(patches[:4]), "predicted": self.grid.join(predicted[:4])}
        return Examples(question, {"picture": batch.obs[:4], **shown})

    def _patches(self, obs: Tensor) -> Tensor:
        return normalize(self.grid.cut(some_gray(obs, self.frame_stack, self.gray, self.generator), self.generator))

    def _logits(self, patches: Tensor, encoder: Encoder) -> list[Tensor]:
        """Return logits (N, B * cells^2) over all patches, for each number of rows below its N positions."""
        latents = self.latents(patches, encoder)
        context, target = self.context(latents), self.target(latents).flatten(0, 2)
        ahead = enumerate(self.predictors, start=FIRST)
        return [(predict(context[:, :-below]) * self.scale).flatten(0, 2) @ target.T for below, predict in ahead]

    def latents(self, patches: Tensor, encoder: Encoder) -> Tensor:
        """Return latents (B, cells, cells, D) of patches (B, cells * cells, C, h, w), each encoded by itself."""
        cells = self.grid.cells
        return self.latent(encoder(resize(patches, self.shape))).view(len(patches), cells, cells, -1)  # type: ignore[no-any-return]


class RowsAbove(nn.Module):
    """x + f(x) on (B, rows, columns, D), where f reads a position's row and the one above it, three columns wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read, self.norm, self.write = nn.Conv2d(width, width, (2, 3)), nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same shape."""
        padded = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 0))
        seen = self.read(padded).permute(0, 2, 3, 1)
        return x + self.write(F.relu(self.norm(seen)))  # type: ignore[no-any-return]
