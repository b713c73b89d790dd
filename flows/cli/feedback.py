"""`thyro feedback`: what readers said of the worklists, taken in and summed up."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import note, print_json, say
from flows.cli.errors import read_input
from flows.cli.options import JsonLast, StoreUrl, open_store_at
from thyro_core import NOTICE
from thyro_core.errors import amount

if TYPE_CHECKING:
    from thyro_core.store.store import Store


def feedback(
    file: Annotated[
        Path | None, typer.Argument(help="Feedback that a worklist's page saved; default: none.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Write verdicts as CANDIDATE labels: readers saw the score."),
    ] = None,
    store: StoreUrl = None,
    as_json: JsonLast = False,
) -> None:
    """Take in what readers said of a worklist, and say how far they agree with its bands."""
    from thyro_core.screening.feedback import OPINION, agreement, agreement_sentence

    opened_store = open_store_at(store)
    if file is not None:
        _take_in(opened_store, file)
    rows = agreement(opened_store)
    if labels is not None:
        _write_labels(opened_store, labels)
    if as_json:
        print_json({"agreement": rows, "meaning": OPINION, "notice": NOTICE})
        return
    if not rows:
        say("no verdicts yet: readers agree or disagree on a worklist's page")
        return
    for row in rows:
        say(f"{row['model_id']} {agreement_sentence(row)}")
    say(OPINION)
    say(NOTICE)


def _take_in(store: "Store", file: Path) -> None:
    from thyro_core.screening.feedback import add_feedback, parse_feedback

    data = read_input(file, str(file), "a file that can be read", "; check the path")
    date, events = parse_feedback(data, str(file))
    n_new = add_feedback(store, date, events) if events else 0
    say(
        f"{escape(str(file))}: {amount(len(events), 'entry', 'entries')}, {n_new} new, "
        f"{len(events) - n_new} already there"
    )


def _write_labels(store: "Store", path: Path) -> None:
    from thyro_core.screening.feedback import CANDIDATES, candidate_labels

    table, n_split = candidate_labels(store)
    rows = table.to_pylist()
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, table.column_names or ["image", "label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    say(f"{escape(str(path))}: {amount(len(rows), 'candidate label')}")
    if n_split:
        note(f"{amount(n_split, 'image')} left out, on which readers contradict each other")
    n_nameless = sum(row["image"] is None for row in rows)
    if n_nameless:
        note(
            f"{amount(n_nameless, 'row')} without a path: THYRO_KEEP_NAMES was not set when they "
            "were screened; file_id is the hash by which a file is found"
        )
    note(CANDIDATES)
