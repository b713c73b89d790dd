"""Pure functions of tables that remember their results: tests call them dozens of times."""

import hashlib
import pickle
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import pyarrow as pa

P = ParamSpec("P")
R = TypeVar("R")


def _digest(value: object) -> bytes:
    """A hash of an argument's content: Arrow tables by their rows, all else as pickled."""
    if isinstance(value, pa.Table):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_table(value.combine_chunks())
        return hashlib.sha256(sink.getvalue()).digest()
    if isinstance(value, dict):
        return pickle.dumps({key: _digest(item) for key, item in value.items()})
    return pickle.dumps(value)


def remember(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which is called once for arguments of the same content."""
    results: dict[bytes, R] = {}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        key = pickle.dumps(([_digest(arg) for arg in args], _digest(kwargs)))
        if key not in results:
            results[key] = function(*args, **kwargs)
        return results[key]

    return call
