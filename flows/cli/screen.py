"""`thyro screen`: a night's batch, scored and ranked."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from thyro_core import NOTICE
from thyro_core.errors import InputError, StoppedError

if TYPE_CHECKING:
    from thyro_core.screening.config import ScreeningRules
    from thyro_core.store.store import Store as OpenStore

_out = Console()
_err = Console(stderr=True)


@dataclass(frozen=True)
class Screen:
    """Score what is new in a batch of images and write the night's worklist."""

    batch: Annotated[str, typer.Argument(help="Folder or fsspec URL of the images.")]
    date: Annotated[
        str | None, typer.Option(help="The night; default: today in THYRO_TIMEZONE.")
    ] = None
    model: Annotated[str | None, typer.Option(help="A promoted model; default: the champion.")] = (
        None
    )
    set_: Annotated[list[str] | None, typer.Option("--set", help="A rule key=value.")] = field(
        default=None
    )
    store: Annotated[
        str | None, typer.Option(help="fsspec URL for everything that is kept [THYRO_STORE].")
    ] = None
    ray: Annotated[
        str | None, typer.Option(help="Ray address: local, auto or host:port [THYRO_RAY].")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object last.")] = False

    def __post_init__(self) -> None:
        from flows.observer import observer
        from thyro_core.screening.night import plan_night, today
        from thyro_core.settings import Settings
        from thyro_core.store.store import open_store

        settings, rules = Settings(), _rules(self.set_ or [])
        opened = open_store(self.store or settings.store)
        date = self.date or today(settings.timezone)
        # Planned here: what is wrong should not wait for Prefect to start before it is said.
        plan_night(opened, self.batch, date, self.model, rules)
        from flows.cli.screen_display import ScreenDisplay
        from flows.screening import screening
        from flows.serving.server import server_needed

        with _err.status("starting") as status:
            token = observer.set(ScreenDisplay(status))
            try:
                with server_needed():
                    place = screening(
                        self.batch, date, self.model or "", rules, opened.url, self.ray or ""
                    )
            except KeyboardInterrupt as interrupt:
                msg = "stopped; what is finished is kept, and the same command goes on"
                raise StoppedError(msg) from interrupt
            finally:
                observer.reset(token)
        _show(opened, place, as_json=self.as_json)


def _rules(items: list[str]) -> "ScreeningRules":
    from pydantic import ValidationError

    from thyro_core.screening.config import ScreeningRules

    values = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            msg = f"--set {item}: expected key=value"
            raise InputError(msg)
        values[name.strip()] = value.strip()
    try:
        return ScreeningRules.model_validate(values)
    except ValidationError as error:
        facts = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}, found {problem['input']!r}"
            for problem in error.errors()
        ]
        known = ", ".join(ScreeningRules.model_fields)
        msg = f"rules: {'; '.join(facts)}; the rules are {known}"
        raise InputError(msg) from error


def _show(store: "OpenStore", place: str, *, as_json: bool) -> None:
    from thyro_core.screening.store import batch_row
    from thyro_core.store.keys import worklist_key

    date, batch_id = place.split("/")
    row = batch_row(store, date, batch_id)
    worklist = {suffix: f"{store.url}/{worklist_key(date, suffix)}" for suffix in ("html", "csv")}
    if as_json:
        row |= {"date": date, "worklist": worklist, "store": store.url, "notice": NOTICE}
        typer.echo(json.dumps(row))
        return
    _say(f"Screening of [bold]{date}[/], batch {batch_id}, model {row['model_id']}")
    _say(
        f"{row['received']} received = {row['scored']} scored + {row['rejected']} rejected + "
        f"{row['failed']} failed; {row['known']} files known before, {row['late']} not whole yet"
    )
    _say(f"{row['refer']} refer, {row['review']} review, {row['routine']} routine")
    if row["breaches"]:
        _say(f"[yellow]Note:[/] drift: {escape(row['breaches'])}; trust the order less")
    for suffix, url in worklist.items():
        _say(f"worklist ({suffix})  {escape(url)}")
    _say(NOTICE)


def _say(line: str) -> None:
    _out.print(line, highlight=False, soft_wrap=True)
