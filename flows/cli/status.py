"""`thyro status` and `thyro gc`: where a study stands, and what a store no longer needs."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.cli.durations import clock
from thyro_core import NOTICE

if TYPE_CHECKING:
    from thyro_core.study.garbage import Garbage
    from thyro_core.study.status import RunStatus, StudyStatus

Store = Annotated[
    str | None, typer.Option(help="fsspec URL for everything that is kept [THYRO_STORE].")
]


def status(
    study_id: Annotated[str, typer.Argument(help="The study.")],
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say where a study stands, from its store alone: states, epochs, speed, time left, cost."""
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store
    from thyro_core.study.status import study_status

    found = study_status(open_store(store or Settings().store), study_id, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"notice": NOTICE}))
    else:
        _show(found)


def _show(found: "StudyStatus") -> None:
    console = Console(soft_wrap=True, highlight=False)
    table = Table(
        *("split", "architecture", "state", "epoch", "images/s", "left", "GPU-seconds", "host"),
        box=SIMPLE_HEAD,
        pad_edge=False,
        caption=NOTICE,
        title=f"Study {found.study_id}",
    )
    for run in found.runs:
        table.add_row(*_row(run, found.epochs))
    if not console.is_terminal:
        # A pipe has no width, and a wrapped row is no row.
        console.width = 200
    console.print(table)
    for run in found.runs:
        if run.error is not None:
            said = f"[red]split {run.split}, {run.architecture}:[/] {escape(run.error)}"
            console.print(said)
    console.print(_totals(found))


def _row(run: "RunStatus", epochs: int) -> tuple[str, ...]:
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
        run.host or "",
    )


def _totals(found: "StudyStatus") -> str:
    counts = ", ".join(f"{number} {state}" for state, number in found.counts.items())
    end = "concluded" if found.concluded else "not concluded"
    return (
        f"{len(found.runs)} runs: {counts}; {end}; {found.images_per_second:.1f} images/s; "
        f"{clock(found.seconds_left)} left; {found.seconds:.0f} s of runs, "
        f"{found.gpu_seconds:.0f} GPU-seconds so far"
    )


def gc(
    store: Store = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is listed; without it nothing is.")
    ] = False,
) -> None:
    """List what the store no longer needs, with sizes; remove it only with --delete."""
    from thyro_core.settings import Settings, scratch_folder
    from thyro_core.store.store import open_store
    from thyro_core.study.garbage import find_garbage, remove

    settings = Settings()
    opened = open_store(store or settings.store)
    found = find_garbage(opened, scratch_folder(settings), time.time())
    for each in found:
        typer.echo(f"{size(each.size):>10}  {each.kind:<14}  {each.place}")
    if delete:
        typer.echo(f"freed {size(remove(opened, found))}: {_kinds(found)}")
    else:
        total = size(sum(each.size for each in found))
        typer.echo(f"{total} could be freed: {_kinds(found)}; nothing was removed (--delete does)")


def _kinds(found: list["Garbage"]) -> str:
    kinds = [each.kind for each in found]
    named = (f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds)))
    return ", ".join(named) or "nothing"


def size(number: int) -> str:
    """Bytes as a person reads them, in powers of 1000."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
