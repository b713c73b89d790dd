"""Objects that a store lists and does not give: each has a row, and the night goes on without it.

A real S3 server behind a proxy that answers some requests in its place.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support import faultproxy
from tests.support.faultproxy import FaultProxy, running_proxy
from tests.support.imagesets import write_image_set, write_masks
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.support.screened import Ward, write_image
from thyro_core.config import IngestConfig
from thyro_core.datasets.manifest import ingest
from thyro_core.errors import InputError, StoreError
from thyro_core.screening.contents import Contents, read_contents
from thyro_core.screening.files import FoundFile, stream_files
from thyro_core.store.store import filesystem, open_store
from thyro_core.tables.io import read_table

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with running_proxy(s3_server) as running:
        for name, value in running.through.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("THYRO_STORE_PATIENCE", "0.3")
        forget_clients()
        yield running
    forget_clients()


@pytest.fixture
def batch(proxy: FaultProxy) -> str:
    url = f"s3://{BUCKET}/refused/{uuid4().hex}"
    inbox = open_store(url)
    for name in ("bad.png", "bad.png.png", "good.png"):
        inbox.write(name, b"some bytes")
    return url


def contents_of(batch: str, name: str = "bad.png") -> Contents | None:
    fs, root = filesystem(batch)
    (file,) = (file for file in stream_files(batch) if file.name == name)
    return read_contents(fs, root, file, 1 << 20)


REFUSALS = {
    "400": (faultproxy.answers(400, "InvalidArgument"), "HTTP status 400"),
    "403": (faultproxy.answers(403, "InvalidObjectState"), "HTTP status 403"),
    "404": (faultproxy.answers(404, "NoSuchKey"), "HTTP status 404"),
    "500": (faultproxy.answers(500, "InternalError"), "HTTP status 500"),
    "cut": (faultproxy.cut_in_body, "no whole answer"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_object_says_what_the_store_answers(
    proxy: FaultProxy, batch: str, refusal: str
) -> None:
    fault, detail = REFUSALS[refusal]
    proxy.fail(fault, match=r"/bad\.png\?|/bad\.png$", method="GET")
    assert contents_of(batch) == Contents(fault="refused_object", detail=detail)
    whole = contents_of(batch, "bad.png.png")
    assert whole is not None
    assert whole.data == b"some bytes"


def test_of_many_refused_objects_the_first_alone_is_waited_for(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers listings all the while; an object that it gives is waited for again."""
    url = f"s3://{BUCKET}/refused/{uuid4().hex}"
    monkeypatch.setenv("THYRO_STORE_PATIENCE", "3")
    inbox = open_store(url)
    names = [f"bad-{n}.png" for n in range(6)]
    for name in (*names, "good.png", "late.png"):
        inbox.write(name, b"some bytes")
    proxy.fail(faultproxy.answers(500, "InternalError"), match="/bad-", method="GET")
    refusal = Contents(fault="refused_object", detail="HTTP status 500")
    assert [contents_of(url, name) for name in names] == [refusal] * len(names)
    attempts = Counter(
        request.path.split("?")[0].rsplit("/", 1)[1]
        for request in proxy.met
        if "/bad-" in request.path and request.method == "GET"
    )
    assert attempts[names[0]] > 1
    assert [attempts[name] for name in names[1:]] == [1] * (len(names) - 1)
    assert contents_of(url, "good.png") is not None
    proxy.fail(faultproxy.answers(503, "SlowDown"), match="/late", method="GET", times=2)
    late = contents_of(url, "late.png")
    assert late is not None
    assert late.data == b"some bytes"


def test_an_object_that_is_gone_is_no_row(proxy: FaultProxy, batch: str) -> None:
    """Though the name of another begins with its own."""
    fs, root = filesystem(batch)
    fs.rm_file(f"{root}/bad.png")
    assert read_contents(fs, root, FoundFile("bad.png", 10), 1 << 20) is None


def test_an_object_that_was_replaced_is_whole(proxy: FaultProxy, batch: str) -> None:
    fs, root = filesystem(batch)
    contents = read_contents(fs, root, FoundFile("bad.png", 3), 1 << 20)
    assert contents is not None
    assert contents.data == b"some bytes"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faultproxy.answers(400, "ExpiredToken"), InputError),
        (faultproxy.answers(503, "SlowDown"), StoreError),
    ],
)
def test_a_store_that_refuses_everything_ends_the_night(
    proxy: FaultProxy, batch: str, fault: faultproxy.Fault, error: type[Exception]
) -> None:
    """Credentials that expire in the middle of it would else fill it with refusals."""
    fs, root = filesystem(batch)
    proxy.fail(fault)
    with pytest.raises(error):
        read_contents(fs, root, FoundFile("bad.png", 10), 1 << 20)


def test_a_night_lists_refused_objects_until_they_are_given(
    ward: Ward, proxy: FaultProxy, tmp_path: Path
) -> None:
    url = f"s3://{BUCKET}/refused/{uuid4().hex}"
    inbox = open_store(url)
    for seed, name in enumerate(("bad-400.png", "bad-404.png", "good.png")):
        inbox.write(name, write_image(tmp_path / name, seed).read_bytes())
    for status, code in ((400, "InvalidArgument"), (404, "NoSuchKey")):
        proxy.fail(faultproxy.answers(status, code), match=f"/bad-{status}", method="GET")
    for date in ("2026-11-25", "2026-11-26"):
        result = ward.screen(date, batch=url)
        assert (result.totals.failed, result.counts.late) == (2, 0)
        rows = read_table(ward.store, "screening", date=result.night.number).to_pylist()
        refused = {row["detail"] for row in rows if row["reason"] == "refused_object"}
        assert refused == {"HTTP status 400", "HTTP status 404"}
    proxy.mend()
    result = ward.screen("2026-11-27", batch=url)
    assert (result.totals.received, result.totals.failed, result.counts.known) == (2, 0, 1)


def test_an_ingest_leaves_refused_objects_out_by_name_and_goes_on(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    """Whether the server answers that the object is not to be had, or never answers for it."""
    address = f"s3://{BUCKET}/refused/{uuid4().hex}"
    source, store = open_store(address), open_store(str(tmp_path / "store"))
    folder = write_masks(write_image_set(tmp_path / "set", benign=3, malignant=3))
    for path in folder.rglob("*.*"):
        source.write(str(path.relative_to(folder)), path.read_bytes())
    proxy.fail(faultproxy.answers(500, "InternalError"), match="/images/001", method="GET")
    proxy.fail(faultproxy.answers(403, "InvalidObjectState"), match="/images/002", method="GET")
    proxy.fail(faultproxy.answers(500, "InternalError"), match="/masks/004", method="GET")
    manifest = ingest(address, IngestConfig(), store, (16,))
    details = {
        row["uri"].rsplit("/", 1)[1]: row["detail"]
        for row in manifest.table.to_pylist()
        if not row["included"]
    }
    assert details.keys() == {"001.png", "002.png"}
    assert details["001.png"].endswith("does not give it: HTTP status 500")
    assert any("images/001.png (the store lists the object" in note for note in manifest.notes)
    assert "1 image with a mask that cannot be read: set aside" in manifest.notes
    # A source that answers nothing any more ends the ingest all the same.
    proxy.fail(faultproxy.answers(503, "SlowDown"))
    with pytest.raises(StoreError):
        ingest(address, IngestConfig(), store, (16,))
