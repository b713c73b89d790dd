"""One of every plot, made of invented results, for the tests of plots and pages."""

import numpy as np

from thyro_core.config import ARCHITECTURES
from thyro_core.evaluation.curves import (
    LearningCurve,
    calibration_curve,
    decision_curve,
    pr_band,
    roc_band,
    score_histogram,
)
from thyro_core.evaluation.ensemble import net_benefit_band
from thyro_core.evaluation.metrics import METRICS, PAPER_METRICS
from thyro_core.explain.features import FEATURES
from thyro_core.reporting.figures import curves as plots
from thyro_core.reporting.figures import dots, ensemble
from thyro_core.reporting.figures.style import Estimate

RATIO = 151 / 357


def parts(architecture, n=10, spread=0.4):
    """Test parts of n splits; each architecture a little worse than the one before."""
    place = ARCHITECTURES.index(architecture)
    generator = np.random.default_rng(place)
    label = (np.arange(151) < 27).astype(int)
    return [
        (label, 1 / (1 + np.exp(-generator.normal((2 - spread * place) * (2 * label - 1)))))
        for _ in range(n)
    ]


def pooled(of_splits):
    labels, probabilities = zip(*of_splits, strict=True)
    return np.concatenate(labels), np.concatenate(probabilities)


def estimates(start=0.987, step=0.03):
    return {
        name: Estimate(start - step * i, start - 0.05 - step * i, start + 0.03 - step * i)
        for i, name in enumerate(ARCHITECTURES)
    }


def learning(epochs=30):
    e = np.arange(1, epochs + 1)
    curves = {}
    for i, name in enumerate(ARCHITECTURES):
        loss = 0.2 * np.exp(-e / (5 + 3 * i))
        val = loss + 0.02 if i == 0 else None
        curves[name] = LearningCurve(e, loss, 0.7 * loss, 1.5 * loss, val)
    return curves


def comparison_rows(metrics=PAPER_METRICS):
    return [
        {
            "architecture": ARCHITECTURES[0],
            "baseline": baseline,
            "metric": metric,
            "difference": 0.02 + 0.04 * j - 0.02 * i,
            "ci_low": -0.03 + 0.04 * j - 0.02 * i,
            "ci_high": 0.06 + 0.04 * j - 0.02 * i,
            "p_adjusted": 0.01 if j == 2 and i < 2 else 0.4,
        }
        for j, baseline in enumerate(ARCHITECTURES[1:])
        for i, metric in enumerate(metrics)
    ]


def cam_rows():
    return [
        {
            "feature": feature,
            "family": family,
            "effect_size": float(0.7 * np.sin(i)),
            "p_adjusted": 0.01 if i % 4 == 1 else 0.5,
        }
        for i, (feature, family) in enumerate(FEATURES.items())
    ]


def metric_values(metrics=PAPER_METRICS):
    return {
        name: {
            metric: Estimate(0.98 - 0.03 * i - 0.02 * j, 0.9 - 0.05 * i - 0.02 * j, 1.02 - 0.03 * i)
            for j, metric in enumerate(metrics)
        }
        for i, name in enumerate(ARCHITECTURES)
    }


def every_figure():
    """Name -> `<svg>`, one of each kind, with all four architectures."""
    tests = {name: parts(name) for name in ARCHITECTURES}
    pools = {name: pooled(of_splits) for name, of_splits in tests.items()}
    roc = {name: roc_band(of_splits, RATIO) for name, of_splits in tests.items()}
    pr = {name: pr_band(of_splits, RATIO) for name, of_splits in tests.items()}
    calibration = {name: calibration_curve(*pool) for name, pool in pools.items()}
    decision = {name: decision_curve(of_splits, RATIO) for name, of_splits in tests.items()}
    operating = {
        n: (
            Estimate(0.978 - 0.05 * i, 0.9 - 0.05 * i, 0.99 - 0.05 * i),
            Estimate(0.985 - 0.04 * i, 0.95 - 0.04 * i, 0.995 - 0.04 * i),
        )
        for i, n in enumerate(ARCHITECTURES)
    }
    scores = score_histogram(*pools["resnet18"])
    label, probability = tests["resnet18"][0]
    kinds = {
        "raw": probability,
        "calibrated": 0.9 * probability,
        "prevalence": np.full(label.size, label.mean()),
    }
    bands = {kind: net_benefit_band(label, p, np.arange(label.size)) for kind, p in kinds.items()}
    reliability = {kind: calibration_curve(label, kinds[kind]) for kind in ("raw", "calibrated")}
    return {
        "roc": plots.roc_plot("roc", roc, estimates()),
        "pr": plots.pr_plot("pr", pr, estimates(), 0.179),
        "calibration": plots.calibration_plot("calibration", calibration, estimates(0.1, 0.01)),
        "decision": plots.decision_plot("decision", decision),
        "fit": ensemble.calibration_plot("fit", reliability, 0.179),
        "benefit": ensemble.benefit_plot("benefit", bands),
        "ppv": plots.ppv_plot("ppv", operating, 0.18),
        "learning": plots.learning_plot("learning", learning()),
        "scores": plots.score_plot("scores", scores, 0.5, "resnet18"),
        "metrics": dots.metrics_plot("metrics", metric_values()),
        "all-metrics": dots.metrics_plot("all-metrics", metric_values(METRICS)),
        "forest": dots.forest_plot("forest", comparison_rows()),
        "effects": dots.effect_plot("effects", cam_rows()),
        "colours": plots.colour_bar("colours"),
    }
