"""`thyro gc`: what a store no longer needs."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import StoreUrl
from flows.cli.units import size

if TYPE_CHECKING:
    from thyro_core.study.garbage import Garbage


def gc(
    store: StoreUrl = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is listed; without it nothing is.")
    ] = False,
) -> None:
    """List what the store no longer needs; remove it only with --delete. Names lost studies."""
    from thyro_core.host import scratch_folder
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store
    from thyro_core.study.garbage import find_garbage, remove
    from thyro_core.study.listing import list_studies

    settings = Settings()
    opened_store = open_store(store or settings.store)
    garbage = find_garbage(opened_store, scratch_folder(settings), time.time())
    for each in garbage:
        typer.echo(f"{size(each.size):>10}  {each.kind:<14}  {each.place}")
    now = datetime.now(UTC)
    for study in list_studies(opened_store, now):
        if study.is_abandoned(now):
            last = study.last_sign or study.start_time
            since = f"no sign of life since {last:%Y-%m-%d}" if last else "no sign of life"
            typer.echo(
                f"study {study.study_id} seems abandoned ({study.state}, {since}): "
                f"`thyro rm {study.study_id}` removes it"
            )
    if delete:
        typer.echo(f"freed {size(remove(opened_store, garbage))}: {_kinds(garbage)}")
    else:
        total = size(sum(each.size for each in garbage))
        typer.echo(
            f"{total} could be freed: {_kinds(garbage)}; nothing was removed (--delete does)"
        )


def _kinds(garbage: Sequence["Garbage"]) -> str:
    kinds = [each.kind for each in garbage]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds))) or "nothing"
