"""Nights in a bucket, batch and store, on a real S3 server; in this process, without Ray."""

import csv
import io
from pathlib import Path

import pytest

from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.support.screened import Ward, write_image
from tests.unit.screening.test_night import Crash, check_sums
from thyro_core.errors import InputError
from thyro_core.store.keys import worklist_key
from thyro_core.store.store import open_store
from thyro_core.tables.io import read_table

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def bucket_ward(ward: Ward, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch):
    """The ward's model in a bucket; images are delivered to another folder of it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    store = open_store(f"s3://{BUCKET}/wards/store")
    for key in ward.store.keys("registry"):
        store.write(key, ward.store.read(key))
    yield Ward(store, ward.batch, ward.means), f"s3://{BUCKET}/wards/in"
    forget_clients()


def deliver(ward: Ward, first: int, count: int) -> None:
    inbox = open_store(f"s3://{BUCKET}/wards/in")
    for i in range(first, first + count):
        path = write_image(ward.batch / f"{i}.png", i, malignant=i % 2 == 0)
        inbox.write(f"room{i % 2}/{i}.png", path.read_bytes())


def listed(ward: Ward, night: str) -> list[dict[str, str]]:
    text = ward.store.read(worklist_key(night, "csv")).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_nights_from_bucket_to_bucket(bucket_ward, tmp_path: Path) -> None:
    ward, inbox = bucket_ward
    with pytest.raises(InputError, match="expected a folder of images"):
        ward.screen("2026-11-25", batch=inbox)
    deliver(ward, 0, 12)

    def die(_: int) -> None:
        raise Crash

    with pytest.raises(Crash):
        ward.screen("2026-11-25", batch=inbox, after_block=die)
    first = ward.screen("2026-11-25", batch=inbox)
    assert (first.totals.received, first.counts.known) == (12, 8)
    deliver(ward, 12, 2)
    second = ward.screen("2026-11-26", batch=inbox)
    assert (second.totals.received, second.counts.known) == (2, 12)
    assert [row["received"] for row in check_sums(ward)] == [12, 2]
    assert (len(listed(ward, "2026-11-25")), len(listed(ward, "2026-11-26"))) == (12, 2)
    left = ward.store.keys("screening")
    assert not [key for key in left if key.endswith(".bin") or "/rows/" in key]
    referred = sum(
        row["band"] == "refer" for row in read_table(ward.store, "screening").to_pylist()
    )
    assert read_table(ward.store, "screening_cams").num_rows == 2 * referred
    page = ward.store.read(worklist_key("2026-11-25", "html")).decode()
    assert "12 received = " in page
    assert not (tmp_path / "store" / "screening").exists()
