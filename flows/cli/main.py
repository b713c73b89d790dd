"""The `thyro` command."""

import json
import logging
import os
import signal
import sys
import time
import warnings
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from flows.cli.drift import drift
from flows.cli.models import Promote, models
from flows.cli.overlay import overlay
from flows.cli.query import query, tables
from flows.cli.report import report
from flows.cli.screen import Screen
from flows.cli.serve import serve
from flows.cli.status import gc, status
from flows.serving.child_process import end_soon
from thyro_core import NOTICE
from thyro_core.errors import StoppedError, ThyroError
from thyro_core.tables.io import read_table

if TYPE_CHECKING:
    from thyro_core.datasets.manifest import Manifest
    from thyro_core.store.store import Store as OpenStore

app = typer.Typer(
    help=f"Cross-split studies of thyroid ultrasound classifiers. {NOTICE}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Store = Annotated[
    str | None, typer.Option(help="fsspec URL for everything that is kept [THYRO_STORE].")
]
_out = Console()
_err = Console(stderr=True)


def main() -> None:
    """Run the command line; errors are one sentence, with `--debug` a traceback."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    _quiet_environment(debug=debug)
    # A scheduler's stop is a person's stop: jobs are cancelled, Ray ends with the program.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(arguments, prog_name="thyro")
    except ThyroError as error:
        if isinstance(error, ConnectionError):  # Prefect's server is lost
            end_soon(error.exit_code)
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except OSError as error:
        if debug:
            raise
        where = error.filename or "the store or the source"
        cure = "check the path, its permissions and the free space, and start the command again"
        _fail(f"{where}: {error.strerror or error}; what is finished is kept; {cure}", 1)


def _fail(sentence: str, exit_code: int) -> NoReturn:
    _err.print(f"[red]thyro:[/] {escape(sentence)}", highlight=False, soft_wrap=True)
    sys.exit(exit_code)


def _quiet_environment(*, debug: bool) -> None:
    """Settings that Prefect and Ray read when they are imported; what is set already stays."""
    quiet = {
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        # The first start makes the database, which can take longer than Prefect waits for.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if not debug:
        quiet["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        quiet["PREFECT_INTERNAL_LOGGING_LEVEL"] = "CRITICAL"
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if debug:
        from thyro_core.logs import set_up_logs
        from thyro_core.settings import Settings

        set_up_logs(as_json=Settings().log_json)
    else:
        # What a warning would say stands in the notes; its file and line help no user.
        warnings.simplefilter("ignore")
        # Nor what a log handler says that lost its server.
        logging.raiseExceptions = False
        logging.getLogger().addHandler(logging.NullHandler())


@app.command()
def phantom(
    dest: Annotated[str, typer.Argument(help="Folder or fsspec URL to write to.")],
    images: Annotated[int, typer.Option(min=1, help="How many images.")] = 508,
    malignant: Annotated[int, typer.Option(min=0, help="How many of them malignant.")] = 93,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same images.")] = 0,
) -> None:
    """Write a set of synthetic ultrasound images with labels.csv."""
    from thyro_core.datasets.phantoms.generate import write_phantoms

    with _err.status("drawing phantoms") as status:
        write_phantoms(
            dest,
            images=images,
            malignant=malignant,
            seed=seed,
            progress=lambda done: status.update(f"drawing phantoms: {done} of {images}"),
        )
    _say(f"{images} synthetic images, {malignant} malignant: {escape(dest)}")


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="Folder or fsspec URL of the image set.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of config keys.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A config key=value.")] = None,
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check an image set, say what is wrong with it, and pack it for training."""
    from flows.cli.config_input import read_config
    from thyro_core.datasets.manifest import ingest as run
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    study = read_config(config, set_ or [])
    sides = sorted({study.side(architecture) for architecture in study.architectures})
    opened = open_store(store or Settings().store)
    with _err.status("reading images") as status:
        manifest = run(
            source,
            study.ingest(),
            opened,
            sides,
            lambda done, total: status.update(f"decoded {done} of {total} images"),
        )
    _show_manifest(manifest, as_json=as_json)


def _show_manifest(manifest: "Manifest", *, as_json: bool) -> None:
    from thyro_core.study.summary import state_counts

    found = state_counts(manifest.table)
    if as_json:
        _print_json(
            {"manifest_id": manifest.manifest_id, "counts": found, "notes": list(manifest.notes)}
        )
        return
    _out.print(f"Manifest [bold]{manifest.manifest_id}[/] ({manifest.layout})")
    table = Table("state", "images")
    for state, number in found.items():
        table.add_row(state, str(number))
    _out.print(table)
    for note in manifest.notes:
        _say(f"[yellow]Note:[/] {escape(note)}")


