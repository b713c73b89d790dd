"""Every plot of the report, by name; one that has nothing to show is None."""

from dataclasses import dataclass

from thyro_core.evaluation.metrics import PAPER_METRICS
from thyro_core.reporting.figures import dots
from thyro_core.reporting.sections import calibration, curves
from thyro_core.reporting.sections.curves import Plot, PlotData, make_plot
from thyro_core.reporting.sections.maps import FeatureTests
from thyro_core.reporting.sections.performance import Comparisons


@dataclass(frozen=True)
class ReportPlots:
    """The report's plots."""

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
    fit: Plot | None
    benefit: Plot | None


def report_plots(
    data: PlotData, comparisons: Comparisons, features: FeatureTests | None
) -> ReportPlots:
    """Draw them all."""
    scores = calibration.ensemble_scores(data.tables, data.config.architectures[0])
    return ReportPlots(
        metrics=_metrics_plot(data),
        roc=curves.roc_figure(data),
        pr=curves.precision_recall_figure(data),
        calibration=curves.calibration_figure(data),
        scores=curves.score_figure(data),
        decision=curves.decision_figure(data),
        ppv=curves.ppv_figure(data),
        learning=curves.learning_figure(data),
        forest=_forest(comparisons),
        effects=_effects(features),
        fit=calibration.fit_figure(scores) if scores else None,
        benefit=calibration.benefit_figure(scores) if scores else None,
    )


def _metrics_plot(data: PlotData) -> Plot:
    """The paper's metrics, and specificity; the page's table has the numbers, and the others."""
    metrics = (*PAPER_METRICS, "specificity")
    by_metric = {metric: data.estimates(metric) for metric in metrics}
    values = {name: {metric: of[name] for metric, of in by_metric.items()} for name in data.parts}
    return make_plot("metrics", dots.metrics_plot("plot-metrics", values))


def _forest(comparisons: Comparisons) -> Plot | None:
    """Differences in AUC; the page's tables have the numbers."""
    rows = [row.values for of in comparisons.corrected_tests.values() for row in of]
    auc_rows = [row for row in rows if row["metric"] == "auc"]
    return make_plot("forest", dots.forest_plot("plot-forest", auc_rows)) if auc_rows else None


def _effects(features: FeatureTests | None) -> Plot | None:
    """Effects of the first architecture with a finding; the page's table has the numbers."""
    if features is None or not features.findings:
        return None
    rows = [row.values for row in features.tests[next(iter(features.findings))]]
    return make_plot("effects", dots.effect_plot("plot-effects", rows))
