"""`thyro drift`: how the nights' batches compare with the training set."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import print_json, print_unbroken, result_table, say
from flows.cli.options import Json, StoreUrl, open_store_at
from thyro_core import NOTICE
from thyro_core.errors import InputError, amount

if TYPE_CHECKING:
    import pyarrow as pa

_DRIFT_HEADERS = {
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
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Show the drift of the nights' batches against the training set, and plot it."""
    first = _date(since)
    if output is not None and output.suffix not in _SUFFIXES:
        msg = f"--output {output}: expected a name that ends in {' or '.join(_SUFFIXES)}"
        raise InputError(msg)
    opened_store = open_store_at(store)
    from thyro_core.reporting.drift import batches_since
    from thyro_core.tables.io import read_table

    batches = batches_since(read_table(opened_store, "screening_batches"), first)
    if not batches.num_rows:
        msg = (
            f"{opened_store.url}: expected screened batches since {first}, found none; screen a "
            "batch first, or ask for an earlier date"
        )
        raise InputError(msg)
    if output is not None:
        _write(output, batches)
    if as_json:
        print_json({"batches": batches.to_pylist(), "notice": NOTICE})
        return
    _print_batches(batches, output)


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


def _print_batches(batches: "pa.Table", output: Path | None) -> None:
    from thyro_core.screening.drift import breaches_of

    table = result_table(title="Drift")
    for name in ("night", "batch", "scored", *_DRIFT_HEADERS.values()):
        table.add_column(name, overflow="fold", no_wrap=name in {"night", "scored"})
    lines = []
    for row in batches.to_pylist():
        number, breaches = str(row["date"]), breaches_of(row)
        night = f"{number[:4]}-{number[4:6]}-{number[6:]}"
        cells = {name: "-" if row[name] is None else f"{row[name]:.3f}" for name in _DRIFT_HEADERS}
        cells |= {name: f"[bold red]{cells[name]}*[/]" for name in breaches if name in cells}
        table.add_row(night, row["batch_id"], f"{row['scored']}/{row['received']}", *cells.values())
        if breaches:
            figures = ", ".join(f"{name} {row[name]:.3f}" for name in breaches)
            lines.append(f"[red]drift[/] {night} {row['batch_id']}: {figures}")
        if row["devices"]:
            lines.append(f"devices {night} {row['batch_id']}: {escape(row['devices'])}")
    print_unbroken(table)
    n_pooled = sum((row["pooled_batches"] or 1) > 1 for row in batches.to_pylist())
    if n_pooled:
        lines.append(f"{amount(n_pooled, 'batch', 'batches')} judged together with those before")
    lines += ["- not computed: too few scored images; * past its bound, and not by chance"]
    lines += [escape(str(output))] if output is not None else []
    for line in lines:
        say(line)
