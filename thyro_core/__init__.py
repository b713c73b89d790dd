"""Thyro: how well does a classifier tell benign from malignant thyroid nodules on our images?

Research software, not a medical device. The science and the storage live here; Prefect flows
live in `flows`, and Ray is imported in `thyro_core.cluster` alone.
"""

__version__ = "0.1.0"

NOTICE = "Research use only: Thyro is not a medical device and makes no diagnosis."


def __getattr__(name: str) -> object:
    """`thyro_core.open_results`, for notebooks, imported when it is asked for."""
    if name == "open_results":
        from thyro_core.tables.query import open_results

        return open_results
    raise AttributeError(name)
