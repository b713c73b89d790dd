"""`thyro study`: the cross-split study of an image set, from images to results."""

import shlex
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, note, out, print_json, result_table, say
from flows.cli.errors import resumable
from flows.cli.options import (
    ConfigFile,
    ConfigKeys,
    ImageColumn,
    ImageSources,
    JsonLast,
    LabelColumn,
    LabelMap,
    PatientColumn,
    StoreUrl,
    label_options,
    open_store_at,
)
from flows.cli.plan import show_forecast
from flows.serving.child_process import end_soon
from thyro_core import NOTICE

if TYPE_CHECKING:
    from thyro_core.store.store import Store
    from thyro_core.study.plan import StudyPlan


def study(
    source: ImageSources,
    config: ConfigFile = None,
    set_: ConfigKeys = None,
    image_column: ImageColumn = "",
    label_column: LabelColumn = "",
    patient_column: PatientColumn = "",
    label_map: LabelMap = "",
    store: StoreUrl = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Ray address: local, auto, host:port or http://head:8265 [THYRO_RAY]."),
    ] = None,
    permute_labels: Annotated[
        bool,
        typer.Option(
            "--permute-labels", help="A null study: labels exchanged at random between groups."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Train nothing: say what it can show and takes, as `plan`."),
    ] = False,
    as_json: JsonLast = False,
) -> None:
    """Run the cross-split study; started again, it goes on where it stopped."""
    from flows.cli.config_input import read_config

    options = label_options(image_column, label_column, patient_column, label_map)
    values = read_config(config, set_ or [], options)
    if permute_labels:
        values = values.model_copy(update={"permute_labels": True})
    if dry_run:
        show_forecast(source, values, open_store_at(store), as_json=as_json)
        return
    start_time = time.monotonic()
    with err.status("starting"):
        from flows.cli.study_display import StudyDisplay
        from flows.forms import without_secret
        from flows.observer import observer
        from thyro_core.datasets.joined_sources import Sources, read_sources

        # Listed once here: a wrong source is reported before Prefect starts.
        addresses = [without_secret(address) for address in source]
        read_sources(Sources(addresses, values.centre_column), values.ingest())
        opened_store = open_store_at(store)
        from flows.serving.command_server import prefect_server
        from flows.serving.server import ServerLostError
        from flows.study import study as run

    display = StudyDisplay(err)

    token = observer.set(display)
    try:
        with resumable(), display.live(), prefect_server():
            first, *others = addresses
            study_id = run(
                first,
                config=values,
                store=opened_store.url,
                ray=ray or "",
                more_sources=tuple(others),
            )
    except ServerLostError as error:
        # It was lost after the last step: nothing of the study is missing.
        if display.concluded is None:
            raise
        study_id = display.concluded
        display.on_delay(f"{error}; the study is concluded all the same")
        end_soon(0)
    finally:
        observer.reset(token)
    place = f" --store {shlex.quote(store)}" if store else ""
    _show_results(opened_store, study_id, time.monotonic() - start_time, place, as_json=as_json)


def _show_results(
    store: "Store", study_id: str, seconds: float, place: str, *, as_json: bool
) -> None:
    from thyro_core.store.keys import report_key
    from thyro_core.study.lifecycle import study_notes, table_locations
    from thyro_core.study.plan import load_plan
    from thyro_core.study.summary import (
        chance_notes,
        metric_summaries,
        summary_rows,
        undefined_notes,
    )
    from thyro_core.tables.io import read_table

    plan = load_plan(store, study_id)
    metrics = read_table(store, "metrics", study_id=study_id)
    means = metric_summaries(metrics, plan.config)
    doubts = (*chance_notes(means), *undefined_notes(metrics))
    tables = table_locations(store, plan)
    key = report_key(study_id)
    page = f"{store.url}/{key}" if store.exists(key) else None
    if as_json:
        print_json(
            {
                "study_id": study_id,
                "store": store.url,
                "tables": tables,
                "report": page,
                "metrics": means,
                "notes": [*study_notes(store, plan), *doubts],
                "notice": NOTICE,
                "seconds": round(seconds, 1),
            }
        )
        return
    header, *rows = summary_rows(means)
    title = f"Study {study_id}: mean over {plan.config.splits} splits (95 % interval)"
    table = result_table(*header, title=title)
    for row in rows:
        table.add_row(*(cell.replace(" (", "\n").rstrip(")").replace(", ", "\n") for cell in row))
    out.print(table)
    for text in doubts:
        note(text)
    report = page.removeprefix("file://") if page else "none: it could not be drawn"
    say(f"report   {escape(report)}")
    say("Next:")
    for command in next_commands(plan):
        say(f"  thyro {command}{escape(place)}")


def next_commands(plan: "StudyPlan") -> list[str]:
    """What can be done with a finished study; promotion only where it is not bound to be refused.

    Args:
        plan: the study.
    """
    study_id, config = plan.study_id, plan.config
    commands = [f"report {study_id} --open", f"verify {study_id}"]
    is_random = plan.weights[config.architectures[0]].sha256 is None
    return commands if is_random or config.permute_labels else [*commands, f"promote {study_id}"]
