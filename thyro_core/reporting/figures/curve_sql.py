"""Points of the curves as SQL on `predictions`: another way to the numbers that plots show.

Each function gives what stands behind FROM: a subquery with one row a split and the column `v`.
The curves themselves are computed by `curves`; that both agree is what a reader can check.
"""

_THRESHOLD_STEPS = (
    "SELECT split, "
    "sum(label) OVER w AS hits, sum(1 - label) OVER w AS alarms, "
    "sum(label) OVER (PARTITION BY split) AS malignant, "
    "sum(1 - label) OVER (PARTITION BY split) AS benign "
    "FROM {source} WINDOW w AS (PARTITION BY split ORDER BY prob_malignant DESC) "
    "UNION ALL SELECT split, 0, 0, sum(label), sum(1 - label) FROM {source} GROUP BY split"
)
"""Hits and false alarms at each threshold, ties as one step, and at none."""


def sensitivity_at(source: str, rate: float) -> str:
    """Sensitivity at a false positive rate, straight between two thresholds."""
    steps = f"SELECT split, hits / malignant AS y, alarms / benign AS x FROM ({_steps(source)})"
    ends = (
        f"SELECT split, max(x) FILTER (x <= {rate}) AS x0, max(y) FILTER (x <= {rate}) AS y0, "
        f"min(x) FILTER (x > {rate}) AS x1, min(y) FILTER (x > {rate}) AS y1 "
        f"FROM ({steps}) GROUP BY split"
    )
    value = f"coalesce(y0 + ({rate} - x0) * (y1 - y0) / (x1 - x0), y0)"
    return f"(SELECT split, {value} AS v FROM ({ends}))"


def precision_at(source: str, recall: float) -> str:
    """Precision at a recall; between two thresholds alarms grow in proportion to hits."""
    steps = f"SELECT split, malignant, hits / malignant AS y, alarms FROM ({_steps(source)})"
    ends = (
        f"SELECT split, any_value(malignant) AS m, "
        f"max(y) FILTER (y < {recall}) AS y0, max(alarms) FILTER (y < {recall}) AS a0, "
        f"min(y) FILTER (y >= {recall}) AS y1, min(alarms) FILTER (y >= {recall}) AS a1 "
        f"FROM ({steps}) GROUP BY split"
    )
    alarms = f"(a0 + ({recall} - y0) * (a1 - a0) / (y1 - y0))"
    return f"(SELECT split, {recall} * m / ({recall} * m + {alarms}) AS v FROM ({ends}))"


def net_benefit_at(source: str, threshold: float) -> str:
    """True positives less false ones at the threshold's odds, per image.

    Beside it stand what it is made of: `hits` and `alarms`, the shares of malignant and of benign
    images that are called malignant, and `p`, the share of malignant ones.
    """
    value = net_benefit(threshold, "prob_malignant")
    shares = ", ".join(
        f"avg((prob_malignant >= {threshold})::INT) FILTER (label = {label}) AS {name}"
        for name, label in (("hits", 1), ("alarms", 0))
    )
    return f"(SELECT split, {value} AS v, {shares}, avg(label) AS p FROM {source} GROUP BY split)"


def net_benefit(threshold: float | str, column: str) -> str:
    """Net benefit of a column of probabilities at a threshold or a column of it, as SQL."""
    return (
        f"(count(*) FILTER (label = 1 AND {column} >= {threshold}) - "
        f"count(*) FILTER (label = 0 AND {column} >= {threshold}) "
        f"* {threshold} / (1 - {threshold})) / count(*)"
    )


def treat_all_at(source: str, threshold: float) -> str:
    """Net benefit of calling every image malignant."""
    value = f"(sum(label) - sum(1 - label) * {threshold} / (1 - {threshold})) / count(*)"
    return f"(SELECT split, {value} AS v FROM {source} GROUP BY split)"


def benefit_by_threshold(source: str) -> str:
    """Mean net benefit over splits, of the network and of calling all malignant, by threshold.

    One row a hundredth `t`, with the columns `model` and `everyone`.
    """
    rows = f"(SELECT split, label, prob_malignant FROM {source})"
    thresholds = "(SELECT unnest(range(1, 100)) / 100 AS t)"
    everyone = "(sum(label) - sum(1 - label) * t / (1 - t)) / count(*)"
    each = (
        f"SELECT split, t, {net_benefit('t', 'prob_malignant')} AS v, {everyone} AS w "
        f"FROM {rows}, {thresholds} GROUP BY split, t"
    )
    return f"(SELECT t, avg(v) AS model, avg(w) AS everyone FROM ({each}) GROUP BY t)"


def _steps(source: str) -> str:
    return _THRESHOLD_STEPS.format(source=source)
