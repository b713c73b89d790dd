import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest

from tests.support import figures
from tests.support.browser import visit
from tests.support.places import REPOSITORY
from thyro_core.config import ARCHITECTURES
from thyro_core.evaluation.curves import (
    Band,
    LearningCurve,
    calibration_curve,
    decision_curve,
    pr_band,
    roc_band,
    score_histogram,
)
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.evaluation.metrics import PAPER, PAPER_METRICS
from thyro_core.explain.overlay import colours
from thyro_core.reporting.figures import curves as plots
from thyro_core.reporting.figures import dots
from thyro_core.reporting.figures.dots import (
    FAMILIES,
    PUBLISHED_LABEL,
    effect_plot,
    forest_plot,
    metrics_plot,
)
from thyro_core.reporting.figures.ensemble import benefit_plot
from thyro_core.reporting.figures.style import LOOKS, Estimate
from thyro_core.reporting.figures.svg import CSS_VARIABLES, DARK, LIGHT

SVG = "{http://www.w3.org/2000/svg}"
NAMES = (
    "roc", "pr", "calibration", "decision", "fit", "benefit", "ppv", "learning", "scores",
    "metrics", "all-metrics", "forest", "effects", "colours",
)  # fmt: skip
CURVES = ("roc", "pr", "calibration", "decision", "ppv", "learning")


@pytest.fixture(scope="module")
def drawn():
    found = figures.every_figure()
    assert tuple(found) == NAMES
    return found


def texts(figure):
    return [part.text for part in ET.fromstring(figure).iter(f"{SVG}text")]


def told(figure):
    return ET.fromstring(figure).find(f"{SVG}desc").text


def ids(figure):
    return re.findall(r' id="([^"]+)"', figure)


@pytest.mark.parametrize("name", NAMES)
class TestEveryFigure:
    def test_is_one_svg_and_nothing_before_it(self, drawn, name):
        assert ET.fromstring(drawn[name]).tag == f"{SVG}svg"
        assert drawn[name].startswith("<svg ")
        assert drawn[name].endswith("</svg>")

    def test_refers_to_nothing_but_itself(self, drawn, name):
        body = drawn[name].replace('xmlns="http://www.w3.org/2000/svg"', "")
        for forbidden in ("http", "xlink", "<style", "<metadata", "<script", "<image", "@import"):
            assert forbidden not in body
        referred = re.findall(r'(?:href="|url\()([^")]+)', body)
        assert {reference[0] for reference in referred} <= {"#"}
        assert {reference[1:] for reference in referred} <= set(ids(body))

    def test_has_no_colour_of_its_own(self, drawn, name):
        body = re.sub(r'(href="#|url\(#)[^")]+', "", drawn[name])
        if name == "colours":
            body = re.sub(r'stop-color="#\w{6}"', "", body)
        assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgb|\b(?:black|white)\b", body) == []
        assert set(re.findall(r"var\(--([\w-]+)\)", body)) <= set(LIGHT)

    def test_its_ids_are_its_own(self, drawn, name):
        assert len(ids(drawn[name])) == len(set(ids(drawn[name])))
        others = {one for other, figure in drawn.items() if other != name for one in ids(figure)}
        assert set(ids(drawn[name])).isdisjoint(others)

    def test_says_what_it_shows(self, drawn, name):
        root = ET.fromstring(drawn[name])
        title, text = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-labelledby"] == f"{title.attrib['id']} {text.attrib['id']}"
        assert title.text
        assert text.text.endswith(".")
        assert re.search(r"\b(nan|None)\b", text.text) is None

    def test_is_small(self, drawn, name):
        assert len(drawn[name].encode()) < 60_000

    def test_scales_with_the_page(self, drawn, name):
        attributes = ET.fromstring(drawn[name]).attrib
        assert attributes["width"] == "100%"
        assert "height" not in attributes
        assert re.fullmatch(r"0 0 \d+ \d+(\.\d+)?", attributes["viewBox"])

    def test_the_legend_is_whole(self, drawn, name):
        assert not [text for text in texts(drawn[name]) if "$" in text or text == ""]


