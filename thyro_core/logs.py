"""What programs say of themselves: one line an event, with the study, split and architecture.

Nothing personal belongs in a log: ids are hashes, and no message quotes a label file.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from thyro_core.urls import redact

_FIELDS: ContextVar[dict[str, str | int]] = ContextVar("log_fields", default={})  # noqa: B039
_NAMES = ("study", "split", "architecture")


@contextmanager
def log_context(**fields: str | int) -> Iterator[None]:
    """Every event in the block carries these fields: `study`, `split`, `architecture`."""
    token = _FIELDS.set(_FIELDS.get() | fields)
    try:
        yield
    finally:
        _FIELDS.reset(token)


def set_up_logs(*, as_json: bool) -> None:
    """Send every event of this process to stderr; a second call changes nothing.

    Args:
        as_json: One JSON object a line, for a collector; else plain lines, for a person.
    """
    root = logging.getLogger()
    if any(isinstance(handler.formatter, _Line) for handler in root.handlers):
        return
    handler = logging.StreamHandler()
    handler.addFilter(_add_fields)
    handler.setFormatter(_JsonLine() if as_json else _Line())
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _add_fields(record: logging.LogRecord) -> bool:
    for name, value in _FIELDS.get().items():
        setattr(record, name, value)
    return True


class _Line(logging.Formatter):
    """Time, level, where it comes from, the fields, and the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(where)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        where = "".join(f" {name}={value}" for name, value in _fields(record).items())
        record.where = f" [{where.strip()}]" if where else ""
        # A traceback may quote an address with its password or signature.
        return redact(super().format(record))


class _JsonLine(_Line):
    def format(self, record: logging.LogRecord) -> str:
        plain: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            plain["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(plain)


def _fields(record: logging.LogRecord) -> dict[str, str | int]:
    return {name: value for name in _NAMES if (value := getattr(record, name, None)) is not None}
