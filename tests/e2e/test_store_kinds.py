"""The same on a folder and in a bucket: every command, every table, and nothing left elsewhere.

A `file://` store and an `s3://` store must not differ but in addresses and times.
"""

import gzip
import io
import json
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e import tour
from tests.e2e.test_study_cli import DEADLINE, command, environment
from tests.support import leftovers
from tests.support.imagesets import write_image_set
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.study.test_split import TIMES
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import load_plan
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table

KEY = "a-pseudonym-key-that-nobody-may-see"
DIFFERENT = {
    "images": {"uri"},
    "epochs": set(TIMES),
    "runs": {"started", "seconds", "gpu_seconds", "peak_memory", "weights_origin"},
    "studies": {"source", "command", "started", "finished"},
    "screening": {"batch", "batch_id"},
    "screening_batches": {"batch", "batch_id", "seconds"},
    "screening_cams": {"batch_id"},
}
"""Columns that may differ: addresses, hashes of addresses, times."""
CACHES = {".prefect", ".ray", ".cache", ".config"}
"""What is written into a home: Prefect's database, Ray's token, matplotlib's fonts."""


def tables(store: Store) -> dict[str, list[dict[str, object]]]:
    """The rows of all tables, without what may differ between two kinds of store."""
    return {
        name: read_table(store, name).drop_columns(list(DIFFERENT.get(name, ()))).to_pylist()
        for name in schemas.TABLES
    }


def differing(one: Store, other: Store) -> list[str]:
    """Tables that differ; NaN equals NaN."""
    first, second = tables(one), tables(other)
    return [name for name in first if repr(first[name]) != repr(second[name])]


def test_a_secret_is_found_wherever_it_is_hidden(tmp_path: Path) -> None:
    secret = "found-" * 40  # long enough to be compressed
    table, archive = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"a": [secret] * 9}), table, compression="zstd", write_statistics=False)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data", secret)
    hidden = {
        "parquet": table.getvalue(),
        "zip": archive.getvalue(),
        "gzip": gzip.compress(secret.encode()),
        "utf-16": secret.encode("utf-16-le"),
        "plain": secret.encode(),
    }
    assert [name for name, data in hidden.items() if secret.encode() in data] == ["plain"]
    for name, data in hidden.items():
        (tmp_path / name).write_bytes(data)
    found = {Path(name).name for name, _ in leftovers.holders(leftovers.below(tmp_path), [secret])}
    assert found == hidden.keys()
    assert leftovers.holders(leftovers.below(tmp_path), ["another"]) == []


