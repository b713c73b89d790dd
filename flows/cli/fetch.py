"""`thyro fetch`: an archive's instances in a folder, to be labelled there."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, note, say
from thyro_core.errors import InputError, amount


def fetch(
    archive: Annotated[
        str, typer.Argument(help="dicomweb+https://host/dicom-web?ModalitiesInStudy=US")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder for the instances; it may hold some.")],
) -> None:
    """Bring an archive's instances into a folder, those that it lacks; for studies.

    Credentials: THYRO_DICOMWEB_USER and _PASSWORD, _TOKEN or _CERTIFICATE.
    """
    from thyro_core.archive.spool import open_folder
    from thyro_core.settings import Settings

    try:
        spool = open_folder(archive, folder)
        with err.status("fetching"):
            spool.fetch(Settings())
    except OSError as error:
        reason = (error.strerror or "refused").lower()
        msg = f"{folder}: expected a folder that can be written to, found: {reason}; name another"
        raise InputError(msg) from error
    summary = f"{amount(spool.n_fetched, 'instance')} fetched"
    say(f"{summary}, {spool.n_present} were there: {escape(str(folder))}")
    if spool.n_withheld:
        note(
            f"{amount(spool.n_withheld, 'instance')} listed and not given; the same command tries "
            "again"
        )
    say("These are patients' images with their names and ids: keep them as you keep the archive.")
    say(
        f"Next: write {escape(str(folder / 'labels.csv'))} (AccessionNumber,label), then "
        f"thyro ingest {escape(str(folder))}"
    )
