"""`thyro drift`: how the nights' batches compare with the training set."""

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from thyro_core import NOTICE
from thyro_core.errors import InputError
from thyro_core.tables.io import read_table

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = {
    "psi_score": "score PSI",
    "ks_score": "score KS",
    "psi_mean": "grey PSI",
    "psi_sharpness": "sharp. PSI",
    "mmd": "MMD",
    "share_rejected": "not scored",
}
_SUFFIXES = (".html", ".png")


def drift(
    since: Annotated[str, typer.Option(help="First date, YYYY-MM-DD.")],
    output: Annotated[
        Path | None, typer.Option(help="Plot to write: FILE.html or FILE.png.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="fsspec URL for everything that is kept [THYRO_STORE].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the drift of the nights' batches against the training set, and plot it."""
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    first = _date(since)
    if output is not None and output.suffix not in _SUFFIXES:
        msg = f"--output {output}: expected a name that ends in {' or '.join(_SUFFIXES)}"
        raise InputError(msg)
    opened = open_store(store or Settings().store)
    from thyro_core.reporting.drift import batches_since

    batches = batches_since(read_table(opened, "screening_batches"), first)
    if not batches.num_rows:
        msg = (
            f"{opened.url}: expected screened batches since {first}, found none; screen a batch "
            "first, or ask for an earlier date"
        )
        raise InputError(msg)
    if output is not None:
        _write(output, batches)
    if as_json:
        rows = batches.to_pylist()
        typer.echo(json.dumps({"batches": rows, "notice": NOTICE}, allow_nan=False))
        return
    _show(batches, output)


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        msg = f"--since {text}: expected a date such as 2026-11-25"
        raise InputError(msg) from error


def _write(output: Path, batches: "pa.Table") -> None:
    from thyro_core.reporting.drift import drift_page, drift_picture
    from thyro_core.screening.drift import DriftThresholds

    thresholds = DriftThresholds()
    if output.suffix == ".png":
        output.write_bytes(drift_picture(batches, thresholds))
    else:
        output.write_text(drift_page(batches, thresholds), encoding="utf-8")


def _show(batches: "pa.Table", output: Path | None) -> None:
    from thyro_core.reporting.drift import breaches_of

    console = Console()
    table = Table(title="Drift", caption=NOTICE, box=SIMPLE_HEAD, pad_edge=False)
    for name in ("night", "batch", "scored", *_SHOWN.values()):
        table.add_column(name, overflow="fold", no_wrap=name in {"night", "scored"})
    lines = []
    for row in batches.to_pylist():
        number, past = str(row["date"]), breaches_of(row)
        night = f"{number[:4]}-{number[4:6]}-{number[6:]}"
        cells = {name: "-" if row[name] is None else f"{row[name]:.3f}" for name in _SHOWN}
        cells |= {name: f"[bold red]{cells[name]}*[/]" for name in past if name in cells}
        table.add_row(night, row["batch_id"], f"{row['scored']}/{row['received']}", *cells.values())
        if past:
            said = ", ".join(f"{name} {row[name]:.3f}" for name in past)
            lines.append(f"[red]drift[/] {night} {row['batch_id']}: {said}")
    if not console.is_terminal:
        # A pipe has no width, and a wrapped row is no row.
        wide = console.options.update(width=1 << 20)
        console.width = Measurement.get(console, wide, table).maximum
    console.print(table)
    lines += ["- not computed: too few scored images; * past its bound, and not by chance"]
    lines += [escape(str(output))] if output is not None else []
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
