"""What Prefect leaves in a process that has run a flow, and its end."""

import logging
import sys


def stop_prefect() -> None:
    """End the temporary server and the event client of this process, if it has run a flow.

    Both live as long as the process. The client's websocket sends a ping every twenty seconds, with
    bytes of Python's global generator: Hypothesis then blames whichever strategy draws data.
    """
    if "prefect.events.worker" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.server.api.server import SubprocessASGIServer

    # Prefect's handler writes to the stream of the test that was the first to log: it is closed.
    logging.disable(logging.CRITICAL)
    try:
        EventsWorker.drain_all(timeout=10)
        SubprocessASGIServer().stop()
    finally:
        logging.disable(logging.NOTSET)
