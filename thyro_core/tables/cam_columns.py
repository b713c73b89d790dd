"""Columns of the tables on activation maps: the features of regions, and checks of the maps.

The docs name the declared constants that their figures rest on, so both stand here.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

from thyro_core.config import Architecture
from thyro_core.tables.column_types import REAL

RING = 0.05
"""Width of the surroundings, a share of the square's side."""

GREY_BINS = 32
"""Bins of 8 grey levels each, for the entropy and for co-occurrence."""

GLCM_DISTANCES: tuple[int, ...] = (1, 2)
"""Distances of co-occurring pixels [pixels], along rows, columns or both (chessboard)."""

_OVER_GLCMS = f"mean over distances {GLCM_DISTANCES} pixels and 4 directions"
_DOCS: dict[str, dict[str, str]] = {
    "shape": {
        "area": "Area, share of the image; above 0 to 1.",
        "perimeter": "Perimeter (Crofton, 4 directions), roots of the image's area; edges count.",
        "circularity": "4 pi area / perimeter^2: 1 for a disc, less for ragged or long outlines; "
        "small regions can exceed 1 by rounding.",
        "eccentricity": "Eccentricity of the ellipse of equal second moments, 0 to 1.",
        "solidity": "Area / area of the convex hull: 1 for convex, less with bays; 0 to 1.",
        "extent": "Area / area of the upright bounding box, 0 to 1.",
        "aspect_ratio": "Height / width of the upright bounding box, in pixels of the image as it "
        "came; above 1: taller than wide.",
        "compactness": "area^2 / (2 pi x second moment about the centroid): 1 for a disc, less the "
        "further area lies from its centre; unlike circularity, blind to a rough outline.",
        "orientation": "Angle of the long axis from the horizontal [rad]: 0 lying, pi/2 upright; "
        "left and right leaning are the same, so nothing wraps around; NaN without a long axis.",
    },
    "intensity": {
        "grey_mean": "Mean grey level inside, 0 to 255.",
        "grey_sd": "Standard deviation (population) of the grey level inside, 0 to 255.",
        "grey_contrast": f"Mean grey level inside - in a ring of {RING} sides around, -255 to 255 "
        "(gain adds to log-compressed ultrasound and cancels); NaN without surroundings.",
        "grey_entropy": f"Shannon entropy of {GREY_BINS} grey bins inside [bit], 0 to "
        f"{math.log2(GREY_BINS):g}.",
    },
    "texture": {
        "glcm_contrast": f"GLCM contrast, squared bins; {_OVER_GLCMS}.",
        "glcm_dissimilarity": f"GLCM dissimilarity, bins; {_OVER_GLCMS}.",
        "glcm_homogeneity": f"GLCM homogeneity (inverse difference), 0 to 1; {_OVER_GLCMS}.",
        "glcm_energy": f"GLCM energy (root of the angular second moment); {_OVER_GLCMS}.",
        "glcm_correlation": f"GLCM correlation, -1 to 1; {_OVER_GLCMS}; NaN: one bin only.",
    },
}

FEATURES: Mapping[str, str] = {name: family for family, docs in _DOCS.items() for name in docs}
"""Every feature's family: shape, intensity or texture; in the order of the columns."""

FEATURE_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = tuple(
    (name, pa.float64(), _DOCS[family][name]) for name, family in FEATURES.items()
)
"""A column a feature, with its doc, in the order of `FEATURES`."""

BORDER_SHARE = 0.1
"""Width of the frame along the image's border, a share of the side: rulers and text stand there."""

CASCADE: Mapping[Architecture, tuple[str, ...]] = MappingProxyType(
    {
        "resnet18": ("fc", "layer4", "layer3", "layer2", "conv1"),
        "alexnet": ("classifier.1", "features.10", "features.8", "features.6", "features.0"),
        "vgg16": ("classifier.0", "features.24", "features.17", "features.10", "features.0"),
        "inception_v3": ("fc", "Mixed_7c", "Mixed_7a", "Mixed_6a", "Conv2d_1a_3x3"),
    }
)
"""Stages of the weight randomisation: the lowest layer that is drawn anew, the head first."""

ANY_CASCADE: tuple[str, ...] = (
    "head", "last block", "last third of blocks", "last two thirds of blocks", "all blocks",
)  # fmt: skip
"""The stages of a network that `CASCADE` does not name, by what is drawn anew."""

CASCADE_COLUMNS: tuple[str, ...] = tuple(f"cascade_{stage}" for stage in range(1, 6))
"""A column a stage of `CASCADE`."""

NODULE_MEASURES: tuple[str, ...] = ("nodule_energy", "nodule_hit", "nodule_iou")
"""How well a map finds the nodule; each has its baselines in `_permuted` and `_mean_map`."""

CURVE_STEPS = 10
"""Steps in which the pixels of an image are removed or brought back."""

_MASK = "null: no mask"
_NOT_SAMPLED = "null: not drawn for this check"
_EMPTY = "NaN: empty map"

