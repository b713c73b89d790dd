"""A whole study with its images and its store in a bucket, as the command runs it."""

import json
import subprocess
from pathlib import Path

import pytest
import s3fs

from tests.imagesets import write_image_set
from tests.s3server import BUCKET, S3Server
from tests.test_study_cli import DEADLINE, command, environment
from thyro_core.storage import open_store


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """An image set in a bucket; s3fs forgets its clients before and after."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    folder = write_image_set(tmp_path / "set")
    store = open_store(f"s3://{BUCKET}/study-test")
    for file in folder.rglob("*"):
        if file.is_file():
            store.write(f"set/{file.relative_to(folder)}", file.read_bytes())
    yield store, s3_server
    s3fs.S3FileSystem.clear_instance_cache()


def run(arguments: list[str], home: Path, server: S3Server) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments,
        env=environment(home, **server.environment()),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def test_a_study_from_bucket_to_bucket_leaves_nothing_here_and_verifies(bucket, tmp_path) -> None:
    store, server = bucket
    home = tmp_path / "home"
    home.mkdir()
    url = f"{store.url}/store"
    arguments = command(f"{store.url}/set", url, epochs="1")
    done = run(arguments, home, server)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["store"] == url
    study = open_store(url)
    assert study.read_table("predictions", study_id=printed["study_id"]).num_rows == 14
    # Caches of Prefect, Ray and matplotlib (which the grad-cam package imports), and no store.
    assert {path.name for path in home.iterdir()} <= {".prefect", ".ray", ".cache", ".config"}
    everything = {key: study.read(key) for key in study.keys("")}
    # Prefect's database and Ray's token lie there; with logs too: tests/test_security.py.
    everything |= {str(p): p.read_bytes() for p in home.rglob("*") if p.is_file()}
    everything |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    secret = server.secret.encode()
    assert [name for name, data in everything.items() if secret in data] == []

    again = run(arguments, home, server)
    assert json.loads(again.stdout.splitlines()[-1])["metrics"] == printed["metrics"]
    verified = run([arguments[0], "verify", printed["study_id"], "--store", url], home, server)
    assert verified.returncode == 0, verified.stdout + verified.stderr
