"""`thyro screen`: a night's batch, scored and ranked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, note, print_json, say
from flows.cli.errors import parse_values, resumable
from flows.cli.options import JsonLast, StoreUrl
from thyro_core import NOTICE

if TYPE_CHECKING:
    from thyro_core.screening.config import ScreeningRules
    from thyro_core.store.store import Store


def screen(
    batch: Annotated[str, typer.Argument(help="Folder or fsspec URL of the images.")],
    date: Annotated[
        str | None, typer.Option(help="The night; default: today in THYRO_TIMEZONE.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A promoted model; default: the champion.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A rule key=value.")] = None,
    store: StoreUrl = None,
    ray: Annotated[
        str | None, typer.Option(help="Ray address: local, auto or host:port [THYRO_RAY].")
    ] = None,
    as_json: JsonLast = False,
) -> None:
    """Score what is new in a batch of images and write the night's worklist."""
    with err.status("starting") as status:
        from flows.observer import observer
        from thyro_core.archive.results_target import open_target
        from thyro_core.pseudonyms import WITHOUT_KEY
        from thyro_core.reporting.worklist_exams import check_viewer
        from thyro_core.screening.identifiers import check_study_links
        from thyro_core.screening.night import checked_date, plan_night
        from thyro_core.settings import Settings
        from thyro_core.store.store import open_store

        settings, rules = Settings(), read_rules(set_ or [])
        opened_store = open_store(store or settings.store)
        night = checked_date(date or "", settings.timezone)
        check_viewer(settings.viewer_link)
        check_study_links(settings)
        if settings.results_to is not None:
            open_target(settings.results_to, settings).close()
        # Planned here: what is wrong is reported before Prefect starts.
        plan_night(opened_store, batch, night, model, rules)
        if settings.pseudonym_key is None:
            note(WITHOUT_KEY, err)
        from flows.cli.screen_display import ScreenDisplay
        from flows.screening import screening
        from flows.serving.command_server import prefect_server

        token = observer.set(ScreenDisplay(status))
        try:
            with resumable(), prefect_server():
                place = screening(batch, night, model or "", rules, opened_store.url, ray or "")
        finally:
            observer.reset(token)
    _print_counts(opened_store, place, as_json=as_json)


def read_rules(items: Sequence[str]) -> "ScreeningRules":
    """The rules of a screening from `key=value` texts.

    Raises:
        InputError: a key is unknown, or a value out of its bounds.
    """
    from flows.cli.config_input import split_assignment
    from thyro_core.screening.config import ScreeningRules

    return parse_values(ScreeningRules, dict(map(split_assignment, items)), "rules", "rule")


def _print_counts(store: "Store", place: str, *, as_json: bool) -> None:
    from thyro_core.screening.rules import aside_sentence, files_sentence, totals_of_row
    from thyro_core.screening.store import batch_row
    from thyro_core.screening.worklist import unscored_reasons
    from thyro_core.store.keys import worklist_key

    date, batch_id = place.split("/")
    row = batch_row(store, date, batch_id)
    worklist = {suffix: f"{store.url}/{worklist_key(date, suffix)}" for suffix in ("html", "csv")}
    reasons = unscored_reasons(store, date, batch_id)
    if as_json:
        row |= {
            "reasons": reasons,
            "date": date,
            "worklist": worklist,
            "store": store.url,
            "notice": NOTICE,
        }
        print_json(row)
        return
    say(f"Screening of [bold]{date}[/], batch {batch_id}, model {row['model_id']}")
    say(totals_of_row(row).sentence)
    if reasons:
        phrases = [f"{number} {reason.replace('_', ' ')}" for reason, number in reasons.items()]
        say(f"not scored: {', '.join(phrases)}; the worklist says what each needs")
    say(f"this run met {files_sentence(row['files'], row['known'], row['late'])}")
    if row["aside"]:
        say(aside_sentence(row["files"], row["aside"], row["aside_reasons"]))
    if row["copies"]:
        say("a copy shows the same picture as another row, which has its score")
    say(f"{row['refer']} refer, {row['review']} review, {row['routine']} routine")
    if row["breaches"]:
        note(f"drift: {row['breaches']}; trust the order less")
    from flows.serving.pages_server import served_address

    address = served_address(store, date)
    if address is not None:
        say(f"worklist (served)  {escape(address)}")
    for suffix, url in worklist.items():
        say(f"worklist ({suffix})  {escape(url)}")
    say(NOTICE)
