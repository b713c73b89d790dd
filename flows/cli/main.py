"""The `thyro` command."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer

from flows.cli.console import err, note
from flows.cli.deployments import deployments
from flows.cli.doctor import doctor
from flows.cli.drift import drift
from flows.cli.errors import errors_for_people
from flows.cli.evaluate import evaluate
from flows.cli.export import export
from flows.cli.feedback import feedback
from flows.cli.fetch import fetch
from flows.cli.garbage import gc
from flows.cli.images import ingest, phantom
from flows.cli.listen import listen
from flows.cli.models import models, promote
from flows.cli.overlay import overlay
from flows.cli.plan import plan
from flows.cli.predict import predict
from flows.cli.query import query, tables
from flows.cli.report import report
from flows.cli.screen import screen
from flows.cli.send import send
from flows.cli.serve import serve
from flows.cli.status import status
from flows.cli.studies import rm, studies
from flows.cli.study import study
from flows.cli.verify import verify
from thyro_core import NOTICE
from thyro_core.errors import InputError
from thyro_core.host import drop_unusable_proxies, keep_loopback_direct

app = typer.Typer(
    help=f"Cross-split studies of thyroid ultrasound classifiers. {NOTICE}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)

# In the order in which `thyro --help` lists them.
for _command in (
    phantom, fetch, ingest, plan, study, verify, doctor, report, export, query, tables, serve,
    promote, models, evaluate, drift, overlay, predict, listen, screen, send, feedback, status,
    studies, rm, gc, deployments,
):  # fmt: skip
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Logs, and tracebacks.")] = False,  # noqa: ARG001
) -> None:
    if version:
        from thyro_core import __version__

        typer.echo(__version__)


def main() -> None:
    """Run the command line; errors are one sentence, with `--debug` a traceback."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    _set_environment(debug=debug)
    _set_up_logs(debug=debug)
    # A scheduler's stop is a person's stop: jobs are cancelled, Ray ends with the program.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with errors_for_people(debug=debug):
        _check_options(arguments)
        app(arguments, prog_name="thyro")


def _check_options(arguments: Sequence[str]) -> None:
    """Say how a config key is given where somebody gives it as an option: `--epochs 3`.

    Raises:
        InputError: an option is none of the command's, but a config key.
    """
    commands: Mapping[str, Any] = vars(typer.main.get_command(app))["commands"]
    command = next((commands[word] for word in arguments if word in commands), None)
    if command is None:
        return
    options = {option for parameter in command.params for option in parameter.opts}
    if "--config" not in options:
        return
    from thyro_core.config import StudyConfig

    for word, after in pairwise((*arguments, "")):
        option, _, value = word.partition("=")
        key = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and option not in options and key in StudyConfig.model_fields:
            example = value or (after if after and not after.startswith("-") else "VALUE")
            msg = (
                f"{option}: expected an option of `thyro {command.name}`, found a config key; "
                f"give --set {key}={example}"
            )
            raise InputError(msg)


def _set_environment(*, debug: bool) -> None:
    """Settings that Prefect and Ray read when they are imported; what is set already stays."""
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if not debug:
        defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        defaults["PREFECT_INTERNAL_LOGGING_LEVEL"] = "CRITICAL"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    for name, kind in drop_unusable_proxies().items():
        note(
            f"{name} names a proxy of the kind {kind}, which is not supported: requests go out "
            "without it; name an HTTP proxy there, or unset it",
            err,
        )
    keep_loopback_direct()


def _set_up_logs(*, debug: bool) -> None:
    if debug:
        from thyro_core.logs import set_up_logs
        from thyro_core.settings import Settings

        set_up_logs(as_json=Settings().log_json)
        return
    # What a warning would say stands in the notes; its file and line help no user.
    warnings.simplefilter("ignore")
    # Nor does the message of a log handler that lost its server.
    logging.raiseExceptions = False
    logging.getLogger().addHandler(logging.NullHandler())