@pytest.mark.parametrize("name", CURVES)
def test_every_architecture_is_drawn_and_named(drawn, name):
    for architecture in ARCHITECTURES:
        assert f"{name}-series-{architecture}" in ids(drawn[name])
        shown = ARCHITECTURE_NAMES[architecture]
        assert any(text.startswith(shown) for text in texts(drawn[name]))
        assert shown in told(drawn[name])
        assert architecture not in told(drawn[name])


@pytest.mark.parametrize("name", ["roc", "pr", "decision"])
def test_every_band_is_drawn(drawn, name):
    for architecture in ARCHITECTURES:
        assert f"{name}-series-{architecture}-band" in ids(drawn[name])


def test_figures_are_the_same_in_another_process(drawn):
    script = (
        "import hashlib; from tests.support.figures import every_figure\n"
        "print(hashlib.sha256(''.join(every_figure().values()).encode()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    import hashlib

    assert done.stdout.strip() == hashlib.sha256("".join(drawn.values()).encode()).hexdigest()


def test_series_differ_in_line_and_marker_too():
    papers = [LOOKS[name] for name in ARCHITECTURES]
    for kind in ("colour", "line", "marker"):
        assert len({getattr(look, kind) for look in papers}) == len(ARCHITECTURES)
    assert len({look.marker for look in FAMILIES.values()}) == len(FAMILIES)


def path_points(figure, gid):
    """Points of the first path of a series, as drawn: (k, 2) in the figure's units."""
    group = next(part for part in ET.fromstring(figure).iter() if part.attrib.get("id") == gid)
    numbers = re.findall(r"-?\d+(?:\.\d+)?", next(group.iter(f"{SVG}path")).attrib["d"])
    return np.array(numbers, dtype=float).reshape(-1, 2)


class TestCurves:
    def test_the_roc_curve_lies_where_its_numbers_are(self):
        x = np.arange(101) / 100
        band = Band(x, x**0.25, np.full(101, np.nan), np.full(101, np.nan), 1)
        figure = plots.roc_plot("roc", {"resnet18": band}, {"resnet18": Estimate(0.8)})
        drawn_at = path_points(figure, "roc-series-resnet18")
        origin, end = drawn_at[0], drawn_at[-1]
        share = (drawn_at - origin) / (end - origin)
        assert share[:, 1] == pytest.approx(share[:, 0] ** 0.25, abs=0.005)

    def test_a_single_split_has_no_band(self):
        part = figures.parts("vgg16", n=1)
        for plot, band in ((plots.roc_plot, roc_band), (plots.pr_plot, pr_band)):
            extra = (0.18,) if plot is plots.pr_plot else ()
            bands = {"vgg16": band(part, 0.4)}
            figure = plot("one", bands, {"vgg16": Estimate(0.9, np.nan, np.nan)}, *extra)
            assert "one-series-vgg16" in ids(figure)
            assert "one-series-vgg16-band" not in ids(figure)
            assert "VGG16 0.900" in texts(figure)

    def test_splits_left_out_are_told(self):
        cases = [*figures.parts("vgg16", n=2), (np.array([0, 0]), np.array([0.1, 0.2]))]
        figure = plots.roc_plot("roc", {"vgg16": roc_band(cases, 0.4)}, {"vgg16": Estimate(0.9)})
        assert "over 2 splits (1 with one class only left out)" in told(figure)

    def test_no_usable_split_leaves_an_empty_plot(self):
        cases = [(np.array([0, 0]), np.array([0.1, 0.2]))]
        nothing = {"vgg16": Estimate(np.nan)}
        figure = plots.roc_plot("roc", {"vgg16": roc_band(cases, 0.4)}, nothing)
        assert "VGG16 undefined" in texts(figure)
        assert "over 0 splits" in told(figure)

    def test_the_line_of_no_skill_is_the_prevalence(self, drawn):
        assert "no skill: prevalence 0.179" in texts(drawn["pr"])

    def test_one_calibration_bin_is_enough(self):
        curve = {"alexnet": calibration_curve(np.array([0, 1]), np.array([0.5, 0.5]))}
        figure = plots.calibration_plot("c", curve, {"alexnet": Estimate(0.0)})
        assert "c-series-alexnet" in ids(figure)

    def test_the_ensembles_plots_name_both_probabilities_and_the_prevalence_model(self, drawn):
        for name in ("fit", "benefit"):
            series = {part for part in ids(drawn[name]) if "-series-" in part}
            kinds = ("raw", "calibrated", "prevalence")
            assert {f"{name}-series-{kind}" for kind in kinds} <= series
        assert "prevalence model: 0.179 for every image" in texts(drawn["fit"])
        said = "Above the prevalence model, by these means and without a test: raw from "
        assert said in told(drawn["benefit"])

    def test_decision_tells_where_the_model_is_of_use(self):
        perfect = [(np.array([1, 0, 0, 0]), np.array([1.0, 0.0, 0.0, 0.0]))]
        useless = [(np.array([1, 0, 0, 0]), np.array([0.0, 1.0, 1.0, 1.0]))]
        curves = {
            "resnet18": decision_curve(perfect, 0.4),
            "alexnet": decision_curve(useless, 0.4),
        }
        text = told(plots.decision_plot("d", curves))
        assert "ResNet18 from 0.01 to 0.99; AlexNet at no threshold" in text

    def test_decision_names_each_stretch_where_the_model_is_of_use(self):
        """A benign image that scores 0.95 costs more than the malignant one above it is worth."""
        label = np.array([1] * 3 + [0] * 7)
        score = np.array([0.97, 0.6, 0.6, 0.95, *[0.005] * 6])
        line = decision_curve([(label, score)], 0.4)
        worse = line.model.x[line.model.mean <= np.maximum(line.treat_all, 0) + 1e-12]
        assert worse.min() == 0.61
        assert worse.max() == 0.99
        text = told(plots.decision_plot("d", {"resnet18": line}))
        assert "ResNet18 from 0.01 to 0.60, from 0.96 to 0.97." in text

    def test_the_ensemble_s_net_benefit_names_each_stretch_too(self):
        x = np.linspace(0.1, 0.5, 5)
        of_no_use = np.array([0.2, 0.1, 0.0, 0.0, 0.0])
        raw = of_no_use + np.array([0.1, 0.0, 0.1, 1e-17, 0.1])
        bands = {
            kind: Band(x, mean, mean, mean, 3)
            for kind, mean in (("raw", raw), ("calibrated", of_no_use), ("prevalence", of_no_use))
        }
        text = told(benefit_plot("b", bands))
        assert "raw at 0.10, at 0.30, at 0.50; calibrated at no threshold." in text

    def test_a_decision_without_malignant_images(self):
        nothing = [(np.array([0, 0]), np.array([0.0, 1.0]))]
        plots.decision_plot("d", {"vgg16": decision_curve(nothing, 0.4)})

    def test_predictive_values_are_told_where_the_paper_stands(self):
        figure = plots.ppv_plot(
            "p", {"resnet18": (Estimate(264 / 270), Estimate(1222 / 1240))}, 0.18
        )
        assert "where 18 %, 5 %, 0.5 % are malignant: ResNet18 0.94, 0.78, 0.25." in told(figure)
        assert "this study: 18 %" in texts(figure)

    @pytest.mark.parametrize("prevalence", [0.18, 0.5, 0.864])
    def test_this_study_s_prevalence_lies_on_the_axis(self, prevalence):
        figure = plots.ppv_plot("p", {"resnet18": (Estimate(0.9), Estimate(0.4))}, prevalence)
        path = path_points(figure, "p-series-resnet18")
        assert f"this study: {100 * prevalence:.3g} %" in texts(figure)
        assert ("99 %" in texts(figure)) == (prevalence > 0.5)
        assert len(path) > 10

    def test_validation_loss_is_drawn_where_there_is_one(self, drawn):
        found = [name for name in ids(drawn["learning"]) if name.endswith("-validation")]
        assert found == ["learning-series-resnet18-validation"]

    @pytest.mark.parametrize("loss", [[0.5], [0.5, 0.0], [1e-9, 0.3, 1e-4]])
    def test_short_and_vanishing_losses(self, loss):
        values = np.array(loss)
        curve = LearningCurve(np.arange(1, len(loss) + 1), values, values, values, None)
        figure = plots.learning_plot("l", {"alexnet": curve})
        assert "l-series-alexnet" in ids(figure)
        assert f"AlexNet {loss[0]:.3g} to {loss[-1]:.3g}" in told(figure)

    def test_scores_tell_what_lies_above_the_threshold(self):
        scores = score_histogram(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]))
        figure = plots.score_plot("s", scores, 0.5, "vgg16")
        assert "50 % of the malignant and 50 % of the benign" in told(figure)
        assert {"s-series-malignant", "s-series-benign"} <= set(ids(figure))

    def test_scores_of_malignant_stand_up_and_of_benign_hang_down(self, drawn):
        up, down = (
            path_points(drawn["scores"], f"scores-series-{name}")[:, 1]
            for name in ("malignant", "benign")
        )
        assert up.max() == down.min()  # the zero line: y grows downwards
        assert up.min() < up.max() < down.max()

    def test_scores_of_one_class(self):
        scores = score_histogram(np.array([1, 1]), np.array([0.1, 0.6]))
        plots.score_plot("s", scores, 0.5, "vgg16")

    def test_the_colour_bar_has_the_colours_of_the_maps(self, drawn):
        stops = re.findall(r'stop-color="#(\w{6})"', drawn["colours"])
        assert stops == [bytes(colour).hex() for colour in colours(17)]
        assert texts(plots.colour_bar("c", "a < b", "c")) == ["a < b", "c"]


