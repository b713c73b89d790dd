"""One network's maps of its test images: their features, and how faithful they are to the network.

All maps are taken as the table `cams` stores them, so that a reader of the table computes the same.
Features and checks are of the malignant class's map: the true class's would reveal the label.
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
from thyro_core.explain.features import feature_rows, features_table, outline_aspects
from thyro_core.explain.localisation import mark_checks, nodule_checks
from thyro_core.explain.maps import cams_table, stored_maps
from thyro_core.imaging.annotations import annotation_mask
from thyro_core.tables.cam_columns import BORDER_SHARE, CASCADE_COLUMNS, CURVE_STEPS
from thyro_core.tables.schemas import rows_to_table
from thyro_core.training.batches import Examples, normalise, stream_seed
from thyro_core.training.inference import image_batches
from thyro_core.training.models import last_layer
from thyro_core.types import BoolArray, Float32Array

CheckValues = dict[str, float | bool | None]
"""Values of some columns of `cam_trust`, by name."""

_MALIGNANT = 1
_WEIGHTS_STREAM, _MAP_STREAM, _SAMPLE_STREAM = 0xCA3, 0xCA4, 0xCA5
_NETWORK_COLUMNS = (
    *CASCADE_COLUMNS, "deletion", "deletion_random", "insertion", "insertion_random",
)  # fmt: skip


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network and the n images it was tested on."""

    model: nn.Module
    architecture: Architecture
    device: torch.device
    examples: Examples
    image_ids: Sequence[str]
    masks: Sequence[BoolArray | None]
    """Nodule mask of each image, all of one size; None: it has none."""
    groups: Sequence[str]
    """What each image belongs to: one patient's images share a group."""
    height_to_width: Sequence[float]
    """Height over width of what each image's square shows; 1 where it is not squashed."""


def explanation_tables(
    keys: Mapping[str, str | int],
    network: TrainedNetwork,
    maps: Float32Array,
    config: StudyConfig,
    *,
    seed: int,
) -> dict[str, pa.Table]:
    """The tables `cams`, `cam_features` and `cam_trust` of one run.

    Args:
        keys: study_id, split and architecture; they go into every row.
        network: the network and its test images.
        maps: raw maps of these images, in their order: float32, n x 2 x h x w.
        config: for `cam_share` and `trust_images`.
        seed: the run's own seed: the same seed gives the same tables. Torch's generators are left
            as they are.

    Raises:
        CamError: a map is missing, or holds NaN, infinity or a negative value.
    """
    cams = cams_table(keys, network.image_ids, last_layer(network.architecture), maps)
    of_malignant = cams.filter(pc.equal(cams["target_class"], _MALIGNANT))
    map_values = np.empty((0, 1, 1), np.float32)
    if of_malignant.num_rows:
        map_values = stored_maps(of_malignant)
    labels = network.examples.labels.tolist()
    sample = network_sample(network.image_ids, labels, config.trust_images, seed)
    checks = network_checks(network, map_values, sample, seed)
    nodules = nodule_checks(map_values, network.masks, network.groups, config.cam_share)
    feature_values, check_rows = [], []
    covers = np.zeros(map_values.shape)
    for i, image_id in enumerate(network.image_ids):
        pixels = network.examples.pixels[int(network.examples.rows[i])]
        grey = np.asarray(pixels.cpu() if isinstance(pixels, Tensor) else pixels)
        feature_values += feature_rows(
            image_id, labels[i], map_values[i], grey, height_to_width=network.height_to_width[i]
        )
        marks = annotation_mask(grey)
        covers[i] = faithfulness.cell_cover(marks[None], *map_values.shape[1:])[0]
        mask = network.masks[i]
        aspects: dict[str, float | None] = {"nodule_aspect": None, "nodule_tallest": None}
        if mask is not None:
            aspects |= outline_aspects(mask, network.height_to_width[i])
        values = map_checks(map_values[i], marks) | nodules[i] | aspects
        row = {**keys, "image_id": image_id, "label": labels[i]}
        check_rows.append(row | values | checks.get(i, dict.fromkeys(_NETWORK_COLUMNS)))
    baselines = mark_checks(map_values, covers, network.groups)
    return {
        "cams": cams,
        "cam_features": features_table(keys, feature_values),
        "cam_trust": rows_to_table(
            "cam_trust", [row | own for row, own in zip(check_rows, baselines, strict=True)]
        ),
    }


