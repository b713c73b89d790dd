"""The file system for S3 keeps to the interface that s3fs offers."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from s3fs import S3FileSystem

from tests.support.s3server import forget_clients
from thyro_core.errors import StoreError
from thyro_core.store.s3 import CONNECT_SECONDS, RetryingS3FileSystem


class _TakenError(Exception):
    """The client was requested."""


REQUESTS: dict[str, Callable[[RetryingS3FileSystem, str], object]] = {
    "read": lambda fs, _: fs.cat_file("bucket/key"),
    "read a range": lambda fs, _: fs.cat_file("bucket/key", start=1, end=2),
    "open": lambda fs, _: fs.open("bucket/key", "rb").read(),
    "write": lambda fs, _: fs.pipe_file("bucket/key", b"data"),
    "upload": lambda fs, file: fs.put_file(file, "bucket/key"),
    "delete": lambda fs, _: fs.rm_file("bucket/key"),
    "list": lambda fs, _: fs.find("bucket/folder"),
    "look up": lambda fs, _: fs.info("bucket/key"),
    "call": lambda fs, _: fs.call_s3("list_objects_v2", Bucket="bucket"),
}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_every_request_takes_its_client_from_get_s3(
    request_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def get_s3(*_: object) -> object:
        raise _TakenError

    (tmp_path / "file").write_bytes(b"data")
    # Port 9 (discard) is closed everywhere: a request past get_s3 fails in another way.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(RetryingS3FileSystem, "get_s3", get_s3)
    forget_clients()
    try:
        REQUESTS[request_name](RetryingS3FileSystem(0.0), str(tmp_path / "file"))
    except _TakenError:
        return
    except (OSError, BotoCoreError) as error:
        detail = repr(error)
    else:
        detail = "no request"
    finally:
        forget_clients()
    pytest.fail(
        f's3fs {s3fs.__version__} makes the request "{request_name}" without get_s3 ({detail}): '
        "it would not be retried; see thyro_core/store/s3.py"
    )


def test_s3fs_makes_one_attempt_itself() -> None:
    assert s3fs.S3FileSystem.retries > 1, f"s3fs {s3fs.__version__} has no retries of its own now"
    assert RetryingS3FileSystem.retries == 1


def test_options_of_fsspecs_configuration_reach_s3fs_but_not_the_retries(monkeypatch) -> None:
    options = {
        "config_kwargs": {"read_timeout": 99, "retries": {"total_max_attempts": 9}},
        "endpoint_url": "http://127.0.0.1:9",
        "max_concurrency": 5,
    }
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    fs = RetryingS3FileSystem(0.125)
    assert fs.endpoint_url == "http://127.0.0.1:9"
    assert fs.config_kwargs["read_timeout"] == 99
    assert fs.config_kwargs["connect_timeout"] == CONNECT_SECONDS
    assert fs.config_kwargs["retries"] == {"total_max_attempts": 1}
    assert fs.max_concurrency == 1


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        ("XAmzContentSHA256Mismatch", "AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
        ("NotImplemented", "does not know conditional writes"),
    ],
)
def test_a_refusal_that_says_nothing_to_people_has_its_cure(monkeypatch, code, cure) -> None:
    fs = RetryingS3FileSystem(0.0)

    class Client:
        meta = SimpleNamespace(endpoint_url="http://store.example")

        async def put_object(self, **_: object) -> None:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")

    async def client(*_: object) -> Client:
        return Client()

    monkeypatch.setattr(S3FileSystem, "get_s3", client)
    with pytest.raises(StoreError, match=cure) as caught:
        fs.call_s3("put_object", Bucket="b", Key="k", IfNoneMatch="*")
    assert "http://store.example" in str(caught.value)
    assert "put_object of s3://b/k" in str(caught.value)
