"""An AUC over centres: their mean, how much they differ, and what a further centre may show.

A random-effects meta-analysis of the centres' AUCs on the logit scale (Debray et al., "A guide to
systematic review and meta-analysis of prediction model performance", BMJ 356, 2017): the true logit
of a centre is normal around their mean with the standard deviation tau, and what is found there
differs from it by the error of its patients.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit

from thyro_core.config import StudyConfig
from thyro_core.config.columns import ColumnSpec
from thyro_core.evaluation.bounded import LEVEL, NO_INTERVAL, Interval, t_quantile
from thyro_core.evaluation.delong import auc_error
from thyro_core.evaluation.out_of_fold import Ensembles, OutOfFoldEnsemble
from thyro_core.evaluation.subgroups import has_figures
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import FloatArray

LEAST_CENTRES = 3
"""Fewest centres from which a figure of a further centre is estimated."""


class RandomEffects(NamedTuple):
    """What several centres have in common; NaN: undefined."""

    mean: float
    mean_interval: Interval
    tau: float
    """Standard deviation of the centres' true values."""
    tau_interval: Interval
    prediction: Interval
    """Where the true value of a further centre lies, with 95 % confidence."""


def random_effects(values: FloatArray, errors: FloatArray) -> RandomEffects:
    """Pool values that differ by more than their errors.

    tau is Paule and Mandel's (Journal of Research of the National Bureau of Standards 87, 1982;
    recommended by Veroniki et al., Research Synthesis Methods 7, 2016): the one with which the
    weighted squared deviations from the mean are as many as their degrees of freedom. Its interval
    is that of the same sum (Viechtbauer, Statistics in Medicine 26, 2007). The mean's interval is
    Knapp and Hartung's, whose factor is 1 with this tau, and is not taken below it where tau is 0
    (Statistics in Medicine 22, 2003). The interval of a further value is that of Higgins, Thompson
    and Spiegelhalter (Journal of the Royal Statistical Society A 172, 2009), with k - 2 degrees of
    freedom.

    Args:
        values: (k,), at least two.
        errors: (k,), their standard errors, above 0.
    """
    k, variances = values.size, errors**2

    def spread(tau_squared: float) -> float:
        weights = 1 / (variances + tau_squared)
        mean = weights @ values / weights.sum()
        return float(weights @ (values - mean) ** 2)

    # The sum falls as tau grows; at this bound it is below every quantile that is needed.
    bound = 1e6 * float(np.square(values - values.mean()).sum() + variances.max())

    def tau_at(level: float) -> float:
        """The tau with which the sum is at this level; 0: it is below it without any."""
        if spread(0.0) <= level:
            return 0.0
        return float(np.sqrt(brentq(lambda square: spread(square) - level, 0.0, bound)))

    tau = tau_at(k - 1)
    low, high = stats.chi2.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], k - 1)
    weights = 1 / (variances + tau**2)
    mean, error = float(weights @ values / weights.sum()), float(weights.sum() ** -0.5)
    half, further = t_quantile(k - 1) * error, t_quantile(k - 2) * float(np.hypot(tau, error))
    return RandomEffects(
        mean=mean,
        mean_interval=Interval(mean - half, mean + half),
        tau=tau,
        tau_interval=Interval(tau_at(float(high)), tau_at(float(low))),
        prediction=Interval(mean - further, mean + further),
    )


def centres_table(
    study_id: str, ensembles: Ensembles, config: StudyConfig, cells: Mapping[str, str]
) -> pa.Table:
    """The study's rows of `centres`: each network's AUC over the centres.

    Of the centres with figures in `subgroups`. With fewer than `LEAST_CENTRES` of them, or where
    one's AUC has no standard error (0 or 1, or a single patient of a class), no figure is given:
    to leave such a centre out would choose by the result.

    Args:
        study_id: goes into every row.
        ensembles: the study's; with leave-one-centre-out an image's is the one network that was
            trained on the other centres.
        config: gives the column of the centres.
        cells: image -> centre.
    """
    rows: list[dict[str, Any]] = []
    if has_centres(config):
        rows = [
            {"study_id": study_id, "architecture": architecture} | _figures(ensemble, cells)
            for architecture, ensemble in ensembles.items()
        ]
    return rows_to_table("centres", rows)


def has_centres(config: StudyConfig) -> bool:
    """Whether a study gives figures by centre: it leaves them out one by one, or has subgroups."""
    return ColumnSpec(config.centre_column, ()) in config.subgroup_columns


def _figures(ensemble: OutOfFoldEnsemble, cells: Mapping[str, str]) -> dict[str, float]:
    centre = np.array([cells.get(image, "") for image in ensemble.image])
    parts = [ensemble.part(centre == name) for name in np.unique(centre[centre != ""])]
    estimates = [
        auc_error(part.label, part.margin, part.unit.astype(str))
        for part in parts
        if has_figures(part)
    ]
    auc, error = np.array(estimates).reshape(-1, 2).T
    nothing = RandomEffects(np.nan, NO_INTERVAL, np.nan, NO_INTERVAL, NO_INTERVAL)
    is_usable = (auc > 0) & (auc < 1) & (error > 0)
    effects = nothing
    if auc.size >= LEAST_CENTRES and is_usable.all():
        effects = random_effects(np.log(auc / (1 - auc)), error / (auc * (1 - auc)))
    low, high = expit(effects.mean_interval)
    prediction_low, prediction_high = expit(effects.prediction)
    return {
        "n_centres": auc.size,
        "auc": float(expit(effects.mean)),
        "ci_low": float(low),
        "ci_high": float(high),
        "tau": effects.tau,
        "tau_low": effects.tau_interval.low,
        "tau_high": effects.tau_interval.high,
        "prediction_low": float(prediction_low),
        "prediction_high": float(prediction_high),
    }
