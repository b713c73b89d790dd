"""`thyro serve`: the flows as forms in Prefect's UI, and the nightly run."""

import os
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, say
from flows.cli.options import StoreUrl


def serve(
    host: Annotated[
        str, typer.Option(help="Where an own server listens; only this machine reaches 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of an own server.")] = 4200,
    pages_host: Annotated[
        str, typer.Option(help="Where the worklists are served; others need a password.")
    ] = "127.0.0.1",
    pages_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the worklists' pages.")
    ] = 4201,
    store: StoreUrl = None,
    cron: Annotated[
        str | None, typer.Option(help="When the nightly run starts [THYRO_SCREENING_CRON].")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="In which zone, such as Europe/Berlin [THYRO_TIMEZONE].")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="The night's images: folder or URL [THYRO_SCREENING_BATCH].")
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(help="Prefect's block TYPE/NAME that sends word of nights [THYRO_NOTIFY]."),
    ] = None,
) -> None:
    """Offer the flows in Prefect's UI, and the worklists as pages; run the nightly one.

    Ctrl-C stops it.

    Uses the server of PREFECT_API_URL if that answers, else starts one.
    """
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    settings = Settings()
    # Absolute, for all runs: they need not share our folder.
    opened_store = open_store(store or settings.store)
    os.environ["THYRO_STORE"] = opened_store.url
    from flows.serving.deployments import NightlySchedule, deployments
    from flows.serving.notifications import NotificationPlan
    from flows.serving.pages import Pages
    from flows.serving.pages_server import check_access, serve_pages
    from flows.serving.runner import serve as run
    from flows.serving.server import is_loopback
    from thyro_core.reporting.worklist_exams import check_viewer
    from thyro_core.screening.identifiers import check_study_links, study_book

    secret = settings.pages_password
    password = None if secret is None else secret.get_secret_value()
    names = tuple(name.strip().lower() for name in settings.pages_names.split(",") if name.strip())
    check_access(pages_host, password)
    check_viewer(settings.viewer_link)
    check_study_links(settings)
    nightly = NightlySchedule(
        cron or settings.screening_cron,
        timezone or settings.timezone,
        batch or settings.screening_batch,
    )
    entries = deployments(nightly)
    if not is_loopback(host) and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        _say(
            f"--host {host}: everybody in your network can start and stop runs; set "
            "PREFECT_SERVER_API_AUTH_STRING and PREFECT_API_AUTH_STRING to user:password"
        )
    if nightly.batch is None:
        _say(
            f"no nightly run: its schedule ({nightly.cron}, {nightly.timezone}) is inactive until "
            "the night's images are named by --batch or THYRO_SCREENING_BATCH"
        )
    else:
        _say(f"nightly run of {nightly.batch} at {nightly.cron} ({nightly.timezone})")
    block = notify or settings.notify
    plan = None
    if block:
        plan = NotificationPlan(block, nightly.cron, nightly.timezone, bool(nightly.batch))
        _say(f"word of nights that fail, refer images or do not begin goes to {block}")
    book, pattern = study_book(opened_store, settings), settings.worklist_links
    links = (pattern, book) if book is not None and pattern is not None else None
    pages = Pages(opened_store, password, settings.viewer_link, names, links)
    with serve_pages(pages, pages_host, pages_port) as address:
        _say(f"worklists at {address}{_who_may_look(password, pages_host)}")
        run(entries, host, port, _say, notify=plan)


def _who_may_look(password: str | None, host: str) -> str:
    from flows.serving.server import is_loopback

    if password is None:
        return ", for everybody on this machine; THYRO_PAGES_PASSWORD asks for a password"
    if is_loopback(host):
        return ""
    return "; the password travels unencrypted: put a proxy with TLS before it"


def _say(line: str) -> None:
    say(escape(line), err)
