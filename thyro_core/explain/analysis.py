"""What the maps of the malignant class show of one network's test images, and how far to trust it.

All maps are taken as the table `cams` stores them, so that whoever reads it can compute the same.
The maps are always the malignant class's: the true class's would tell the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from thyro_core.config import Architecture, StudyConfig
from thyro_core.explain import faithfulness
from thyro_core.explain.features import feature_rows, features_table
from thyro_core.explain.gradcam import grad_cams
from thyro_core.explain.maps import Maps, stored_maps
from thyro_core.imaging.annotations import burned_in
from thyro_core.tables.cam_columns import BORDER_SHARE, CURVE_STEPS, RANDOMISATIONS
from thyro_core.tables.schemas import rows_to_table
from thyro_core.training.batches import Examples, normalise, stream_seed
from thyro_core.training.inference import image_batches

Masks = npt.NDArray[np.bool_]
Figures = dict[str, float | bool | None]

_MALIGNANT = 1
_WEIGHTS_STREAM, _MAP_STREAM = 0xCA3, 0xCA4
_DRAWN = (
    "randomised_correlation", "deletion", "deletion_random", "insertion", "insertion_random",
)  # fmt: skip


@dataclass(frozen=True)
class Examined:
    """A trained network and the n images it was tested on."""

    model: nn.Module
    architecture: Architecture
    device: torch.device
    examples: Examples
    image_ids: Sequence[str]
    masks: Sequence[Masks | None]
    """Nodule mask of each image, of any size; None: it has none."""


def analysis_tables(
    keys: Mapping[str, str | int],
    examined: Examined,
    cams: pa.Table,
    config: StudyConfig,
    seed: int,
) -> dict[str, pa.Table]:
    """The tables `cam_features` and `cam_trust` of one run.

    Args:
        keys: study_id, split and architecture; they go into every row.
        examined: the network and its test images.
        cams: table `cams` of these images, in their order.
        config: for `cam_share` and `trust_images`.
        seed: the run's own seed; the same, the same tables. Torch's generators stay as they are.
    """
    malignant = cams.filter(pc.equal(cams["target_class"], _MALIGNANT))
    maps = stored_maps(malignant) if malignant.num_rows else np.empty((0, 1, 1), np.float32)
    labels = examined.examples.labels.tolist()
    sample = drawn(examined.image_ids, labels, config.trust_images)
    checked = network_checks(examined, maps, sample, seed)
    features, trust = [], []
    for i, image_id in enumerate(examined.image_ids):
        grey = _grey(examined.examples, i)
        features += feature_rows(image_id, labels[i], maps[i], grey)
        figures = map_checks(maps[i], grey, examined.masks[i], config.cam_share)
        named = {**keys, "image_id": image_id, "label": labels[i]}
        trust.append(named | figures | checked.get(i, dict.fromkeys(_DRAWN)))
    return {
        "cam_features": features_table(keys, features),
        "cam_trust": rows_to_table("cam_trust", trust),
    }


def _grey(examples: Examples, position: int) -> npt.NDArray[np.uint8]:
    row = examples.pixels[int(examples.rows[position])]
    return np.asarray(row.cpu() if isinstance(row, Tensor) else row)


def drawn(image_ids: Sequence[str], labels: Sequence[int], n: int) -> list[int]:
    """Positions of the images that the network's checks are done for, ascending.

    Those with the smallest ids of either class, in turn (malignant first) while both last: ids are
    hashes of the file, so that this is as good as drawing lots and needs no seed.
    """
    by_class = [
        sorted((i for i, label in enumerate(labels) if label == of), key=lambda i: image_ids[i])
        for of in (1, 0)
    ]
    ranked = [(rank, of, i) for of, part in enumerate(by_class) for rank, i in enumerate(part)]
    return sorted(i for _, _, i in sorted(ranked)[:n])


def map_checks(cam: Maps, grey: npt.NDArray[np.uint8], mask: Masks | None, share: float) -> Figures:
    """Where one map's energy lies: the columns of `cam_trust` that need no network.

    Args:
        cam: float32 (h, w), at least 0.
        grey: uint8 (H, W), the network's input before normalisation.
        mask: the nodule's, bool, of any size; None: there is none.
        share: share of the peak at which the region is cut.
    """
    maps, marks = cam[None], burned_in(grey)[None]
    figures: Figures = {
        "is_empty": not cam.any(),
        "border_energy": float(faithfulness.border_energy(maps, BORDER_SHARE)[0]),
        "border_area": 1 - (1 - 2 * BORDER_SHARE) ** 2,
        "mark_energy": float(faithfulness.energy_inside(maps, marks)[0]),
        "mark_area": float(faithfulness.area_share(marks)[0]),
    }
    return figures | _nodule_checks(cam, mask, share)


def _nodule_checks(cam: Maps, mask: Masks | None, share: float) -> Figures:
    names = ("nodule_area", "nodule_energy", "nodule_hit", "nodule_iou", "nodule_iou_chance")
    if mask is None:
        return dict.fromkeys(names)
    maps, masks = cam[None], mask[None]
    values = (
        float(faithfulness.area_share(masks)[0]),
        float(faithfulness.energy_inside(maps, masks)[0]),
        float(faithfulness.pointing_hits(maps, masks)[0]),
        faithfulness.region_iou(cam, mask, share),
        faithfulness.region_iou_chance(cam, mask, share),
    )
    return dict(zip(names, values, strict=True))


def network_checks(
    examined: Examined, maps: Maps, sample: Sequence[int], seed: int
) -> dict[int, Figures]:
    """Whether maps follow the network: the columns of `cam_trust` that need it, by position.

    Args:
        examined: the network, which stays as it is, and the images.
        maps: float32 (n, h, w), the maps of all images.
        sample: positions of the images to check.
        seed: seed of the random weights and of the random maps.
    """
    if not sample:
        return {}
    correlations = _randomised(examined, maps, sample, seed)
    return {
        i: {"randomised_correlation": correlation, **_curves(examined, maps[i], i, seed)}
        for i, correlation in zip(sample, correlations, strict=True)
    }


def _randomised(examined: Examined, maps: Maps, sample: Sequence[int], seed: int) -> list[float]:
    """Mean over the copies of each image's correlation; NaN where no copy's map has a ranking."""
    examples = examined.examples
    some = Examples(examples.pixels, examples.rows[list(sample)], examples.labels[list(sample)])
    found = []
    for copy in range(RANDOMISATIONS):
        own = stream_seed(seed, _WEIGHTS_STREAM, copy)
        fresh = faithfulness.randomised(examined.model, examined.architecture, own)
        others = [
            grad_cams(fresh, examined.architecture, images)[1][:, _MALIGNANT].numpy()
            for images in image_batches(some, examined.device)
        ]
        found.append(faithfulness.rank_correlations(maps[list(sample)], np.concatenate(others)))
    values = np.array(found)
    defined = np.isfinite(values)
    total, count = np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(sample), np.nan), where=count > 0)
    return [float(value) for value in mean]


def _curves(examined: Examined, cam: Maps, position: int, seed: int) -> Figures:
    """Areas under the curves in the map's order, and in that of a random map as its pair."""
    image = examined.examples.grey(torch.tensor([position]))[0, 0].cpu().numpy()
    key = int(examined.image_ids[position][:15], 16)
    generator = np.random.default_rng(stream_seed(seed, _MAP_STREAM, key))
    chance = generator.random(cam.shape, dtype=np.float32)
    figures: Figures = {}
    for name, curve in (
        ("deletion", faithfulness.deletion_curve),
        ("insertion", faithfulness.insertion_curve),
    ):
        for suffix, order in (("", cam), ("_random", chance)):
            area = curve(_scores(examined), image, order, steps=CURVE_STEPS).auc
            figures[name + suffix] = area if order.any() else float("nan")
    return figures


def _scores(examined: Examined) -> faithfulness.Scores:
    def scores(images: Maps) -> npt.NDArray[np.floating]:
        batch = normalise(torch.from_numpy(images).unsqueeze(1).to(examined.device))
        with torch.inference_mode():
            logits = examined.model(batch)
        probability: npt.NDArray[np.floating] = (
            torch.softmax(logits.double(), dim=1)[:, _MALIGNANT].cpu().numpy()
        )
        return probability

    return scores
