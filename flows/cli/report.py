"""`thyro report`: a study's report, written into the store and shown in the browser."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, say
from flows.cli.options import StoreUrl, StudyId

if TYPE_CHECKING:
    from thyro_core.store.store import Store


def report(
    study_id: StudyId = "",
    open_: Annotated[
        bool, typer.Option("--open", help="Open it in this machine's browser.")
    ] = False,
    store: StoreUrl = None,
) -> None:
    """Write a finished study's report, one HTML file for a browser, and say where it is."""
    from thyro_core.host import scratch_folder
    from thyro_core.reporting.report import write_report
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store
    from thyro_core.study.plan import find_study

    settings = Settings()
    opened_store, scratch = open_store(store or settings.store), scratch_folder(settings)
    study_id = find_study(opened_store, study_id)
    with err.status("writing the report"):
        url = write_report(opened_store, study_id, scratch)
    say(escape(url))
    if open_:
        _open_copy(opened_store, study_id, scratch)


def _open_copy(store: "Store", study_id: str, scratch: Path) -> None:
    """Open a copy of this moment: a browser reaches no bucket, and nodes keep old copies."""
    from thyro_core.store.keys import report_key

    copy = scratch / "reports" / f"{study_id}.html"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(store.read(report_key(study_id)))
    if not webbrowser.open(copy.resolve().as_uri()):
        say(escape(f"no browser was found here; open {copy} yourself"), err)
