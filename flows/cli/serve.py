"""`thyro serve`: the flows as forms in Prefect's UI, and the nightly run."""

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

_err = Console(stderr=True)


def serve(
    host: Annotated[
        str, typer.Option(help="Where an own server listens; only this machine reaches 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of an own server.")] = 4200,
    store: Annotated[
        str | None, typer.Option(help="fsspec URL for everything that is kept [THYRO_STORE].")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(help="When the nightly run starts [THYRO_SCREENING_CRON].")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="In which zone, such as Europe/Berlin [THYRO_TIMEZONE].")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="The night's images: folder or URL [THYRO_SCREENING_BATCH].")
    ] = None,
) -> None:
    """Offer the flows in Prefect's UI, and run the nightly one; Ctrl-C stops it.

    Uses the server of PREFECT_API_URL if that answers, else starts one.
    """
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    settings = Settings()
    # Absolute, for all runs: they need not share our folder.
    os.environ["THYRO_STORE"] = open_store(store or settings.store).url
    from flows.serving.deployments import Night, deployments
    from flows.serving.runner import serve as run

    night = Night(
        cron or settings.screening_cron,
        timezone or settings.timezone,
        batch or settings.screening_batch,
    )
    wanted = deployments(night)
    _warn(host)
    _say(night_line(night.cron, night.timezone, night.batch))
    run(wanted, host, port, _say)


def night_line(cron: str, timezone: str, batch: str | None) -> str:
    """What will happen at night, for the person at the terminal."""
    if batch is None:
        return (
            f"no nightly run: its schedule ({cron}, {timezone}) is inactive until the night's "
            "images are named by --batch or THYRO_SCREENING_BATCH"
        )
    return f"nightly run of {batch} at {cron} ({timezone})"


def _warn(host: str) -> None:
    from flows.serving.server import is_loopback

    if not is_loopback(host) and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        _say(
            f"--host {host}: everybody in your network can start and stop runs; set "
            "PREFECT_SERVER_API_AUTH_STRING and PREFECT_API_AUTH_STRING to user:password"
        )


def _say(line: str) -> None:
    _err.print(escape(line), highlight=False, soft_wrap=True)