def network_sample(image_ids: Sequence[str], labels: Sequence[int], n: int, seed: int) -> list[int]:
    """Positions of the at most n images that `network_checks` are made for, ascending.

    Drawn at random within each class, alternating (malignant first) while both last: a mean over
    them weighs the classes alike, whatever the prevalence.

    Args:
        image_ids: the images.
        labels: their labels.
        n: how many to draw.
        seed: the run's own seed; each run draws its own images, whatever their order.
    """
    ranks = []
    for order, value in enumerate((1, 0)):
        part = sorted((i for i, of in enumerate(labels) if of == value), key=image_ids.__getitem__)
        draws = np.random.default_rng(stream_seed(seed, _SAMPLE_STREAM, value))
        ranks += [(rank, order, part[k]) for rank, k in enumerate(draws.permutation(len(part)))]
    return sorted(i for *_, i in sorted(ranks)[:n])


def map_checks(cam: Float32Array, marks: BoolArray) -> CheckValues:
    """Where one map's energy lies: the columns of `cam_trust` that need no network and no mask.

    Args:
        cam: float32 (h, w), at least 0.
        marks: bool (H, W), burned-in marks as `annotation_mask` gives them.
    """
    maps, annotations = cam[None], marks[None]
    return {
        "is_empty": not cam.any(),
        "border_energy": float(faithfulness.border_energy(maps, BORDER_SHARE)[0]),
        "border_area": 1 - (1 - 2 * BORDER_SHARE) ** 2,
        "mark_energy": float(faithfulness.energy_inside(maps, annotations)[0]),
        "mark_area": float(faithfulness.area_share(annotations)[0]),
    }


def network_checks(
    network: TrainedNetwork, maps: Float32Array, sample: Sequence[int], seed: int
) -> dict[int, CheckValues]:
    """Whether maps follow the network: the columns of `cam_trust` that need it, by position.

    Args:
        network: the network, which is left as it is, and its images.
        maps: float32 (n, h, w), the maps of all images.
        sample: positions of the images to check.
        seed: seed of the weights that are drawn anew and of the random maps.
    """
    if not sample:
        return {}
    correlations = _cascade_correlations(network, maps, sample, seed)
    return {
        i: {**values, **_curve_areas(network, maps[i], i, seed)}
        for i, values in zip(sample, correlations, strict=True)
    }


def _cascade_correlations(
    network: TrainedNetwork, maps: Float32Array, sample: Sequence[int], seed: int
) -> list[CheckValues]:
    """Each image's correlation at each stage, mean of two draws; NaN where neither is defined."""
    examples = network.examples
    subset = Examples(examples.pixels, examples.rows[list(sample)], examples.labels[list(sample)])
    weights_seed = stream_seed(seed, _WEIGHTS_STREAM, 0)
    batches = [
        faithfulness.cascade_maps(network.model, network.architecture, images, weights_seed)
        for images in image_batches(subset, network.device)
    ]
    by_stage = [
        _mean_correlations(maps[list(sample)], np.concatenate(stage))
        for stage in zip(*batches, strict=True)
    ]
    return [
        dict(zip(CASCADE_COLUMNS, values, strict=True)) for values in zip(*by_stage, strict=True)
    ]


def _mean_correlations(maps: Float32Array, draws: Float32Array) -> list[float]:
    values = np.stack(
        [faithfulness.rank_correlations(maps, draws[:, k]) for k in range(draws.shape[1])]
    )
    is_defined = np.isfinite(values)
    total, count = np.where(is_defined, values, 0).sum(axis=0), is_defined.sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(maps), np.nan), where=count > 0)
    return [float(value) for value in mean]


def _curve_areas(
    network: TrainedNetwork, cam: Float32Array, position: int, seed: int
) -> CheckValues:
    """Areas under the curves in the map's order and in that of a random map, which is chance."""

    def scores(images: Float32Array) -> npt.NDArray[np.floating]:
        batch = normalise(torch.from_numpy(images).unsqueeze(1).to(network.device))
        with torch.inference_mode():
            logits = network.model(batch)
        probability: npt.NDArray[np.floating] = (
            torch.softmax(logits.double(), dim=1)[:, _MALIGNANT].cpu().numpy()
        )
        return probability

    image = network.examples.grey(torch.tensor([position]))[0, 0].cpu().numpy()
    key = int(network.image_ids[position][:15], 16)
    generator = np.random.default_rng(stream_seed(seed, _MAP_STREAM, key))
    random_map = generator.random(cam.shape, dtype=np.float32)
    values: CheckValues = {}
    for name, curve in (
        ("deletion", faithfulness.deletion_curve),
        ("insertion", faithfulness.insertion_curve),
    ):
        for suffix, order in (("", cam), ("_random", random_map)):
            area = curve(scores, image, order, steps=CURVE_STEPS).auc
            values[name + suffix] = area if order.any() else float("nan")
    return values
