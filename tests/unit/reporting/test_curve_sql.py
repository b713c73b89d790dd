"""The SQL behind the curves gives, on any predictions, the numbers that the curves show."""

from collections.abc import Callable

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyro_core.evaluation import curves
from thyro_core.reporting.figures import curve_sql

Asked = Callable[[str, float], str]


@st.composite
def splits(draw: st.DrawFn) -> list[tuple[np.ndarray, np.ndarray]]:
    """One to three test parts with both classes, and probabilities that tie."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        benign, malignant = draw(st.integers(1, 8)), draw(st.integers(1, 8))
        label = np.repeat([0, 1], [benign, malignant])
        steps = st.lists(
            st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.7, 1.0]),
            min_size=label.size,
            max_size=label.size,
        )
        parts.append((label, np.array(draw(steps))))
    return parts


def means(
    parts: list[tuple[np.ndarray, np.ndarray]], at: Asked, places: list[float]
) -> list[float]:
    """The mean over splits at each place, by SQL alone."""
    rows = pa.concat_tables(
        pa.table({"split": np.full(len(label), i), "label": label, "prob_malignant": probability})
        for i, (label, probability) in enumerate(parts)
    )
    connection = duckdb.connect(config={"threads": 1})
    connection.register("predictions", rows)
    asked = [f"(SELECT avg(v) FROM {at('predictions WHERE split >= 0', x)})" for x in places]
    (found,) = connection.sql(f"SELECT {', '.join(asked)}").fetchall()
    connection.close()
    return list(found)


@settings(max_examples=25)
@given(splits())
def test_sensitivity_at_a_rate_is_the_roc_curves(parts) -> None:
    places = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0]
    band = curves.roc_band(parts, 0.4)
    expected = [band.mean[round(100 * x)] for x in places]
    assert means(parts, curve_sql.sensitivity_at, places) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25)
@given(splits())
def test_precision_at_a_recall_is_the_pr_curves(parts) -> None:
    places = [0.05, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0]
    band = curves.pr_band(parts, 0.4)
    expected = [band.mean[round(100 * x)] for x in places]
    assert means(parts, curve_sql.precision_at, places) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25)
@given(splits())
def test_net_benefit_is_the_decision_curves(parts) -> None:
    places = [0.05, 0.1, 0.3, 0.5, 0.7]
    found = curves.decision_curve(parts, 0.4, places)
    assert means(parts, curve_sql.net_benefit_at, places) == pytest.approx(found.model.mean)
    assert means(parts, curve_sql.treat_all_at, places) == pytest.approx(found.treat_all)


@settings(max_examples=10)
@given(splits())
def test_benefits_of_all_thresholds_are_the_decision_curves(parts) -> None:
    found = curves.decision_curve(parts, 0.4)
    for column, expected in (("model", found.model.mean), ("everyone", found.treat_all)):

        def at(source: str, x: float, column: str = column) -> str:
            rows = curve_sql.benefit_by_threshold(source)
            return f"(SELECT {column} AS v FROM {rows} WHERE round(100 * t) = {round(100 * x)})"

        places = [0.01, 0.05, 0.3, 0.5, 0.99]
        values = [expected[round(100 * x) - 1] for x in places]
        assert means(parts, at, places) == pytest.approx(values)


def test_a_case_worked_by_hand() -> None:
    """Two malignant at 0.9 and 0.4, three benign at 0.6, 0.4 and 0.1; 0.4 is a tie."""
    part = [(np.array([1, 0, 1, 0, 0]), np.array([0.9, 0.6, 0.4, 0.4, 0.1]))]
    # Steps (alarms/3, hits/2): (0, 0), (0, 1/2), (1/3, 1/2), (2/3, 1), (1, 1).
    assert means(part, curve_sql.sensitivity_at, [0.0, 0.3, 0.5]) == pytest.approx(
        [0.5, 0.5, 0.5 + 0.5 * (0.5 - 1 / 3) * 3]
    )
    # At recall 3/4 half of the tie is taken: 1.5 hits, 1.5 alarms.
    assert means(part, curve_sql.precision_at, [0.5, 0.75, 1.0]) == pytest.approx([1, 0.5, 0.5])
    # From 0.5 on: one hit, one alarm at odds 1.
    assert means(part, curve_sql.net_benefit_at, [0.5]) == pytest.approx([0.0])
    assert means(part, curve_sql.treat_all_at, [0.25]) == pytest.approx([(2 - 3 / 3) / 5])
