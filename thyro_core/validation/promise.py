"""What became of a model's conformal bands on external images: promise and share."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from thyro_core.evaluation.bounded import NO_INTERVAL, Interval, proportion_interval
from thyro_core.evaluation.conformal import breach_share, score_bands
from thyro_core.registry.bundle import Bundle
from thyro_core.types import BoolArray
from thyro_core.validation.figures import figure_row
from thyro_core.validation.sample import Sample, Units
from thyro_core.validation.wording import estimate, p_text

EXCHANGEABILITY = "exchangeability"
"""The test of a promise: were these patients exchangeable with those of the calibration?"""

PROMISE_P_BOUND = 0.05
"""P below which a promise is called broken."""

CLASS_OF_BAND: Mapping[str, tuple[int, str]] = {"routine": (1, "malignant"), "refer": (0, "benign")}
"""Which class each band promises to be kept from."""


def promise_rows(external: Sample, internal: Sample, bundle: Bundle) -> Iterator[dict[str, Any]]:
    """Rows of `evaluation_metrics` on the bands; none where the threshold makes them.

    By band: the share of images of the class that are called so, that of patients with such an
    image, tested, and the declared share.

    Args:
        external: the external images.
        internal: the model's own.
        bundle: the model.
    """
    if bundle.cuts is None:
        return
    outside, inside = (score_bands(each.probability, bundle.cuts) for each in (external, internal))
    for band, (value, name) in CLASS_OF_BAND.items():
        own, other = _class_units(external, value), _class_units(internal, value)
        calls = (outside == band)[external.ensemble.label == value]
        called_inside = (inside == band)[internal.ensemble.label == value]
        row = figure_row(f"{band}_of_{name}", _image_share(calls, own), own)
        share, ends = _image_share(called_inside, other)
        yield row | _internal_columns(share, ends, len(called_inside)) | _no_test()
        promise = bundle.card["bands"][band]
        facts = {"calibration": promise["patients"], "share": promise["share"]}
        breach = breach_share(calls, own.cluster, **facts)
        apparent = breach_share(called_inside, other.cluster, **facts)
        figure = breach.value, Interval(breach.low, breach.high)
        row = figure_row(f"{band}_patients", figure, own)
        ends = Interval(apparent.low, apparent.high)
        yield (
            row
            | _internal_columns(apparent.value, ends, apparent.n)
            | {"level": "set", "n": breach.n, "p": breach.p, "p_adjusted": breach.p}
            | {"method": EXCHANGEABILITY if breach.n else None}
        )
        row = figure_row(f"{band}_promised", (promise["share"], NO_INTERVAL), own)
        yield row | {"level": "set", "n": breach.n} | _no_test()


def _class_units(sample: Sample, value: int) -> Units:
    inside = sample.ensemble.label == value
    probability = sample.probability[inside]
    return Units(
        sample.ensemble.label[inside],
        probability,
        probability,
        sample.ensemble.margin[inside],
        sample.ensemble.unit[inside],
    )


def _image_share(calls: BoolArray, units: Units) -> tuple[float, Interval]:
    if not calls.size:
        return float("nan"), NO_INTERVAL
    return float(calls.mean()), proportion_interval(calls, units.cluster.astype(str))


def _internal_columns(value: float, ends: Interval, n: int) -> dict[str, Any]:
    return {
        "internal": float(value),
        "internal_low": float(ends.low),
        "internal_high": float(ends.high),
        "internal_n": n,
    }


def _no_test() -> dict[str, float]:
    return {"p_adjusted": np.nan}


def promise_sentences(figures: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[str]:
    """Whether each promise was broken here; nothing of a model without one.

    Args:
        figures: (adaptation, metric) -> row of `evaluation_metrics`, by image and of the set.
    """
    for band, (_, name) in CLASS_OF_BAND.items():
        row = figures.get(("none", f"{band}_patients"))
        if row is None:
            continue
        share = figures["none", f"{band}_promised"]["value"]
        promise = (
            f"that of patients with {name} images at most {100 * share:.6g} % have a {name} image "
            f"called {band}"
        )
        n = row["n"]
        if not n:
            yield f"The promise {promise} is not put to the test: no {name} image is here."
            continue
        images = figures["none", f"{band}_of_{name}"]
        facts = (
            f"{round(row['value'] * n)} of {n} have one, {estimate(row)}; of {name} images "
            f"{estimate(images)} are called so"
        )
        if is_broken(row, share):
            yield (
                f"The promise {promise} was BROKEN here: {facts}. Patients exchangeable with "
                f"those of the calibration give as many with P {p_text(row['p'])}."
            )
        elif row["ci_high"] <= share:
            yield f"The promise {promise} was kept here: {facts}."
        else:
            yield (
                f"The promise {promise} is not shown to be broken here (P {p_text(row['p'])}), nor "
                f"shown to hold: {facts}."
            )


def is_broken(row: Mapping[str, Any], share: float) -> bool:
    """Whether more patients than was declared have an image called so, and more than chance allows.

    Args:
        row: of the patients.
        share: the declared one.
    """
    return bool(row["value"] > share and row["p"] < PROMISE_P_BOUND)


def promise_words(figures: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """The same in few words, for a list; empty: there is no promise."""
    words = []
    for band, (_, name) in CLASS_OF_BAND.items():
        row = figures.get(("none", f"{band}_patients"))
        if row is not None and row["n"]:
            share = figures["none", f"{band}_promised"]["value"]
            state = "BROKEN" if is_broken(row, share) else "not shown to be broken"
            words.append(
                f"; promise of {band} {state}: {row['value']:.3f} of patients with {name} "
                f"images, declared {share:g}"
            )
    return "".join(words)
