"""Figures of simulations that pages and the README quote are those in the benchmarks' results."""

import math
import re
from collections.abc import Sequence

import pytest

from tests.support.places import REPOSITORY
from thyro_core.reporting.simulated import SIMULATED_SPLITS, SIMULATION_FIGURES

Row = dict[str, str]
RESULTS = (REPOSITORY / "tests" / "bench" / "RESULTS.md").read_text(encoding="utf-8")
NOTES = (REPOSITORY / "tests" / "bench" / "NOTES.md").read_text(encoding="utf-8")
TEMPLATES = REPOSITORY / "thyro_core" / "reporting" / "templates"


def tables(text: str) -> list[list[Row]]:
    """The Markdown tables of a text, each a list of its rows by the head's names."""
    found, lines = [], text.splitlines()
    cells = [[c.strip() for c in line.strip().strip("|").split("|")] if line.startswith("|") else []
             for line in lines]  # fmt: skip
    start = 0
    while start < len(cells):
        stop = start
        while stop < len(cells) and cells[stop]:
            stop += 1
        if stop - start > 2:
            head, _, *rows = cells[start:stop]
            found.append([dict(zip(head, row, strict=True)) for row in rows])
        start = stop + 1
    return found


def section(title: str) -> str:
    (text,) = re.findall(
        rf"^## {re.escape(title)}\n(.*?)(?=^## )", RESULTS, re.MULTILINE | re.DOTALL
    )
    return str(text)


def least(values: Sequence[float]) -> float:
    """Of a hundred, rounded away from what would look better."""
    return math.floor(100 * min(values) + 1e-9)


def most(values: Sequence[float]) -> float:
    return math.ceil(100 * max(values) - 1e-9)


