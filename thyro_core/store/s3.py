"""S3 with retries: every request, its response's body included, succeeds whole or is made again.

s3fs takes its client from `get_s3`, which is overridden here: what it returns has the methods of
botocore's client, each under the retry policy. The retries of s3fs and botocore are off: three
policies on top of each other would wait for many minutes, and name nothing.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    IncompleteReadError,
)
from s3fs import S3FileSystem

from thyro_core.errors import NoConditionalWritesError, StoreError
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy, is_transient

CONNECT_SECONDS = 5.0
"""How long a server may take to accept a connection [s]."""

READ_SECONDS = 20.0
"""How long a server may be silent in the middle of a response [s]."""

CONNECTIONS = 10
"""To the server at once, from one process."""

_CURES = {
    "XAmzContentSHA256Mismatch": "it does not know the checksums that clients add by default: set "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required, and start the same command again",
}
"""What helps against refusals that say nothing to people, by the server's code."""

_OF_OBJECTS = frozenset({"get_object", "head_object"})
"""Operations with an outage clock of their own: a store whose objects lie on a broken disk goes on
listing them, which is no answer to who reads them."""

_UNKNOWN_CONDITION = frozenset({400, 501})
"""HTTP status of servers that do not know conditional writes."""

_NO_CONDITIONS = (
    "it does not know conditional writes, by which programs keep from overwriting each other's "
    "files: use another S3 server, or a folder"
)


class RetryingS3FileSystem(S3FileSystem):  # type: ignore[misc]
    """s3fs's file system, each of whose requests is retried.

    Only whole objects are ever put, so that a put whose response was lost can be made again. A
    refusal (no such object, no permission, a condition that is not met) is raised at once, as by
    s3fs; StoreError is raised after an outage that exceeds the policy, and for the refusals whose
    cure is known.

    As with all of fsspec's, instances with equal arguments are one: they share the outage clock.
    """

    retries = 1

    def __init__(self, retry_seconds: float, **options: Any) -> None:  # noqa: ANN401 - s3fs's
        """Make one that retries each request for so long [s]; 0: one attempt.

        Args:
            retry_seconds: how long.
            options: of s3fs, which fsspec takes from its configuration (such as `FSSPEC_S3`); those
                that retries and listings depend on are set here whatever they say.
        """
        config = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "max_pool_connections": CONNECTIONS,
            **options.pop("config_kwargs", {}),
            "retries": {"total_max_attempts": 1},
        }
        # With more at once, each read asks for the size first, to fetch large objects in parts.
        own = {"config_kwargs": config, "use_listings_cache": False, "max_concurrency": 1}
        super().__init__(**options | own)
        whole = RetryPolicy(retry_seconds)
        self._policies = whole, RetryPolicy(retry_seconds, part_of=whole)

    async def get_s3(self, bucket: str | None = None) -> "_RetryingClient":
        """The client for requests to a bucket."""
        return _RetryingClient(await super().get_s3(bucket), *self._policies)


class _RetryingClient:
    """The methods of an S3 client, under two retry policies: one of reading objects."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - botocore's
        policy: RetryPolicy,
        object_policy: RetryPolicy,
    ) -> None:
        self._client = client
        self._policy = policy
        self._object_policy = object_policy

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._client, name)
        policy = self._object_policy if name in _OF_OBJECTS else self._policy

        # s3fs looks up the arguments that a method takes by its name.
        @wraps(method)
        async def request(**arguments: Any) -> Any:  # noqa: ANN401 - botocore's
            async def attempt() -> Any:  # noqa: ANN401 - botocore's
                response = await method(**arguments)
                if isinstance(response, dict) and "Body" in response:
                    response["Body"] = _ReceivedBody(await _whole_body(response))
                return response

            object_key = arguments.get("Key") or arguments.get("Prefix", "")
            operation = f"{name} of s3://{arguments.get('Bucket', '')}/{object_key}"
            url = str(self._client.meta.endpoint_url)
            try:
                return await policy.call_async(attempt, f"{operation} at {url}")
            except RetriesExhaustedError as outage:
                with_cure = _with_cure(url, operation, outage.error, arguments)
                raise with_cure or _store_lost(url, operation, outage) from outage.error
            except ClientError as error:
                with_cure = _with_cure(url, operation, error, arguments)
                if with_cure is None:
                    raise
                raise with_cure from error

        return request


def _with_cure(
    url: str, operation: str, error: BaseException, arguments: Mapping[str, object]
) -> StoreError | None:
    """A refusal with what helps against it, where that is known."""
    if not isinstance(error, ClientError):
        return None
    text = f"{url}: expected the store to answer {operation}, found {error}"
    code = error.response.get("Error", {}).get("Code")
    if code in _CURES:
        return StoreError(f"{text}; {_CURES[code]}")
    # A file that is read in parts is requested by its tag, too.
    is_write = operation.startswith(("put_object ", "complete_multipart_upload "))
    is_conditional = is_write and not arguments.keys().isdisjoint(("IfMatch", "IfNoneMatch"))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    # Whether it was for the condition, a put without one shows.
    is_unknown = status in _UNKNOWN_CONDITION or code == "NotImplemented"
    if is_conditional and is_unknown and not is_transient(error):
        return NoConditionalWritesError(f"{text}; {_NO_CONDITIONS}")
    return None


def _store_lost(url: str, operation: str, outage: RetriesExhaustedError) -> StoreError:
    # Without the addresses' queries, which mean nothing to people.
    reason = " ".join(re.sub(r"(://[^\s?]+)\?[^\s\"]*", r"\1", str(outage.error)).split())
    return StoreError(
        f"{url}: expected the store to answer {operation}, found failures for "
        f"{outage.seconds:.0f} s ({outage.attempts} x), the last {type(outage.error).__name__}: "
        f"{reason}; nothing finished is lost: check AWS_ENDPOINT_URL, and when the store is back "
        "the same command goes on (THYRO_STORE_PATIENCE says how long is waited)"
    )


async def _whole_body(response: dict[str, Any]) -> bytes:
    """The bytes of a response's body.

    Raises:
        IncompleteReadError: they are fewer, or more, than the server announced.
    """
    body = response["Body"]
    try:
        data = bytes(await body.read())
    finally:
        body.close()
    if len(data) != response["ContentLength"]:
        raise IncompleteReadError(actual_bytes=len(data), expected_bytes=response["ContentLength"])
    return data


class _ReceivedBody:
    """A body in memory, with the interface that s3fs reads."""

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    async def read(self, size: int = -1) -> bytes:
        part = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(part) :]
        return bytes(part)

    def close(self) -> None:
        self._rest = memoryview(b"")