def markers(figure, variable):
    """Fill of every marker with this outline, the legend's included."""
    fills = []
    for part in ET.fromstring(figure).iter(f"{SVG}use"):
        style = part.attrib["style"]
        if f"stroke: var(--{variable})" in style:
            fills.append(re.search(r"fill: var\(--([\w-]+)\)", style)[1])
    return fills


class TestDots:
    def test_each_metric_of_each_architecture_has_its_dot(self, drawn):
        for place in range(1, 5):
            fills = markers(drawn["metrics"], f"series-{place}")
            assert fills == [f"series-{place}"] * (5 + 1)

    def test_published_values_are_marked(self, drawn):
        assert PUBLISHED_LABEL in texts(drawn["metrics"])
        places = [
            path_points(drawn["metrics"], f"metrics-series-published-{row}") for row in range(5)
        ]
        shares = [place[0, 0] for place in places]
        scale = (shares[0] - shares[4]) / (PAPER["auc"] - PAPER["f1"])
        for metric, x in zip(PAPER_METRICS, shares, strict=True):
            assert x - shares[4] == pytest.approx(scale * (PAPER[metric] - PAPER["f1"]), abs=0.02)
        assert [np.sign(y[1, 1] - x[0, 1]) for x, y in pairwise(places)] == [1] * 4

    def test_nothing_published_is_nothing_marked(self, monkeypatch):
        monkeypatch.setattr(dots, "PAPER", {})
        figure = metrics_plot("metrics", figures.metric_values())
        assert PUBLISHED_LABEL not in texts(figure)
        assert [name for name in ids(figure) if "published" in name] == []

    def test_undefined_metrics_leave_a_gap(self):
        values = {"vgg16": {"auc": Estimate(np.nan), "f1": Estimate(0.5, np.nan, np.nan)}}
        figure = metrics_plot("m", values)
        assert "VGG16 AUC undefined, F1 score 0.500" in told(figure)
        assert {"AUC", "F1 score"} <= set(texts(figure)), "as the table beside it calls them"

    def test_significant_differences_are_filled_and_told(self, drawn):
        fills = markers(drawn["forest"], "series-4")
        assert sorted(fills) == ["paper"] * 3 + ["series-4"] * 3  # two of five, and the legend's
        assert told(drawn["forest"]).endswith(
            "auc against Inception v3 +0.100; accuracy against Inception v3 +0.080."
        )

    def test_nothing_significant_is_said_so(self):
        rows = [row | {"p_adjusted": 1.0} for row in figures.comparison_rows()]
        assert told(forest_plot("f", rows)).endswith("nowhere.")

    def test_undefined_differences(self):
        row = figures.comparison_rows()[0]
        nothing = dict.fromkeys(("difference", "ci_low", "ci_high", "p_adjusted"), np.nan)
        assert told(forest_plot("f", [row | nothing])).endswith("nowhere.")

    def test_no_comparison_at_all(self):
        assert told(forest_plot("f", [])).endswith("nowhere.")

    def test_effects_by_family(self, drawn):
        rows = figures.cam_rows()
        for place, family in enumerate(FAMILIES, start=1):
            of_family = [row for row in rows if row["family"] == family]
            fills = markers(drawn["effects"], f"series-{place}")
            filled = sum(row["p_adjusted"] < 0.05 for row in of_family)
            assert len(fills) == len(of_family) + 1
            assert fills.count(f"series-{place}") == filled + 1
        for row in rows:
            assert row["feature"] in texts(drawn["effects"])

    def test_an_undefined_effect_keeps_its_row(self):
        rows = [row | {"effect_size": np.nan, "p_adjusted": np.nan} for row in figures.cam_rows()]
        figure = effect_plot("e", rows)
        assert told(figure).endswith("nowhere.")
        assert "glcm_energy" in texts(figure)