@app.command()
def study(
    source: Annotated[str, typer.Argument(help="Folder or fsspec URL of the image set.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of config keys.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A config key=value.")] = None,
    store: Store = None,
    ray: Annotated[
        str | None,
        typer.Option(help="Ray address: local, auto, host:port or http://head:8265 [THYRO_RAY]."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object last.")] = False,
) -> None:
    """Run the cross-split study; started again, it goes on where it stopped."""
    from flows.cli.config_input import read_config
    from flows.cli.study_display import StudyDisplay
    from flows.forms import without_secret
    from flows.observer import observer
    from thyro_core.datasets.layouts import read_image_set
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    values = read_config(config, set_ or [])
    # Listed once here: a wrong source should not wait for Prefect to start before it is said.
    read_image_set(without_secret(source), values.ingest())
    started = time.monotonic()
    opened = open_store(store or Settings().store)
    display = StudyDisplay(_err)
    from flows.serving.server import ServerLostError, server_needed
    from flows.study import study as run

    token = observer.set(display)
    try:
        with display.shown(), server_needed():
            study_id = run(source, values, opened.url, ray or "")
    except ServerLostError as error:
        # It was lost after the last step: nothing of the study is missing.
        if display.concluded is None:
            raise
        study_id = display.concluded
        display.held_up(f"{error}; the study is concluded all the same")
        end_soon(0)
    except KeyboardInterrupt as interrupt:
        msg = "stopped; what is finished is kept, and the same command goes on"
        raise StoppedError(msg) from interrupt
    finally:
        observer.reset(token)
    _show_study(opened, study_id, time.monotonic() - started, as_json=as_json)


def _show_study(store: "OpenStore", study_id: str, seconds: float, *, as_json: bool) -> None:
    from thyro_core.store.keys import report_key
    from thyro_core.study.lifecycle import study_notes, table_locations
    from thyro_core.study.plan import load_plan
    from thyro_core.study.summary import figures, summary_rows, undefined_notes

    plan = load_plan(store, study_id)
    metrics = read_table(store, "metrics", study_id=study_id)
    found = figures(metrics, plan.config)
    undefined = undefined_notes(metrics)
    tables = table_locations(store, plan)
    key = report_key(study_id)
    page = f"{store.url}/{key}" if store.exists(key) else None
    if as_json:
        _print_json(
            {
                "study_id": study_id,
                "store": store.url,
                "tables": tables,
                "report": page,
                "metrics": found,
                "notes": [*study_notes(store, plan), *undefined],
                "notice": NOTICE,
                "seconds": round(seconds, 1),
            }
        )
        return
    header, *rows = summary_rows(found)
    title = f"Study {study_id}: mean over {plan.config.splits} splits (95 % interval)"
    table = Table(*header, title=title, caption=NOTICE, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(cell.replace(" (", "\n").rstrip(")").replace(", ", "\n") for cell in row))
    _out.print(table)
    for note in undefined:
        _say(f"[yellow]Note:[/] {escape(note)}")
    for name, place in tables.items():
        _say(f"{name:<12} {escape(place)}")
    if page:
        _say(f"{'report':<12} {escape(page)}")


def _say(line: str) -> None:
    """One line of rich markup, never broken by the width of a terminal."""
    _out.print(line, highlight=False, soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _print_json(value: dict[str, object]) -> None:
    typer.echo(json.dumps(_finite(value)))


def _finite(value: object) -> object:
    """JSON knows no NaN: an undefined figure is null."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and isnan(value):
        return None
    return value


@app.command()
def verify(
    study_id: Annotated[str | None, typer.Argument(help="The study; default: all.")] = None,
    store: Store = None,
) -> None:
    """Check hashes, completeness and leakage, and that the metrics follow from the predictions."""
    from thyro_core.errors import InputError
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store
    from thyro_core.study.plan import study_ids
    from thyro_core.study.verify.verify import verify_study

    opened = open_store(store or Settings().store)
    ids = [study_id] if study_id else study_ids(opened)
    if not ids:
        msg = f"{opened.url}: expected a study to verify, found none; check --store"
        raise InputError(msg)
    failed = 0
    for name in ids:
        for check in track(
            verify_study(opened, name),
            description=f"verifying {name}",
            console=_err,
            transient=True,
        ):
            mark = "[green]ok[/]  " if check.passed else "[red]FAIL[/]"
            _say(f"{mark} {name} {check.name}: {escape(check.detail)}")
            failed += not check.passed
    if failed:
        msg = f"{_count(failed, 'check')} failed; the lines marked FAIL say what and where"
        raise ThyroError(msg)


@app.command()
def doctor(store: Store = None) -> None:
    """Say what works here (Python, torch, GPU, Ray, store, weights), and the cure for the rest."""
    from flows.cli.doctor import examine
    from thyro_core.settings import Settings

    settings = Settings()
    failed = 0
    for finding in examine(store or settings.store, settings.weights):
        mark = {"ok": "[green]ok[/]  ", "warn": "[yellow]note[/]", "fail": "[red]FAIL[/]"}
        _say(f"{mark[finding.state]} {finding.name}: {escape(finding.detail)}")
        failed += finding.state == "fail"
    if failed:
        msg = f"{_count(failed, 'part')} did not work; the lines marked FAIL say the cure"
        raise ThyroError(msg)


# Defined in modules of their own, commands of this one.
report = app.command()(report)
query, tables = app.command()(query), app.command()(tables)
serve = app.command()(serve)
promote, models = app.command("promote")(Promote), app.command()(models)
drift = app.command()(drift)
overlay = app.command()(overlay)
screen = app.command("screen")(Screen)
status, gc = app.command()(status), app.command()(gc)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Logs, and tracebacks.")] = False,  # noqa: ARG001
) -> None:
    if version:
        from thyro_core import __version__

        typer.echo(__version__)
