"""`thyro report`: a study's report, written into the store and shown in the browser."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from thyro_core.store.keys import report_key

if TYPE_CHECKING:
    from thyro_core.store.store import Store


def report(
    study_id: Annotated[str, typer.Argument(help="The study.")],
    open_: Annotated[
        bool, typer.Option("--open", help="Open it in this machine's browser.")
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="fsspec URL for everything that is kept [THYRO_STORE].")
    ] = None,
) -> None:
    """Write a finished study's report, one HTML file for a browser, and say where it is."""
    from thyro_core.reporting.report import write_report
    from thyro_core.settings import Settings, scratch_folder
    from thyro_core.store.store import open_store

    settings = Settings()
    opened, scratch = open_store(store or settings.store), scratch_folder(settings)
    with Console(stderr=True).status("writing the report"):
        url = write_report(opened, study_id, scratch)
    Console().print(escape(url), highlight=False, soft_wrap=True)
    if open_:
        _show(opened, study_id, scratch)


def _show(store: "Store", study_id: str, scratch: Path) -> None:
    """Open a copy of this moment: a browser reaches no bucket, and nodes keep old copies."""
    copy = scratch / "reports" / f"{study_id}.html"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(store.read(report_key(study_id)))
    if not webbrowser.open(copy.resolve().as_uri()):
        said = f"no browser was found here; open {copy} yourself"
        Console(stderr=True).print(escape(said), highlight=False, soft_wrap=True)
