"""How often the test of shape's lead over another family rejects at 0.05 where there is no lead.

    python -m tests.bench.families [repeats]

`noise`: no feature tells anything of the class. `equal`: the first feature of shape and that of
intensity tell equally much (1.2 standard deviations). 60 patients, a third malignant, of one image,
or of three that are nearly alike. `folds` is what stood before: the t-test over folds with
Nadeau and Bengio's variance.
"""

import sys

import numpy as np
import pyarrow as pa

from thyro_core.evaluation.uncertainty import nadeau_bengio
from thyro_core.explain import families
from thyro_core.tables.cam_columns import FEATURES
from thyro_core.tables.schemas import TABLES, rows_to_table

_Case = tuple[pa.Table, dict[str, str | None]]


def noise(generator: np.random.Generator, patients: int, images: int, effect: float = 0.0) -> _Case:
    """Rows of `cam_features` of one split, and the patient of each image."""
    patient = np.repeat(np.arange(patients), images)
    label = (patient % 3 == 0).astype(int)
    values = generator.normal(size=(patients, len(FEATURES)))[patient]
    values += generator.normal(0, 0.2, values.shape) * (images > 1)
    for family in ("shape", "intensity"):
        values[:, list(FEATURES.values()).index(family)] += effect * label
    kinds = {field.name: field.type for field in TABLES["cam_features"].schema}
    fixed = {"study_id": "s", "split": 0, "architecture": "resnet18", "threshold": 0.5}
    rows = [
        dict.fromkeys(kinds) | fixed
        | {"image_id": f"i{i:04}", "label": int(label[i])}
        | dict(zip(FEATURES, values[i].tolist(), strict=True))
        for i in range(len(patient))
    ]  # fmt: skip
    names: dict[str, str | None] = {f"i{i:04}": f"p{of}" for i, of in enumerate(patient)}
    return rows_to_table("cam_features", rows), names


def folds_p(case: _Case, seed: int) -> float:
    """P of shape's lead over intensity by the corrected t-test over folds."""
    ((_, images),) = families.images_by_share(*case)
    label = images["label"].to_numpy()
    folds = list(families._cross_validation_folds(images, seed))
    order = np.arange(len(images))[None, :]
    shape, other = (
        families._fold_aucs(
            families._whole_and_scaled(images, families._features_of(family)), label, folds, order
        )[:, 0]
        for family in ("shape", "intensity")
    )
    ratio = float(np.mean([len(test) / len(train) for train, test in folds]))
    return nadeau_bengio(shape - other, ratio).p


def main() -> None:
    """Print the table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(f"{repeats} sets each; share of P <= 0.05")
    for name, effect in (("noise", 0.0), ("equal", 1.2)):
        for images in (1, 3):
            own, before = [], []
            for seed in range(repeats):
                case = noise(np.random.default_rng([seed, images]), 60, images, effect)
                own.append(families.family_auc(*case, seed)[1].p <= 0.05)
                before.append(folds_p(case, seed) <= 0.05)
            print(
                f"{name}, {images} images a patient: permutation {np.mean(own):.3f}, "
                f"folds {np.mean(before):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
