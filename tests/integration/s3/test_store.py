"""The store's promises on a real S3 server, which checks signatures."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import s3fs
from hypothesis import HealthCheck, given, settings

from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.store.test_store import (
    CONTRACT,
    a_local_copy_has_the_objects_bytes,
    are_whole,
    behaves_like_a_dict,
    kill_in_the_middle_of_a_write,
    operations,
    race,
)
from thyro_core.errors import InputError, StoreError
from thyro_core.store.keys import study_key
from thyro_core.store.listing import list_files
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import study_ids


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Sets the AWS variables; s3fs keeps one client per process, which must not outlive them."""

    def set_variables(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        forget_clients()

    yield set_variables
    forget_clients()


@pytest.fixture
def store(s3_server: S3Server, speak: Callable[[dict[str, str]], None]) -> Store:
    speak(s3_server.environment())
    return open_store(f"s3://{BUCKET}/{uuid4().hex}")


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
def test_promise(store: Store, promise: Callable[[Store], None]) -> None:
    promise(store)


def test_a_local_copy(store: Store, tmp_path: Path) -> None:
    store.write("scratch", str(tmp_path).encode())
    a_local_copy_has_the_objects_bytes(store)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=operations)
def test_a_store_behaves_like_a_dict(store: Store, steps: list[tuple[str, str, bytes]]) -> None:
    behaves_like_a_dict(open_store(f"{store.url}/{uuid4().hex}"), steps)


def test_a_whole_bucket_can_be_the_store(store: Store) -> None:
    bucket = open_store(f"s3://{BUCKET}/")
    bucket.write("top/key", b"data")
    assert bucket.keys("top") == ["top/key"]
    assert open_store(bucket.url).read("top/key") == b"data"


def test_what_another_client_writes_is_seen_at_once(store: Store) -> None:
    assert store.keys("a") == []
    assert not store.exists("a/key")
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    other.pipe_file(store.path("a/key"), b"data")
    assert store.exists("a/key")
    assert store.keys("a") == ["a/key"]
    other.rm_file(store.path("a/key"))
    assert store.keys("a") == []


def test_a_study_that_another_client_plans_is_listed_at_once(store: Store) -> None:
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    for wanted in (["s1"], ["s1", "s2"], ["s1", "s2", "s3"]):
        other.pipe_file(store.path(study_key(wanted[-1])), b"{}")
        assert study_ids(store) == wanted


def test_a_killed_writer_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the writer's half stays behind
    kill_in_the_middle_of_a_write(store.url, "a/key")
    assert not store.exists("a/key")
    assert store.keys("") == []
    store.write("a/key", b"new")
    assert store.read("a/key") == b"new"


def test_racing_writers_leave_one_whole_object(store: Store) -> None:
    assert are_whole(race(store.url, writes=10, writers="xy"))
    assert store.keys("") == ["a/key"]


def test_a_wrong_secret_is_said_in_one_sentence_that_does_not_repeat_it(
    s3_server: S3Server, speak: Callable[[dict[str, str]], None]
) -> None:
    speak(s3_server.environment(secret="wrong-horse"))
    with pytest.raises(InputError, match="expected a store that lets us in, found: ") as caught:
        open_store(f"s3://{BUCKET}/store")
    assert str(caught.value).startswith(f"s3://{BUCKET}/store: ")
    assert "AWS_*" in str(caught.value)
    assert "wrong-horse" not in str(caught.value)


def test_no_credentials_at_all_are_said_in_one_sentence(
    s3_server: S3Server,
    speak: Callable[[dict[str, str]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = s3_server.environment()
    speak(variables)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    forget_clients()
    with pytest.raises(InputError, match="expected a store that lets us in, found: "):
        open_store(f"s3://{BUCKET}/store")


def test_a_server_that_does_not_answer_is_said_in_one_sentence(
    s3_server: S3Server, speak: Callable[[dict[str, str]], None]
) -> None:
    # Port 9 (discard) is closed everywhere.
    closed = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "THYRO_STORE_PATIENCE": "0.1"}
    speak(s3_server.environment() | closed)
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:9: expected the store to answer"):
        open_store(f"s3://{BUCKET}/store")


def test_a_bucket_that_is_not_there_is_said_in_one_sentence(
    s3_server: S3Server, speak: Callable[[dict[str, str]], None]
) -> None:
    speak(s3_server.environment())
    with pytest.raises(InputError, match=r"^s3://none-such/store: expected a store that lets us"):
        open_store("s3://none-such/store")


def test_the_first_bytes_of_objects(store: Store) -> None:
    contents = {"long": bytes(300) + b"x", "short": b"short", "gone": b"1"}
    for name, data in contents.items():
        store.write(f"set/{name}", data)
    folder = list_files(f"{store.url}/set")
    store.delete("set/gone")
    heads = folder.heads(sorted(contents), 132)
    assert heads == {"long": bytes(132), "short": b"short"}
