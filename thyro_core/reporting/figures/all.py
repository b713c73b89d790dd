"""Every plot of the report, by name; one that has nothing to show is None."""

from dataclasses import dataclass

from thyro_core.evaluation.metrics import PAPER_METRICS
from thyro_core.reporting.figures import dots
from thyro_core.reporting.sections import curves
from thyro_core.reporting.sections.curves import Data, Plot, drawn
from thyro_core.reporting.sections.maps import Features
from thyro_core.reporting.sections.performance import Comparisons


@dataclass(frozen=True)
class Figures:
    """The plots."""

    metrics: Plot
    roc: Plot
    pr: Plot
    calibration: Plot
    scores: Plot
    decision: Plot
    ppv: Plot
    learning: Plot
    forest: Plot | None
    effects: Plot | None


def figures(found: Data, compared: Comparisons, features: Features | None) -> Figures:
    """Draw them all."""
    return Figures(
        metrics=_metrics(found),
        roc=curves.roc(found),
        pr=curves.precision_recall(found),
        calibration=curves.calibration(found),
        scores=curves.scores(found),
        decision=curves.decision(found),
        ppv=curves.ppv(found),
        learning=curves.learning(found),
        forest=_forest(compared),
        effects=_effects(features),
    )


def _metrics(found: Data) -> Plot:
    """The paper's metrics, and specificity; the page's table has the numbers, and the others."""
    shown = (*PAPER_METRICS, "specificity")
    by_metric = {metric: found.estimates(metric) for metric in shown}
    values = {name: {metric: of[name] for metric, of in by_metric.items()} for name in found.parts}
    return drawn("metrics", dots.metrics_plot("plot-metrics", values))


def _forest(compared: Comparisons) -> Plot | None:
    """Differences in AUC; the page's tables have the numbers."""
    rows = [row.values for of in compared.corrected.values() for row in of]
    chosen = [row for row in rows if row["metric"] == "auc"]
    return drawn("forest", dots.forest_plot("plot-forest", chosen)) if chosen else None


def _effects(features: Features | None) -> Plot | None:
    """Effects of the first architecture with any; the page's table has the numbers."""
    if features is None:
        return None
    rows = [row.values for row in next(iter(features.tests.values()))]
    return drawn("effects", dots.effect_plot("plot-effects", rows))
