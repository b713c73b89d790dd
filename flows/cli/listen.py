"""`thyro listen`: archives and scanners push objects, which are the next night's batch."""

import logging
import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import say
from thyro_core.errors import InputError, amount

if TYPE_CHECKING:
    from thyro_core.archive.listener import Listener

_MEGA, _GIGA = 10**6, 10**9


def listen(
    to: Annotated[
        str, typer.Argument(help="Folder or bucket for what arrives: the nightly run's batch.")
    ],
    ae_title: Annotated[
        str, typer.Option(help="What the listener is called; others are refused.")
    ] = "THYRO",
    host: Annotated[
        str, typer.Option(help="Where it listens; only this machine reaches 127.0.0.1.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port it listens at.")] = 11112,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="Who may send: 10.0.0.7, 10.0.0.0/24 or SCANNER@10.0.0.7; repeatable."),
    ] = None,
    max_object: Annotated[
        int, typer.Option(min=1, max=10_000, help="Largest object that is taken [MB].")
    ] = 2_000,
    keep_free: Annotated[
        int, typer.Option(min=0, max=100_000, help="Space that is left free on disk [GB].")
    ] = 5,
) -> None:
    """Take what archives and scanners push by DICOM, until Ctrl-C.

    Each object becomes a file below a folder of the day.
    """
    try:
        from thyro_core.archive.listener import ListenerRules, listening
    except ImportError as error:
        msg = (
            "thyro listen: expected pynetdicom, which speaks with archives, found none installed; "
            'pip install "thyro[archive]"'
        )
        raise InputError(msg) from error
    from thyro_core.archive.peers import parse_peer
    from thyro_core.host import scratch_folder
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    # The library's own lines are for its makers; ours say what became of an object.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    rules = ListenerRules(
        ae_title=ae_title,
        host=host,
        port=port,
        peers=tuple(map(parse_peer, peer or ())),
        max_bytes=max_object * _MEGA,
        keep_free=keep_free * _GIGA,
    )
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    store = open_store(to)
    scratch = scratch_folder(Settings()) / f"listener-{port}"
    with listening(store, rules, scratch) as listener:
        say(f"{escape(ae_title)} listens at {host}:{port}; what arrives goes to {escape(to)}")
        _say_counts(listener, end)
    say(f"stopped; {_counts_text(listener)}")


def _say_counts(listener: "Listener", end: threading.Event) -> None:
    """What has arrived, whenever something has and a minute is over."""
    before = ""
    while not end.wait(60):
        text = _counts_text(listener)
        if text != before:
            say(text)
        before = text


def _counts_text(listener: "Listener") -> str:
    counts = listener.counts
    parts = [
        f"{amount(counts['kept'], 'object')} kept",
        f"{counts['again']} sent again",
        f"{counts['refused']} refused",
        f"{amount(counts['turned away'], 'connection')} turned away",
    ]
    return ", ".join(parts)