class TestEstimates:
    @pytest.mark.parametrize(
        ("estimate", "text"),
        [
            (Estimate(0.98765, 0.9, 1.2), "0.988 (0.90-1.00)"),
            (Estimate(0.5), "0.500"),
            (Estimate(0.5, np.nan, 0.6), "0.500"),
            (Estimate(np.nan, 0.1, 0.2), "undefined"),
        ],
    )
    def test_are_spelled(self, estimate, text):
        assert str(estimate) == text


_BOXES = """
() => [...document.querySelectorAll('svg')].map(svg => ({
    name: svg.getAttribute('aria-labelledby'),
    frame: svg.getBoundingClientRect().toJSON(),
    texts: [...svg.querySelectorAll('text')].map(
        text => ({
            text: text.textContent,
            size: parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().d
                || parseFloat(getComputedStyle(text).fontSize) * Math.abs(text.getScreenCTM().b),
            ...text.getBoundingClientRect().toJSON()})),
}))
"""


@pytest.fixture(scope="module")
def page(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "figures.html"
    style = CSS_VARIABLES + "body{background:var(--paper);margin:12px;font-family:system-ui}"
    path.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>figures</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style>'
        + "".join(f"<figure style='margin:0'>{figure}</figure>" for figure in drawn.values())
    )
    return path


