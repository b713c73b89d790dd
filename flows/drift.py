"""A drifted batch is announced: a Prefect artifact for people, an event for automations."""

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows.artifacts import best_effort
from thyro_core.screening.drift import DriftReport, drift_markdown

EVENT = "thyro.drift"
"""Name of the event; its payload holds the figures, its resource is the batch."""


def announce(report: DriftReport, date: int, batch_id: str, model_id: str) -> None:
    """Make a breach heard; a batch without one is silent.

    Call it within a flow run.

    Args:
        report: what `thyro_core.screening.drift.compare` gave.
        date: the night, 20261125.
        batch_id: the batch's id; not its address, which may name people.
        model_id: the model that scored it.
    """
    if not report.breaches:
        return
    best_effort(
        create_markdown_artifact,
        drift_markdown(report, f"batch {batch_id} of {date}", model_id),
        key=f"drift-{date}-{batch_id}",
        description="Drift of a night's batch against the training set",
    )
    emit_event(
        EVENT,
        resource={
            "prefect.resource.id": f"thyro.batch.{date}.{batch_id}",
            "prefect.resource.name": f"batch {batch_id} of {date}",
        },
        payload={
            "date": date,
            "batch_id": batch_id,
            "model_id": model_id,
            "received": report.n_received,
            "scored": report.n_scored,
            **report.figures(),
            "text": report.text,
        },
    )
