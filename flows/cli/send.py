"""`thyro send`: what of the nights' results the archive has not got yet."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import err, note, say
from flows.cli.options import StoreUrl, open_store_at
from thyro_core import NOTICE
from thyro_core.errors import InputError, ThyroError, amount

if TYPE_CHECKING:
    from thyro_core.screening.results import Delivery, ResultsSender, StudyResults
    from thyro_core.screening.rules import Night
    from thyro_core.store.store import Store


def send(
    batch: Annotated[str, typer.Argument(help="The batch of the nights, as `screen` takes it.")],
    date: Annotated[
        str | None, typer.Option(help="One night; default: all whose results are not all sent.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent; the archive is not asked.")
    ] = False,
    store: StoreUrl = None,
) -> None:
    """Send nights' results to the archive (THYRO_RESULTS_TO): reports and maps, each once."""
    from thyro_core.screening.night import batch_name, files_here
    from thyro_core.screening.results import ResultsSender
    from thyro_core.settings import Settings

    settings, opened_store = Settings(), open_store_at(store)
    if settings.results_to is None:
        msg = (
            "THYRO_RESULTS_TO: expected an archive, such as dicomweb+https://host/dicom-web or "
            "dicom://TITLE@host:port, found none; set it"
        )
        raise InputError(msg)
    name = batch_name(batch)
    place = files_here(opened_store, batch, settings)
    if place is None:
        say("nothing to send: no files of this archive wait here; the next screening fetches them")
        return
    sender = ResultsSender(opened_store, settings, name, place)
    nights = _nights(opened_store, sender, name, date)
    if not nights:
        say("nothing to send: the archive has the results of all nights of this batch")
        return
    if dry_run:
        sender.preview(nights, _show_study)
        say(f"nothing is sent: this was a dry run. {NOTICE}")
        return
    with err.status("sending"):
        delivery = _send_under_lock(opened_store, sender, nights)
    say(delivery.sentence)
    if delivery.unsent:
        msg = f"{amount(len(delivery.unsent), 'file')}: results not sent; the same command goes on"
        raise ThyroError(msg)
    note(NOTICE)


def _nights(store: "Store", sender: "ResultsSender", batch: str, date: str | None) -> "list[Night]":
    from thyro_core.screening.outbox import nights_of
    from thyro_core.screening.rules import date_number

    if date is None:
        return sender.outbox.open_nights(batch)
    date_number(date)
    nights = nights_of(store, batch, date)
    if not nights:
        msg = f"--date {date}: expected a night of this batch, found none; `thyro screen` makes one"
        raise InputError(msg)
    return nights


def _send_under_lock(store: "Store", sender: "ResultsSender", nights: "list[Night]") -> "Delivery":
    from flows.screening import LOCK_SECONDS
    from flows.study_lock import lock_owner
    from thyro_core.store.keys import screening_lock_key
    from thyro_core.store.lock import Lock

    with Lock(store, screening_lock_key(), lock_owner(), LOCK_SECONDS):
        for night in nights:
            sender.outbox.begin(night)
        return sender.send(nights, are_all_here=False)


def _show_study(study: "StudyResults") -> None:
    from thyro_core.screening.rules import BANDS

    images = ", ".join(f"{study.bands[band]} {band}" for band in BANDS if study.bands[band])
    maps = amount(study.n_maps, "map")
    say(f"{study.date}: a study's report of {study.bands.total()} images ({images}) and {maps}")