@pytest.mark.parametrize("width", [1400, 390])
def test_text_is_readable_in_a_browser(browser, page, width):
    visited = visit(browser, page, width)
    assert not visited.overflows()
    assert visited.complaints == []
    assert visited.requests == [page.as_uri()]
    for figure in visited.page.evaluate(_BOXES):
        frame = figure["frame"]
        boxes = figure["texts"]
        assert boxes
        for box in boxes:
            assert box["left"] >= frame["left"] - 1, (figure["name"], box["text"])
            assert box["right"] <= frame["right"] + 1, (figure["name"], box["text"])
            assert box["top"] >= frame["top"] - 1, (figure["name"], box["text"])
            assert box["bottom"] <= frame["bottom"] + 1, (figure["name"], box["text"])
            assert box["size"] >= 9, (figure["name"], box["text"])
        for i, box in enumerate(boxes):
            clashing = [other["text"] for other in boxes[:i] if _overlap(box, other)]
            assert clashing == [], (figure["name"], box["text"])
    visited.page.context.close()


def _overlap(one, other):
    # Boxes hold the font's whole line: glyphs of neighbours may share a few pixels of it.
    wide = min(one["right"], other["right"]) - max(one["left"], other["left"])
    high = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    return wide > 1 and high > 0.3 * min(one["height"], other["height"])


@pytest.mark.parametrize(("scheme", "palette"), [("light", LIGHT), ("dark", DARK)])
def test_colours_are_the_pages(browser, page, scheme, palette):
    visited = visit(browser, page, color_scheme=scheme)
    for architecture, place in zip(ARCHITECTURES, range(1, 5), strict=True):
        found = visited.page.evaluate(
            f"getComputedStyle(document.querySelector('#roc-series-{architecture} path')).stroke"
        )
        wanted = tuple(bytes.fromhex(palette[f"series-{place}"][1:]))
        assert tuple(map(int, re.findall(r"\d+", found))) == wanted
    visited.page.context.close()