TRUST_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("is_empty", pa.bool_(), "Whether the map is zero everywhere: no check can judge it."),
    ("nodule_area", REAL, f"Share of the image within the nodule's mask, 0 to 1; {_MASK}."),
    ("nodule_energy", REAL, f"Share of the map's sum within the mask; {_MASK}; {_EMPTY}."),
    (
        "nodule_hit",
        REAL,
        f"1: the map's peak lies in the mask, 0: not (equal peaks share); {_MASK}; {_EMPTY}.",
    ),
    (
        "nodule_iou",
        REAL,
        (
            "Intersection over union of mask and region at the study's cam_share; "
            f"{_MASK}; {_EMPTY}."
        ),
    ),
    (
        "nodule_aspect",
        REAL,
        (
            "Height / width of the upright bounding box of the mask's largest part, in pixels of "
            "the image as it came, to a pixel of the packed mask; above 1: taller than wide (if "
            f"pixels are square); {_MASK}."
        ),
    ),
    (
        "nodule_tallest",
        REAL,
        (
            "Likewise, of the part of the mask that has the largest; parts below a tenth of the "
            f"largest part's area are left out; {_MASK}."
        ),
    ),
    *(
        (
            f"{measure}_permuted",
            REAL,
            (
                f"Baseline of {measure}: this map over other images' masks + their maps over this "
                f"mask - the mean of all such pairs of the split; {_MASK}; {_EMPTY}."
            ),
        )
        for measure in NODULE_MEASURES
    ),
    *(
        (
            f"{measure}_mean_map",
            REAL,
            f"Baseline of {measure}: the mean map of other images in the split; {_MASK}; {_EMPTY}.",
        )
        for measure in NODULE_MEASURES
    ),
    (
        "border_energy",
        REAL,
        (
            f"Share of the map's sum in a frame of {BORDER_SHARE} sides along the border; a map "
            f"without preference has border_area, which is no level of chance; {_EMPTY}."
        ),
    ),
    ("border_area", REAL, "Share of the image in that frame."),
    (
        "mark_energy",
        REAL,
        (
            "Share of the map's sum on burned-in marks (text etc.), 0 without any; chance: "
            f"mark_energy_permuted and mark_energy_mean_map, not mark_area; {_EMPTY}."
        ),
    ),
    (
        "mark_area",
        REAL,
        "Share of the image on burned-in marks, see `thyro_core.imaging.annotations`.",
    ),
    (
        "mark_energy_permuted",
        REAL,
        (
            "Baseline of mark_energy: this map over other images' marks + their maps over these "
            f"marks - the mean of all such pairs of the split; NaN: no marks; {_EMPTY}."
        ),
    ),
    (
        "mark_energy_mean_map",
        REAL,
        (
            "Baseline of mark_energy: the mean map of other images with marks in the split; "
            f"NaN: no marks; {_EMPTY}."
        ),
    ),
    *(
        (
            name,
            REAL,
            (
                "Spearman's correlation with the maps of the network drawn anew from its head down "
                f"to stage {stage} of `thyro_core.tables.cam_columns.CASCADE` (`ANY_CASCADE` for a "
                "network that it does not name), mean of two draws; "
                f"0: the map follows the weights, 1: it ignores them; {_EMPTY}; {_NOT_SAMPLED}."
            ),
        )
        for stage, name in enumerate(CASCADE_COLUMNS, start=1)
    ),
    (
        "deletion",
        REAL,
        (
            "Area under the probability of malignant while the map's highest pixels give way to "
            f"the image's mean first, {CURVE_STEPS} steps; below deletion_random: the map shows "
            f"what it rests on; {_EMPTY}; {_NOT_SAMPLED}."
        ),
    ),
    ("deletion_random", REAL, f"The same in the order of a random map: chance; {_NOT_SAMPLED}."),
    (
        "insertion",
        REAL,
        (
            "Area under the probability of malignant while the map's highest pixels come back to "
            "the blurred image first; above insertion_random: the map shows what it rests on; "
            f"{_EMPTY}; {_NOT_SAMPLED}."
        ),
    ),
    ("insertion_random", REAL, f"The same in the order of a random map: chance; {_NOT_SAMPLED}."),
)
"""Columns of `cam_trust` that check one image's map."""

CHECK_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("measure", pa.string(), "A column of `cam_trust`."),
    (
        "baseline",
        pa.string(),
        "permuted, mean_map, area, random_order or none: what it is compared with.",
    ),
    ("value", REAL, "Mean over images, each averaged over its splits; NaN: no image."),
    ("ci_low", REAL, "Lower end of its 95 % interval, patients as units."),
    ("ci_high", REAL, "Upper end; NaN: fewer than 5 patients."),
    ("reference", REAL, "Mean of the baseline over the same images; NaN: none."),
    ("lead", REAL, "Value - reference; NaN: no baseline."),
    ("lead_low", REAL, "Lower end of its 95 % interval, patients as units."),
    ("lead_high", REAL, "Upper end of the lead's interval."),
    ("p", REAL, "Two-sided P of the lead; NaN: no spread, or fewer than 5 patients."),
    (
        "p_adjusted",
        REAL,
        "Holm's, over the leads of one question: nodule, shortcuts, or pixels removed.",
    ),
    ("n", pa.int32(), "Images with the check and its baseline."),
    ("patients", pa.int32(), "Patients (groups where none are given) of these images."),
)
"""What a check of maps amounts to over images, after the keys."""
