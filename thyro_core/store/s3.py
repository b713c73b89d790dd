"""S3 with patience: every request, its answer's body included, succeeds whole or is made again.

All that s3fs asks goes through one method, which is replaced here. The retries of s3fs and botocore
are off: three policies on top of each other would wait for many minutes, and name nothing.
"""

import re
from typing import Any

from botocore.exceptions import IncompleteReadError  # type: ignore[import-untyped]
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from thyro_core.errors import StoreError
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy

CONNECT_SECONDS = 5.0
"""How long a server may take to accept a connection [s]."""

READ_SECONDS = 20.0
"""How long a server may say nothing in the middle of an answer [s]."""

CONNECTIONS = 10
"""To the server at once, from one process."""


class PatientS3(S3FileSystem):  # type: ignore[misc]
    """s3fs's file system, whose every request is patient.

    Nothing but whole objects is ever put, so that a put whose answer was lost can be made again.
    After patience has ended, and only then, it raises StoreError; a refusal (no such object, no
    permission, a condition that is not met) comes at once, as from s3fs.
    """

    retries = 1

    def __init__(self, patience: float, **options: Any) -> None:  # noqa: ANN401 - s3fs's own
        """Make one; instances are shared by equal arguments, as all of fsspec's.

        Args:
            patience: how long a request is tried for [s]; 0: once.
            options: of s3fs.
        """
        config = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "max_pool_connections": CONNECTIONS,
            "retries": {"total_max_attempts": 1},
        }
        super().__init__(config_kwargs=config, use_listings_cache=False, **options)
        self._policy = RetryPolicy(patience)

    async def _call_s3(self, method: str, *lists: Any, **named: Any) -> Any:  # noqa: ANN401
        call = super()._call_s3

        async def once() -> Any:  # noqa: ANN401 - what botocore answers
            answer = await call(method, *lists, **named)
            if isinstance(answer, dict) and "Body" in answer:
                answer["Body"] = _Received(await _whole(answer))
            return answer

        bucket, key = named.get("Bucket", ""), named.get("Key") or named.get("Prefix", "")
        # Before the first request there is no client yet, and so no address.
        await self.set_session()
        place, operation = str(self._s3.meta.endpoint_url), f"{method} of s3://{bucket}/{key}"
        try:
            return await self._policy.call_async(once, f"{operation} at {place}")
        except RetriesExhaustedError as outage:
            raise _store_lost(place, operation, outage) from outage.error

    # As s3fs has it: the parent's would go past the method above.
    call_s3 = sync_wrapper(_call_s3)

    async def _cat_file(self, path: str, *args: Any, **named: Any) -> bytes:  # noqa: ANN401
        # s3fs asks for the size first, to fetch what is large in parts: most of ours is small.
        data: bytes = await super()._cat_file(path, *args, **(named | {"max_concurrency": 1}))
        return data


def _store_lost(place: str, operation: str, outage: RetriesExhaustedError) -> StoreError:
    # Without the addresses' queries, which mean nothing to people.
    reason = " ".join(re.sub(r"(://[^\s?]+)\?[^\s\"]*", r"\1", str(outage.error)).split())
    return StoreError(
        f"{place}: expected the store to answer {operation}, found failures for "
        f"{outage.seconds:.0f} s ({outage.attempts} x), the last {type(outage.error).__name__}: "
        f"{reason}; nothing finished is lost: check AWS_ENDPOINT_URL, and when the store is back "
        "the same command goes on (THYRO_STORE_PATIENCE says how long is waited)"
    )


async def _whole(answer: dict[str, Any]) -> bytes:
    """An answer's body.

    Raises:
        IncompleteReadError: it is shorter, or longer, than the server said.
    """
    body = answer["Body"]
    try:
        data = bytes(await body.read())
    finally:
        body.close()
    if len(data) != answer["ContentLength"]:
        raise IncompleteReadError(actual_bytes=len(data), expected_bytes=answer["ContentLength"])
    return data


class _Received:
    """A body that is here already, as s3fs reads it."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    async def read(self, size: int = -1) -> bytes:
        taken = self._left if size < 0 else self._left[:size]
        self._left = self._left[len(taken) :]
        return bytes(taken)

    def close(self) -> None:
        self._left = memoryview(b"")


# One cache for both: who makes s3fs forget its clients means these, too.
PatientS3._cache = S3FileSystem._cache  # noqa: SLF001
