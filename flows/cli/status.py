"""`thyro status`: where a study stands."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.markup import escape

from flows.cli.console import print_json, print_unbroken, result_table, say
from flows.cli.options import Json, StoreUrl, StudyId, open_store_at
from flows.cli.units import clock
from thyro_core import NOTICE

if TYPE_CHECKING:
    from thyro_core.study.status import RunStatus, StudyStatus

_RUN_HEADERS = (
    "split",
    "architecture",
    "state",
    "epoch",
    "images/s",
    "left",
    "GPU s",
)


def status(study_id: StudyId = "", store: StoreUrl = None, as_json: Json = False) -> None:
    """Say where a study stands, from its store alone: states, epochs, speed, time left, cost."""
    from thyro_core.study.plan import find_study
    from thyro_core.study.status import study_status

    opened_store = open_store_at(store)
    current = study_status(opened_store, find_study(opened_store, study_id), datetime.now(UTC))
    if as_json:
        print_json(asdict(current) | {"notice": NOTICE})
    else:
        _print_status(current)


def _print_status(status: "StudyStatus") -> None:
    hosts = {run.host for run in status.runs if run.host}
    # One host of all runs is shown once: the line is wide enough without.
    last = ("host",) if len(hosts) > 1 else ()
    table = result_table(*_RUN_HEADERS, *last, title=f"Study {status.study_id}")
    for run in status.runs:
        table.add_row(*_run_row(run, status.epochs), *([run.host or ""] if last else []))
    print_unbroken(table)
    if len(hosts) == 1:
        say(f"host: {escape(hosts.pop())}")
    for run in status.runs:
        if run.error is not None:
            say(f"[red]split {run.split}, {run.architecture}:[/] {escape(run.error)}")
    say(_totals(status))


def _run_row(run: "RunStatus", epochs: int) -> tuple[str, ...]:
    state: str = run.state
    if run.state == "silent" and run.silent_seconds is not None:
        state = f"silent for {clock(run.silent_seconds)}"
    running = run.state == "running"
    return (
        str(run.split),
        run.architecture,
        state,
        "" if run.epoch is None else f"{run.epoch} of {epochs}",
        f"{run.images_per_second:.1f}" if run.images_per_second is not None else "",
        clock(run.seconds_left) if running else "",
        "" if run.gpu_seconds is None else f"{run.gpu_seconds:.0f}",
    )


def _totals(status: "StudyStatus") -> str:
    counts = ", ".join(f"{number} {state}" for state, number in status.counts.items())
    end = "concluded" if status.concluded else "not concluded"
    return (
        f"{len(status.runs)} runs: {counts}; {end}; {status.images_per_second:.1f} images/s; "
        f"{clock(status.seconds_left)} left; {status.seconds:.0f} s of runs, "
        f"{status.gpu_seconds:.0f} GPU-seconds so far"
    )