def column(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def same_case(one: Row, other: Row) -> bool:
    """Whether two rows are of one AUC and as many images a patient."""
    return all(one[name] == other[name] for name in ("AUC", "images a patient"))


def measured() -> dict[str, float]:
    """Each name of `SIMULATED`, from the results."""
    # Of ten splits; operating points have no part in their number.
    parts, points, *_ = tables(section("Coverage of the 95 % intervals"))
    (nights,) = tables(section("Months with a false alarm of drift, although nothing changed"))
    sizes = re.search(
        r"(\d+) malignant and (\d+) benign", section("Coverage of the bands of curves")
    )
    assert sizes
    malignant, benign = map(int, sizes.groups())
    with_pseudonyms = [row for row in nights if "no pseudonyms" not in row["a night"]]
    (without,) = [row for row in nights if "no pseudonyms" in row["a night"]]
    stills = re.search(r"of (\d+) stills", without["a night"])
    assert stills
    apparent = column(points, "specificity at the declared sensitivity")
    return {
        "images": malignant + benign,
        "malignant": malignant,
        "auc_from": min(column(parts, "AUC")),
        "auc_to": max(column(parts, "AUC")),
        "sensitivity_least": least(column(points, "sensitivity")),
        "sensitivity_most": most(column(points, "sensitivity")),
        "specificity_least": least(column(points, "specificity")),
        "specificity_most": most(column(points, "specificity")),
        "apparent_least": least(apparent),
        "apparent_most": most(apparent),
        "months": round(sum(column(with_pseudonyms, "months"))),
        "months_with_alarm": round(
            sum(
                float(row["months"]) * float(row["months with an alarm"]) for row in with_pseudonyms
            )
        ),
        "stills": int(stills[1]),
        "months_without": int(without["months"]),
        "months_without_with_alarm": round(
            float(without["months"]) * float(without["months with an alarm"])
        ),
    }


def measured_with(splits: int) -> dict[str, float]:
    """Each name of a number of splits in `SIMULATED_SPLITS`, from the results."""
    text = section("Coverage of the 95 % intervals")
    of_ten, _, predictive_of_ten, of_five, predictive_of_five = tables(text)
    studies = re.findall(r"(\d+) image sets (?:each|a row)", " ".join(text.split()))
    ten, five = int(studies[0]), int(studies[1])
    parts, predictive, n = {
        10: (of_ten, predictive_of_ten, ten),
        5: (of_five, predictive_of_five, five),
    }[splits]
    (bands,) = tables(section("Coverage of the bands of curves"))
    own = [row for row in bands if row["splits"] == str(splits)]
    shares = column(predictive, "PPV") + column(predictive, "NPV")
    by_band = {
        short: least(column([row for row in own if row["band of"] == name], "least"))
        for short, name in (
            ("roc", "sensitivity"), ("pr", "precision"), ("benefit", "net benefit")
        )
    }  # fmt: skip
    return {
        "splits": splits,
        "studies": n,
        "mean_least": least(column(parts, "mean")),
        "mean_most": most(column(parts, "mean")),
        "part_least": least(column(parts, "part")),
        "part_most": most(column(parts, "part")),
        "predictive_least": least(shares),
        "predictive_most": most(shares),
    } | {f"{short}_least": value for short, value in by_band.items()}


@pytest.mark.parametrize("splits", SIMULATED_SPLITS)
def test_figures_of_a_number_of_splits_are_those_in_the_results(splits: int) -> None:
    assert SIMULATED_SPLITS[splits] == measured_with(splits)
    # The AUCs and sizes that stand beside them are the same for every number.
    of_ten, _, _, of_five, _ = tables(section("Coverage of the 95 % intervals"))
    assert column(of_ten, "AUC") == column(of_five, "AUC")


@pytest.mark.parametrize("name", SIMULATION_FIGURES)
def test_a_quoted_figure_is_the_one_in_the_results(name: str) -> None:
    assert SIMULATION_FIGURES[name] == measured()[name]


def test_every_figure_is_quoted_and_no_page_has_one_of_its_own() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.html"))
    assert re.findall(r"simulation\((?!\")", text) == []
    names = set(SIMULATION_FIGURES).union(*SIMULATED_SPLITS.values())
    assert set(re.findall(r"simulation\(\"(\w+)\"\)", text)) == names


def test_false_alarms_stay_below_a_tenth_of_months() -> None:
    assert SIMULATION_FIGURES["months_with_alarm"] <= 0.1 * SIMULATION_FIGURES["months"]


def test_bounded_thresholds_miss_the_declared_sensitivity_in_five_of_a_hundred_at_most() -> None:
    title = "Studies whose true sensitivity falls below the declared one"
    rows = [row for row in tables(section(title))[0] if row["threshold by"].startswith("lower")]
    assert len(rows) == 4
    assert max(column(rows, "studies below the declared")) <= 0.05


def test_calibrated_probabilities_fit_better_than_raw_ones() -> None:
    title = "Probabilities of new patients, calibrated on scores of few networks"
    (rows,) = tables(section(title))
    brier: dict[str, dict[str, float]] = {}
    for row in rows:
        brier.setdefault(row["case"], {})[row["probabilities"]] = float(row["Brier"].split()[0])
    assert len(brier) == 5
    for of in brier.values():
        assert of["best"] <= of["fitted"] <= of["few as all"] < of["raw"]
        assert of["fitted"] - of["best"] < 0.01


def test_the_readme_s_figures_of_the_gate_are_those_of_its_table() -> None:
    (rows,) = [table for table in tables(NOTES) if "scored" in table[0]]
    photographs, own, phone, other, _ = rows
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (sentence,) = [line for line in readme.splitlines() if "gate.py" in line]
    scored = [re.match(r"\d+", row["scored"])[0] for row in (photographs, phone, other)]  # type: ignore[index]
    assert f"{scored[0]} of {photographs['n']} grey photographs" in sentence
    assert f"{scored[1]} of {phone['n']} simulated phone pictures" in sentence
    assert f"{scored[2]} of {other['n']} thyroid images" in sentence
    refused = int(own["refused by grey levels or blur"]) + int(own["unlike the training images"])
    assert f"{refused} of {own['n']} were refused" in sentence
