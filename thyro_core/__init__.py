"""Thyro: how well does a classifier tell benign from malignant thyroid nodules on our images?

Research software, not a medical device. The science and the storage live here; Prefect flows
live in `flows`, and Ray is imported in `thyro_core.cluster` alone.

For notebooks, each imported when it is first used:

    open_store, open_results, load_study        what the store holds, SQL on it, a study's results
    load_model                                  a promoted model: predict and gradcam
    StudyConfig, ingest, make_splits, check_leakage    image set to splits
    metrics, metric_intervals, bootstrap_intervals, nadeau_bengio, delong    on NumPy arrays
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thyro_core.config import StudyConfig
    from thyro_core.datasets.leakage import check_leakage
    from thyro_core.datasets.manifest import ingest
    from thyro_core.datasets.splits import make_splits
    from thyro_core.evaluation.delong import delong
    from thyro_core.evaluation.metrics import metrics
    from thyro_core.evaluation.uncertainty import (
        bootstrap_intervals,
        metric_intervals,
        nadeau_bengio,
    )
    from thyro_core.registry.predictor import load_model
    from thyro_core.store.store import open_store
    from thyro_core.study.results import load_study
    from thyro_core.tables.query import open_results

__all__ = [
    "NOTICE",
    "StudyConfig",
    "__version__",
    "bootstrap_intervals",
    "check_leakage",
    "delong",
    "ingest",
    "load_model",
    "load_study",
    "make_splits",
    "metric_intervals",
    "metrics",
    "nadeau_bengio",
    "open_results",
    "open_store",
]

__version__ = "0.1.0"

NOTICE = "Research use only: Thyro is not a medical device and makes no diagnosis."

_MODULES = {
    "StudyConfig": "thyro_core.config",
    "bootstrap_intervals": "thyro_core.evaluation.uncertainty",
    "check_leakage": "thyro_core.datasets.leakage",
    "delong": "thyro_core.evaluation.delong",
    "ingest": "thyro_core.datasets.manifest",
    "load_model": "thyro_core.registry.predictor",
    "load_study": "thyro_core.study.results",
    "make_splits": "thyro_core.datasets.splits",
    "metric_intervals": "thyro_core.evaluation.uncertainty",
    "metrics": "thyro_core.evaluation.metrics",
    "nadeau_bengio": "thyro_core.evaluation.uncertainty",
    "open_results": "thyro_core.tables.query",
    "open_store": "thyro_core.store.store",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
