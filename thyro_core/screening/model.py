"""A promoted model in a screening: probability, spread, distance and maps of a block."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thyro_core.config import ViewConfig
from thyro_core.explain.gradcam import cams_of_features
from thyro_core.explain.maps import check_maps
from thyro_core.registry.bundle import load_bundle, reference, require_whole_pictures
from thyro_core.registry.card_bands import promise_text
from thyro_core.registry.distance import distance_bound, embedding_distance
from thyro_core.registry.ensemble import ensemble_scores, load_members, spatial_mean
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.rules import BandLimits, near_quantile
from thyro_core.store.store import Store
from thyro_core.training.batches import normalise
from thyro_core.training.device import job_device, prepare_torch
from thyro_core.training.models import body_and_head, last_layer
from thyro_core.types import FloatArray, Grey

TOGETHER = 32
"""Images of one forward pass."""


@dataclass(frozen=True)
class BlockScores:
    """The ensemble's scores of n images."""

    probability: FloatArray
    """(n,), calibrated probability of malignant."""
    raw: FloatArray
    """(n,), mean over members of their softmax probability."""
    sd: FloatArray
    """(n,), standard deviation over members of the calibrated probability of each alone."""
    distance: FloatArray
    """(n,), embedding distance from the training set."""
    embeddings: npt.NDArray[np.float32]
    """(n, k), of the first member."""
    features: tuple[Tensor, ...]
    """Each member's last feature map, n first, on its device: maps are made of them, so that an
    image goes through a network once."""


class ScreeningModel:
    """The members of a promoted model, in memory, on the worker's device."""

    def __init__(
        self, store: Store, model_id: str, scratch: Path, *, threads: int = 1, gpus: float = 0.0
    ) -> None:
        prepare_torch(threads, deterministic=False)
        self._bundle = load_bundle(store, model_id)
        require_whole_pictures(self._bundle)
        self._device = job_device(gpus)
        members = load_members(self._bundle, store, scratch)
        self._parts = [
            body_and_head(member.to(self._device), self._bundle.architecture) for member in members
        ]
        self._reference = reference(store, model_id)

    @property
    def layer(self) -> str:
        """Module whose output the maps are made of."""
        return last_layer(self._bundle.architecture)

    @property
    def side(self) -> int:
        """Side of the input [pixels]."""
        return self._bundle.side

    @property
    def view(self) -> ViewConfig:
        """What it learned to see of a picture."""
        return self._bundle.view

    @property
    def promise(self) -> str | None:
        """What its conformal bands promise; None: its bands are a threshold's."""
        return promise_text(self._bundle.card)

    def limits(self, rules: ScreeningRules) -> BandLimits:
        """The bounds of this model under these rules."""
        quantile = rules.outlier_quantile
        return BandLimits(
            threshold=self._bundle.threshold,
            review_sds=rules.review_sds,
            outlier=distance_bound(self._reference, quantile),
            near=distance_bound(self._reference, near_quantile(quantile)),
            cuts=self._bundle.cuts,
        )

    def score(self, pixels: Grey) -> BlockScores:
        """Scores of n images.

        Args:
            pixels: uint8, (n, side, side); n at least 1.
        """
        features = self._features(pixels)
        with torch.no_grad():
            logits = [head(maps) for (_, head), maps in zip(self._parts, features, strict=True)]
        together = torch.stack(logits, dim=1).double().cpu().numpy()
        ensemble = ensemble_scores(together, self._bundle.calibration)
        embeddings = spatial_mean(features[0])
        distance = embedding_distance(self._reference, embeddings)
        return BlockScores(
            probability=ensemble.probability,
            raw=ensemble.raw,
            sd=ensemble.sd,
            distance=distance,
            embeddings=embeddings,
            features=features,
        )

    def maps(self, scores: BlockScores, rows: list[int]) -> npt.NDArray[np.float32]:
        """Members' mean raw Grad-CAM of both classes: float32, (n, 2, h, w).

        Args:
            scores: the result of `score` for a block.
            rows: positions of n images of it, at least one.

        Raises:
            CamError: a map is not finite.
        """
        maps = [
            cams_of_features(head, features[rows])[1]
            for (_, head), features in zip(self._parts, scores.features, strict=True)
        ]
        mean: npt.NDArray[np.float32] = torch.stack(maps).mean(dim=0).numpy()
        check_maps(mean, len(rows))
        return mean

    def _features(self, pixels: Grey) -> tuple[Tensor, ...]:
        batches = self._batches(pixels)
        with torch.no_grad():
            return tuple(torch.cat([body(some) for some in batches]) for body, _ in self._parts)

    def _batches(self, pixels: Grey) -> list[Tensor]:
        starts = range(0, len(pixels), TOGETHER)
        return [self._input(pixels[start : start + TOGETHER]) for start in starts]

    def _input(self, pixels: Grey) -> Tensor:
        grey = torch.from_numpy(np.array(pixels)).to(self._device).unsqueeze(1).float() / 255.0
        return normalise(grey)
