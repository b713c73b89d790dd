"""What a card says, from tables of which the answers are known."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from tests.support.cards import FIGURE, FIT
from tests.unit.evaluation.test_out_of_fold import rows
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import (
    LOWEST,
    calibration_quality,
    cross_fitted_calibration,
    fit_temperature,
)
from thyro_core.evaluation.metrics import METRICS
from thyro_core.evaluation.threshold import cross_fitted_threshold, threshold_for
from thyro_core.registry.card import CardCalibration, Figure, OperatingPoint
from thyro_core.registry.card_figures import (
    calibration_figures,
    data_figures,
    metric_figures,
    number,
    operating_figures,
    versions_of,
    warnings_of,
)
from thyro_core.tables import schemas

RNG = np.random.default_rng(0)
ROWS = rows(
    *(
        (split, f"i{split}{i}", f"g{split}{i}", i % 2, float(RNG.normal(2 * (i % 2) - 1, 1.5)))
        for split in range(3)
        for i in range(30)
    )
)


def test_calibration_is_the_temperatures() -> None:
    found = calibration_figures(ROWS)
    assert found.temperature == fit_temperature(ROWS.label, ROWS.margin)
    before = calibration_quality(ROWS.label, ROWS.margin, 1.0)
    after = calibration_quality(ROWS.label, ROWS.margin, found.temperature)
    assert (found.before.nll, found.before.brier, found.before.ece) == before
    assert (found.after.nll, found.after.brier, found.after.ece) == after
    assert after.nll <= before.nll
    crossed = cross_fitted_calibration(ROWS)
    assert found.cross_fitted_after.nll == crossed.after.nll
    assert found.cross_fitted_before.ece == crossed.before.ece
    assert found.cross_fitted_n == 3


def test_the_operating_point_is_that_of_the_scaled_probabilities() -> None:
    found = operating_figures(ROWS, 2.0, 0.9)
    probability = ROWS.probability(2.0)
    assert found.threshold == threshold_for(ROWS.label, probability, 0.9)
    point = cross_fitted_threshold(ROWS, probability, 0.9)
    mean = point.sensitivity
    assert found.sensitivity == Figure(value=mean.mean, low=mean.low, high=mean.high, n=3)
    exact = point.image_specificity
    assert found.image_specificity == Figure(
        value=exact.value, low=exact.low, high=exact.high, n=exact.n
    )
    assert found.target_sensitivity == 0.9
    assert "cross-fitted" in found.method


def test_a_temperature_moves_the_threshold_but_not_what_it_calls() -> None:
    one, two = operating_figures(ROWS, 1.0, 0.9), operating_figures(ROWS, 3.0, 0.9)
    assert one.threshold != two.threshold
    assert one.sensitivity == two.sensitivity
    assert one.specificity == two.specificity


def test_without_a_malignant_image_there_is_no_threshold() -> None:
    with pytest.raises(InputError, match="expected malignant images among the held-out"):
        operating_figures(rows((0, "a", "a", 0, 1.0), (1, "b", "b", 0, 1.0)), 1.0, 0.9)


def test_metrics_are_the_means_over_splits() -> None:
    blank = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
    given = [
        blank | {"split": split, "architecture": architecture, "metric": metric, "value": value,
                 "ci_low": 0.1, "ci_high": None, "n": 3}
        for place, metric in enumerate(METRICS)
        for split, architecture, value in (
            (0, "vgg16", 0.9), (None, "vgg16", place / 10), (None, "alexnet", 0.7),
        )
    ]  # fmt: skip
    given[1]["value"] = math.nan
    table = pa.Table.from_pylist(given, schema=schemas.TABLES["metrics"].schema)
    found = metric_figures(table, "vgg16")
    assert list(found) == list(METRICS)
    assert found["auc"] == Figure(value=None, low=0.1, high=None, n=3)
    assert [found[name].value for name in METRICS[1:]] == [i / 10 for i in range(1, 10)]


def test_data_is_counted_once_an_image() -> None:
    splits = pa.table(
        {
            "image_id": ["b", "a", "b", "a", "c"],
            "patient_id": ["p", None, "p", None, "q"],
            "label": [1, 0, 1, 0, 0],
        }
    )
    found = data_figures("m1", splits)
    assert (found.images, found.malignant, found.patients) == (3, 1, 2)
    # printf 'a 0\nb 1\nc 0\n' | sha256sum
    assert found.sha256 == "dc638ccd4915386c662395e6d05100fb32635b19e3d2a5937b0aabf94766a8e1"
    assert found.sha256 == data_figures("m2", splits.take([4, 3, 2])).sha256
    assert found.sha256 != data_figures("m1", splits.slice(0, 4)).sha256


def test_versions_that_differ_are_all_named() -> None:
    runs = pa.table(
        {
            "versions": [json.dumps({"torch": "2", "ray": "1"}), json.dumps({"torch": "3"}), None],
            "git_commit": ["b", "a", None],
        }
    )
    assert versions_of(runs) == ({"ray": "1", "torch": "2, 3"}, ("a", "b"))


def point(**changes: object) -> OperatingPoint:
    figures = dict.fromkeys(
        ("sensitivity", "specificity", "image_sensitivity", "image_specificity"),
        FIGURE | {"value": 0.95},
    )
    given = {"method": "m", "target_sensitivity": 0.95, "threshold": 0.5} | figures | changes
    return OperatingPoint.model_validate(given)


def fitted(temperature: float) -> CardCalibration:
    each = dict.fromkeys(("before", "after", "cross_fitted_before", "cross_fitted_after"), FIT)
    return CardCalibration.model_validate(each | {"temperature": temperature, "cross_fitted_n": 3})


MANY = rows(*((0, f"i{i}", f"g{i}", 1, 0.0) for i in range(40)))


def test_warnings_say_what_a_reader_must_not_miss() -> None:
    assert warnings_of(MANY, fitted(1.0), point()) == []
    (bound,) = warnings_of(MANY, fitted(LOWEST), point())
    assert bound.startswith("the temperature is at its bound 0.25")
    assert warnings_of(MANY, fitted(1.0), point(sensitivity=FIGURE | {"value": 0.9})) == [
        said_short("sensitivity", "0.900", "0.95")
    ]
    undefined = point(image_sensitivity=FIGURE | {"value": None})
    assert warnings_of(MANY, fitted(1.0), undefined) == []
    assert warnings_of(ROWS, fitted(1.0), point(target_sensitivity=0.99)) == [
        said_short("sensitivity", "0.950", "0.99"),
        said_short("image sensitivity", "0.950", "0.99"),
        "45 malignant images are too few to tell a sensitivity of 0.99 from 1",
    ]


def said_short(name: str, value: str, target: str) -> str:
    return (
        f"the cross-fitted {name} {value} is below the declared {target}: expect the threshold to "
        "miss more than it aims to"
    )


def test_undefined_is_null() -> None:
    assert [number(value) for value in (0.5, math.nan, None)] == [0.5, None, None]