@pytest.fixture(scope="module")
def speak(s3_server: S3Server) -> Iterator[S3Server]:
    """This process may speak to the server; s3fs forgets its clients before and after."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        forget_clients()
        yield s3_server
        forget_clients()


# The short form: a study as the command runs it in a bucket, beside one in this process


def run(arguments: list[str], home: Path, server: S3Server) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments,
        env=environment(home, THYRO_PSEUDONYM_KEY=KEY, **server.environment()),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def test_a_study_in_a_bucket_is_the_one_in_a_folder_and_leaves_nothing_here(
    speak: S3Server, tmp_path: Path
) -> None:
    folder, home = write_image_set(tmp_path / "set"), tmp_path / "home"
    home.mkdir()
    bucket = open_store(f"s3://{BUCKET}/study-test")
    for file in folder.rglob("*"):
        if file.is_file():
            bucket.write(f"set/{file.relative_to(folder)}", file.read_bytes())
    url = f"{bucket.url}/store"
    arguments = command(f"{bucket.url}/set", url, epochs="1", precision="fp32")
    done = run(arguments, home, speak)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["store"] == url
    study = open_store(url)
    assert read_table(study, "predictions", study_id=printed["study_id"]).num_rows == 14
    assert {path.name for path in home.iterdir()} <= CACHES
    left = leftovers.in_store(study)
    assert leftovers.holders(left, [str(tmp_path), str(Path.home()), tempfile.gettempdir()]) == []
    # Prefect's database and Ray's token lie there; with logs too: tests/project/test_security.py.
    left |= leftovers.below(home) | {"out": done.stdout.encode(), "err": done.stderr.encode()}
    assert leftovers.holders(left, [speak.secret, KEY]) == []

    again = run(arguments, home, speak)
    assert json.loads(again.stdout.splitlines()[-1])["metrics"] == printed["metrics"]
    verified = run([arguments[0], "verify", printed["study_id"], "--store", url], home, speak)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    (row,) = read_table(study, "studies").to_pylist()
    assert (row["study_id"], row["state"]) == (printed["study_id"], "finished")
    here = in_this_process(folder, tmp_path, study, printed["study_id"])
    assert differing(study, here) == ["studies"], "the command alone writes it"


def in_this_process(folder: Path, tmp_path: Path, like: Store, study_id: str) -> Store:
    """The same study on files, run without Ray and Prefect."""
    from thyro_core.study.job import SplitJob
    from thyro_core.study.lifecycle import conclude_study, ingest_for_study, prepare_study
    from thyro_core.study.split import run_split

    config, store = load_plan(like, study_id).config, open_store(f"file://{tmp_path}/store")
    scratch = tmp_path / "scratch"
    manifest = ingest_for_study(str(folder), config, store)
    plan = prepare_study(manifest, config, "fp32", store, scratch=scratch)
    assert plan.study_id == study_id
    with torch_as_it_was():
        for split in range(config.splits):
            assert not run_split(SplitJob(store.url, study_id, split, str(scratch))).failed
    conclude_study(store, plan)
    return store


@contextmanager
def torch_as_it_was() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


# The long form: every command of a user, on both


@dataclass(frozen=True)
class Toured:
    """A finished tour, and what was said on it."""

    place: tour.Place
    study_id: str
    said: str

    @property
    def store(self) -> Store:
        return open_store(self.place.store)


def toured(url: str, extra: dict[str, str]) -> Iterator[Toured]:
    # A short path: Ray's sockets lie below it, and their names have a bound.
    here = Path(tempfile.mkdtemp(prefix="tour"))
    secret = {"THYRO_PSEUDONYM_KEY": KEY, "THYRO_CHECKPOINT_SECONDS": "0", "THYRO_LOG_JSON": "1"}
    place, said = tour.Place(url, here, extra | secret), []
    try:
        study_id = tour.tour(place, tour.Size(), tour.quietly(place, said))
        yield Toured(place, study_id, "\n".join(said))
    finally:
        shutil.rmtree(here)


@pytest.fixture(scope="module")
def on_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toured]:
    yield from toured(f"file://{tmp_path_factory.mktemp('tour')}", {})


@pytest.fixture(scope="module")
def on_s3(speak: S3Server) -> Iterator[Toured]:
    yield from toured(f"s3://{BUCKET}/tour", speak.environment())


@pytest.fixture(params=["on_files", "on_s3"])
def either(request: pytest.FixtureRequest) -> Toured:
    found: Toured = request.getfixturevalue(request.param)
    return found


@pytest.mark.slow
def test_every_command_works(either: Toured) -> None:
    rows = {name: len(found) for name, found in tables(either.store).items()}
    assert (rows["images"], rows["runs"], rows["screening"]) == (60, 2, 8)
    assert [name for name, number in rows.items() if number == 0] == ["comparisons"]
    assert f"{either.place.store}/studies/{either.study_id}/report.html" in either.said
    assert "8 received = 8 scored + 0 rejected + 0 failed" in either.said
    assert "2 runs: 2 finished; concluded" in either.said
    assert "FAIL" not in either.said


@pytest.mark.slow
def test_every_table_is_the_same_on_both(on_files: Toured, on_s3: Toured) -> None:
    assert on_files.study_id == on_s3.study_id
    assert differing(on_files.store, on_s3.store) == []


@pytest.mark.slow
def test_nothing_is_written_here_but_caches(either: Toured) -> None:
    folders = either.place.folders
    assert list(folders["PWD"].iterdir()) == []
    assert {path.name for path in folders["HOME"].iterdir()} <= CACHES
    # Ray's logs, and a folder that torch makes when it is imported: no half-written object.
    assert {path.name.partition("_")[0] for path in folders["TMPDIR"].iterdir()} <= {
        "ray", "torchinductor",
    }  # fmt: skip


@pytest.mark.slow
def test_no_object_in_the_bucket_names_a_place_of_this_machine(on_s3: Toured) -> None:
    left = leftovers.in_store(open_store(on_s3.place.url))
    assert len(left) > 100
    here = [str(on_s3.place.here), str(tour.REPOSITORY), str(Path.home()), tempfile.gettempdir()]
    assert leftovers.holders(left, here) == []


@pytest.mark.slow
def test_no_secret_is_left_anywhere(either: Toured, s3_server: S3Server) -> None:
    """Objects, Prefect's database, Ray's logs, scratch, what was printed."""
    left = leftovers.in_store(open_store(either.place.url)) | leftovers.below(either.place.here)
    left["said"] = either.said.encode()
    for part in ("prefect.db", ".safetensors", "report.html", "worklist.csv", "raylet.out"):
        assert [name for name in left if name.endswith(part)], part
    assert leftovers.holders(left, [s3_server.secret, KEY]) == []
