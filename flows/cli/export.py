"""`thyro export`: a study's figures, tables and methods as files for a paper."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, say
from flows.cli.options import StoreUrl, StudyId


def export(
    study_id: StudyId = "",
    to: Annotated[Path | None, typer.Option("--to", help="New folder for the files.")] = None,
    width: Annotated[
        float,
        typer.Option("--width", min=30, max=400, help="Width of figures [mm]; two columns: 174."),
    ] = 85.0,
    store: StoreUrl = None,
) -> None:
    """Write a study's figures, tables, methods and references as files for a paper."""
    from thyro_core.errors import InputError, amount
    from thyro_core.host import scratch_folder
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store
    from thyro_core.study.plan import find_study

    try:
        from thyro_core.reporting.manuscript.export import export_study
    except ModuleNotFoundError as error:
        msg = (
            f"export: expected the packages that write figures and documents, found no "
            f'{error.name}; pip install "thyro[paper]"'
        )
        raise InputError(msg) from error

    settings = Settings()
    opened_store = open_store(store or settings.store)
    study_id = find_study(opened_store, study_id)
    folder = to or Path(f"export-{study_id}")
    with err.status("writing the report, its figures and tables"):
        written_files = export_study(
            opened_store, study_id, folder, scratch=scratch_folder(settings), width=width
        )
    say(
        f"{amount(written_files.figures, 'figure')} and {amount(written_files.tables, 'table')}; "
        f"what is what: {escape(str(written_files.folder / 'README.md'))}"
    )
