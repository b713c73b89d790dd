"""`thyro studies` and `thyro rm`: which studies a store has, and the removal of one."""

import os
import socket
import sys
from datetime import UTC, datetime
from functools import partial
from math import isnan
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, note, out, print_json, result_table, say, shorten
from flows.cli.options import Json, StoreUrl, open_store_at
from flows.cli.units import size
from thyro_core import NOTICE
from thyro_core.errors import InputError, amount

if TYPE_CHECKING:
    from thyro_core.study.listing import ListedStudy

_OTHER_COLUMNS = 54
"""Width of a listing without the column of ids and sources, at most [letters]."""


def studies(store: StoreUrl = None, as_json: Json = False) -> None:
    """List the studies of a store: images, state, start, networks and the primary result."""
    from thyro_core.study.listing import list_studies

    opened_store = open_store_at(store)
    rows = list_studies(opened_store, datetime.now(UTC))
    if as_json:
        plain = [_study_json(row) for row in rows]
        print_json({"studies": plain, "store": opened_store.url, "notice": NOTICE})
        return
    if not rows:
        say(f"{escape(opened_store.url)}: no study yet; `thyro study SOURCE` makes one")
        return
    table = result_table("study, images", "state", "started", "networks", "AUC", title="Studies")
    for row in rows:
        images = shorten(row.source or row.manifest_id, out.width - _OTHER_COLUMNS)
        table.add_row(
            f"[bold]{row.study_id}[/]\n{escape(images)}",
            row.state,
            "" if row.start_time is None else row.start_time.strftime("%Y-%m-%d"),
            "\n".join(row.architectures),
            _auc_text(row.auc),
        )
    out.print(table)
    say("AUC: the primary endpoint, of the first network, mean over splits")
    older = sum(not row.in_table for row in rows)
    if older:
        studies_of = amount(older, "study", "studies")
        note(f"{studies_of} of an earlier version of the program: without source and times")


def rm(
    study_id: Annotated[str, typer.Argument(help="The study, or enough of its id.")],
    store: StoreUrl = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a study: tables, models, checkpoints and report; its images and their packs stay."""
    from thyro_core.registry.removal import check_removable, remove_study, study_objects
    from thyro_core.study.plan import find_study

    opened_store = open_store_at(store)
    study_id = find_study(opened_store, study_id)
    check_removable(opened_store, study_id)
    objects = study_objects(opened_store, study_id)
    for kind, n_bytes in sorted(objects.sizes.items()):
        say(f"{size(n_bytes):>10}  {escape(kind)}")
    total = f"{size(sum(objects.sizes.values()))} in {amount(len(objects.keys), 'object')}"
    if not yes:
        if not sys.stdin.isatty():
            msg = f"study {study_id}: expected somebody to ask, found no terminal; add --yes"
            raise InputError(msg)
        if not typer.confirm(f"Remove study {study_id} ({total}) for ever?"):
            say("nothing was removed")
            return
    owner = f"thyro rm on {socket.gethostname()}, process {os.getpid()}"
    remove_study(opened_store, study_id, owner, partial(note, console=err))
    say(f"removed study {study_id}: {total}; its images and their packs stay")


def _auc_text(value: float | None) -> str:
    if value is None:
        return ""
    return "undefined" if isnan(value) else f"{value:.3f}"


def _study_json(row: "ListedStudy") -> dict[str, object]:
    return {
        "study_id": row.study_id,
        "manifest_id": row.manifest_id,
        "source": row.source,
        "state": row.state,
        "started": row.start_time and row.start_time.isoformat(),
        "architectures": list(row.architectures),
        "auc": row.auc,
    }
