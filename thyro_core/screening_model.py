"""A promoted model at work in a screening: probability, spread, distance and maps of a block."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thyro_core.batches import normalise
from thyro_core.bundles import load_bundle, reference
from thyro_core.cam_maps import check_maps
from thyro_core.cams import grad_cams
from thyro_core.embedding_distance import distance_bound, embedding_distance
from thyro_core.ensembles import embedding, ensemble, load_members
from thyro_core.hardware import job_device, prepare_torch
from thyro_core.models import LAST_CONV
from thyro_core.screening import Limits, near_quantile
from thyro_core.screening_config import ScreeningRules
from thyro_core.storage import Store

TOGETHER = 32
"""Images of one forward pass."""

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BlockScores:
    """What the ensemble says of n images."""

    mean: Array
    """(n,), mean over members of the probability of malignant."""
    sd: Array
    """(n,), its standard deviation over members."""
    distance: Array
    """(n,), embedding distance from the training set."""
    embeddings: npt.NDArray[np.float32]
    """(n, k), of the first member."""


class ScreeningModel:
    """The members of a promoted model, in memory, on the worker's device."""

    def __init__(
        self, store: Store, model_id: str, scratch: Path, *, threads: int = 1, gpus: float = 0.0
    ) -> None:
        prepare_torch(threads, deterministic=False)
        self._bundle = load_bundle(store, model_id)
        self._device = job_device(gpus)
        members = load_members(self._bundle, store, scratch)
        self._members = [member.to(self._device) for member in members]
        self._reference = reference(store, model_id)

    @property
    def layer(self) -> str:
        """Module whose output the maps are made of."""
        return LAST_CONV[self._bundle.architecture]

    @property
    def side(self) -> int:
        """Side of the input [pixels]."""
        return self._bundle.side

    def limits(self, rules: ScreeningRules) -> Limits:
        """The bounds of this model under these rules."""
        quantile = rules.outlier_quantile
        return Limits(
            threshold=self._bundle.threshold,
            review_sds=rules.review_sds,
            outlier=distance_bound(self._reference, quantile),
            near=distance_bound(self._reference, near_quantile(quantile)),
        )

    def score(self, pixels: Pixels) -> BlockScores:
        """Scores of n images.

        Args:
            pixels: uint8, (n, side, side); n at least 1.
        """
        parts = [self._score_some(some) for some in self._batches(pixels)]
        return BlockScores(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("mean", "sd", "distance", "embeddings")
            )
        )

    def maps(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Members' mean raw Grad-CAM of both classes: float32, (n, 2, h, w).

        Args:
            pixels: uint8, (n, side, side); n at least 1.

        Raises:
            CamError: a map is not finite.
        """
        architecture = self._bundle.architecture
        parts = []
        for some in self._batches(pixels):
            maps = [grad_cams(member, architecture, some)[1] for member in self._members]
            parts.append(torch.stack(maps).mean(dim=0).numpy())
        found = np.concatenate(parts)
        check_maps(found, len(pixels))
        return found

    def _score_some(self, images: Tensor) -> BlockScores:
        scores = ensemble(self._members, images, self._bundle.temperature)
        embeddings = embedding(self._members[0], self._bundle.architecture, images)
        distance = embedding_distance(self._reference, embeddings)
        return BlockScores(scores.mean, scores.sd, distance, embeddings)

    def _batches(self, pixels: Pixels) -> list[Tensor]:
        starts = range(0, len(pixels), TOGETHER)
        return [self._input(pixels[start : start + TOGETHER]) for start in starts]

    def _input(self, pixels: Pixels) -> Tensor:
        grey = torch.from_numpy(np.array(pixels)).to(self._device).unsqueeze(1).float() / 255.0
        return normalise(grey)
