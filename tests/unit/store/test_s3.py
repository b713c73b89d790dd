"""The file system for S3 keeps to the interface that s3fs offers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs
from botocore.exceptions import BotoCoreError

from tests.support.s3server import forget_clients
from thyro_core.store.s3 import RetryingS3FileSystem


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
