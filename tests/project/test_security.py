"""What hostile input, and our own secrets, must not be able to do.

The statements that SQL may not be are in test_query.py; here it is asked what they could reach.
"""

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.e2e.test_study_cli import DEADLINE, command, environment
from tests.support import leftovers
from tests.support.dicoms import dicom, speckle
from tests.support.imagesets import write_image_set
from tests.support.s3server import BUCKET, S3Server, forget_clients
from tests.unit.imaging.test_decode import VALID
from tests.unit.imaging.test_dicom import telltales, variants
from thyro_core.config import IngestConfig
from thyro_core.datasets.ddti import MAX_XML_BYTES, DdtiCase, parse_case
from thyro_core.datasets.labels import ExclusionTable, read_exclusions, read_labels
from thyro_core.datasets.layouts import read_image_set
from thyro_core.datasets.manifest import ingest
from thyro_core.errors import InputError
from thyro_core.imaging.decode import UndecodableError, decode
from thyro_core.imaging.dicom import read_dicom
from thyro_core.screening.config import ScreeningRules
from thyro_core.store.store import open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import write_table
from thyro_core.tables.query import open_results, run_query

RULES = IngestConfig(blur_bound=0)
MARK = "hunter2-must-not-be-seen"


# Secrets


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def job_log_lines(ray: Path) -> list[str]:
    """What Thyro's jobs wrote into Ray's logs, which lie below its folder."""
    lines = [line for p in ray.rglob("logs/*.err") for line in p.read_text().splitlines()]
    return [line for line in lines if line.startswith('{"time"') and '"split"' in line]


@pytest.mark.slow
def test_a_study_on_s3_leaves_no_credential_anywhere(s3_server: S3Server, tmp_path: Path) -> None:
    """Store, home, Prefect's database, Ray's logs, what is printed, with --debug.

    Every other command, and without it: test_store_kinds.py; checkpoints: test_study_twice.py.
    """
    home, ray = tmp_path / "home", Path(os.path.realpath(tmp_path)) / "r"
    home.mkdir()
    write_image_set(tmp_path / "set")
    keys = s3_server.environment()
    # Ray's sockets lie below its folder, and their names have a bound.
    short = Path("/tmp") / f"sec{os.getpid()}"
    ray.mkdir()
    short.symlink_to(ray)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in keys.items():
            patch.setenv(name, value)
        forget_clients()
        store = open_store(f"s3://{BUCKET}/secrets/store")
        try:
            arguments = command(tmp_path / "set", store.url, epochs="1")
            done = subprocess.run(
                [arguments[0], "--debug", *arguments[1:]],
                env=environment(home, RAY_TMPDIR=str(short), THYRO_LOG_JSON="1", **keys),
                cwd=home, capture_output=True, text=True, timeout=DEADLINE,
            )  # fmt: skip
        finally:
            short.unlink()
        assert done.returncode == 0, done.stderr[-3000:]
        printed = json.loads(done.stdout.splitlines()[-1])
        left = leftovers.in_store(store) | leftovers.below(home) | leftovers.below(ray)
        forget_clients()
    left |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    assert any(name.endswith("prefect.db") for name in left)
    lines = [json.loads(line) for line in job_log_lines(ray)]
    assert {line["split"] for line in lines if line["study"] == printed["study_id"]} == {0, 1}
    assert any(name.endswith("predictions") or "/predictions/" in name for name in left)
    assert leftovers.holders(left, [s3_server.secret]) == []
    database = sqlite3.connect(home / ".prefect" / "prefect.db")
    rows = database.execute("select parameters from flow_run").fetchall()
    assert rows
    assert s3_server.secret not in str(rows)


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.png",
        "d/../../outside/secret.png",
        "..\\outside\\secret.png",
        "./../outside/secret.png",
        "/outside/secret.png",
        "//outside/secret.png",
        "\\\\outside\\secret.png",
        "C:\\outside\\secret.png",
        "file:///outside/secret.png",
        "s3://bucket/secret.png",
        "http://outside/secret.png",
        "memory://secret.png",
        "simplecache::file:///outside/secret.png",
        "..",
        "a\x00.png",
        "a\n../secret.png",
    ],
)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_no_table_names_a_file_outside_the_folder(path: str, column: str) -> None:
    """Labels set such a row, or such a mask, aside; exclusions must not be lost and are refused."""
    cell = '"' + path.replace('"', '""') + '"'
    image, mask = (cell, "") if column == "image" else ("a.png", cell)
    table = read_labels("labels.csv", f"image,label,mask\n{image},1,{mask}\n".encode())
    assert [row.mask for row in table.rows] == ([] if column == "image" else [None])
    (fault,) = table.faults
    assert fault.startswith("line ")
    assert "outside" not in fault, "a path may hold a name"
    with pytest.raises(InputError) as caught:
        read_exclusions("exclusions.csv", f"image,reason\n{cell},no\n".encode())
    assert "expected an image's path inside the folder" in str(caught.value)
    assert "outside" not in str(caught.value)


def image_set_with_links(tmp_path: Path) -> Path:
    """One good image, and links to what lies outside, inside, nowhere and at themselves."""
    source, outside = write_image_set(tmp_path / "set"), tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    secret = VALID["png"] if "png" in VALID else next(iter(VALID.values()))
    (outside / "secret.png").write_bytes(secret)
    (outside / "folder" / "deep.png").write_bytes(secret)
    images = source / "images"
    (images / "out.png").symlink_to(outside / "secret.png")
    (images / "relative.png").symlink_to("../../outside/secret.png")
    (images / "passwd.png").symlink_to("/etc/passwd")
    (images / "hop.png").symlink_to("out.png")
    (images / "folder").symlink_to(outside / "folder")
    (images / "loop.png").symlink_to("loop.png")
    (images / "inside.png").symlink_to("000.png")
    return source


OUTSIDE = ("out", "relative", "passwd", "hop", "folder/deep", "loop")


def test_a_link_out_of_the_folder_is_no_image_even_if_it_is_listed(tmp_path: Path) -> None:
    source = image_set_with_links(tmp_path)
    with (source / "labels.csv").open("a") as file:
        file.writelines(f"images/{name}.png,benign,\n" for name in (*OUTSIDE, "inside"))
    found = read_image_set(str(source), RULES)
    by_name = {entry.name: entry for entry in found.entries}
    assert {name: by_name[f"images/{name}.png"].present for name in OUTSIDE} == dict.fromkeys(
        OUTSIDE, False
    )
    assert by_name["images/inside.png"].present
    (note,) = [note for note in found.notes if "links out" in note]
    assert note == "4 links out of the folder, where the files themselves should be: left out"
    # A link to a folder, and one to itself.
    assert any(note.startswith("2 entries left out that are no files") for note in found.notes)

    store = open_store(str(tmp_path / "store"))
    manifest = ingest(str(source), RULES, store, [64])
    rows = {Path(row["uri"]).stem: row for row in manifest.table.to_pylist()}
    for name in OUTSIDE:
        row = rows[Path(name).name]
        assert (row["reason"], row["image_id"]) == ("missing", None)
    assert any("links out of the folder" in note for note in manifest.notes)


def test_links_alone_are_said_to_be_links(tmp_path: Path) -> None:
    (tmp_path / "set" / "benign").mkdir(parents=True)
    (tmp_path / "set" / "benign" / "a.png").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="1 link out of the folder") as caught:
        read_image_set(str(tmp_path / "set"), RULES)
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize("name", ["labels.csv", "exclusions.csv"])
def test_a_table_that_is_a_link_out_is_not_read(tmp_path: Path, name: str) -> None:
    """Its header would be quoted in the message."""
    source = write_image_set(tmp_path / "set")
    (tmp_path / "secret.csv").write_text(f"{MARK},label\na.png,1\n")
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(tmp_path / "secret.csv")
    try:
        said = repr(read_image_set(str(source), RULES))
    except InputError as error:
        said = str(error)
    assert MARK not in said


def test_a_source_that_is_a_link_itself_is_read(tmp_path: Path) -> None:
    write_image_set(tmp_path / "set")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    found = read_image_set(str(tmp_path / "link"), RULES)
    assert len(found.entries) == 28
    assert all(entry.present for entry in found.entries)


# SQL


REACHING = [
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM read_csv_auto('{file}')",
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_blob('{file}')",
    "SELECT * FROM read_json_auto('{file}')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM sniff_csv('{file}')",
    "SELECT * FROM '{file}'",
    "FROM '{folder}/*.csv'",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM query('FROM read_text(''{file}'')')",
    "SELECT * FROM query_table('{file}')",
    "SELECT getenv('THYRO_TEST_SECRET')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT * FROM pragma_database_list() WHERE path IS NOT NULL",
    "SELECT * FROM read_text('https://127.0.0.1:9/{file}')",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM secret_frame",
    "WITH a AS MATERIALIZED (SELECT * FROM read_text('{file}')) SELECT * FROM a",
    "SELECT (SELECT content FROM read_text('{file}'))",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{file}')",
    "DESCRIBE SELECT * FROM read_csv('{file}')",
    "SUMMARIZE SELECT * FROM read_csv('{file}')",
    "PIVOT (SELECT * FROM read_csv('{file}')) ON a USING count(*)",
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "COPY metrics FROM '{file}'",
    "ATTACH '{folder}/new.db' AS other",
    "ATTACH ':memory:' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "IMPORT DATABASE '{folder}'",
    "EXPORT DATABASE '{folder}/out'",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "SET enable_external_access = true",
    "SET GLOBAL lock_configuration = false",
    "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE MACRO f() AS TABLE SELECT * FROM read_text('{file}')",
    "CREATE VIEW v AS SELECT * FROM read_text('{file}')",
    "PREPARE p AS SELECT * FROM read_text('{file}')",
    "CHECKPOINT",
    "VACUUM",
]
secret_frame = pa.table({"a": [MARK]})


def a_store_with_metrics(tmp_path: Path) -> str:
    row: dict[str, Any] = dict.fromkeys(schemas.TABLES["metrics"].schema.names)
    row |= {"study_id": "s1", "architecture": "resnet18", "metric": "auc", "value": 0.5}
    store = open_store(str(tmp_path / "store"))
    table = schemas.rows_to_table("metrics", [row])
    write_table(store, "metrics", table, study_id="s1")
    return store.url


@pytest.mark.parametrize("sql", REACHING)
def test_sql_reaches_nothing_but_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THYRO_TEST_SECRET", MARK)
    url = a_store_with_metrics(tmp_path)
    (tmp_path / "secret.csv").write_text(f"a,b\n1,{MARK}\n")
    text = sql.format(file=tmp_path / "secret.csv", folder=tmp_path)
    before = everything_below(tmp_path)
    for ask in (run_query, a_notebook):
        try:
            said = str(ask(url, text))
        except (InputError, duckdb.Error) as error:
            said = str(error)
        assert MARK not in said
        assert "secret.csv'" not in said or "SELECT" not in text[:0]
    assert everything_below(tmp_path) == before
    assert run_query(url, "SELECT value FROM metrics").to_pylist() == [{"value": 0.5}]


def a_notebook(url: str, sql: str) -> list[Any]:
    with open_results(url) as connection:
        return list(connection.execute(sql).fetchall())


# Hostile bytes. `fuzz` in a name: `make fuzz` runs it far longer.


def fuzzed(cases: int) -> Callable[[Any], Any]:
    """So many cases; as many as the profile says under `make fuzz`."""
    wanted = settings().max_examples
    number = max(cases, wanted) if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else cases
    slow_data = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=number, suppress_health_check=slow_data)


FEW, MANY = 300, 10_000

cells = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["image", "label", "patient_id", "mask", "benign", "malignant", "0", "1", "a.png", "../a",
         '"', '""', "=cmd|' /C calc'!A0", "\ufeff", "\x00", "Name", "geb. am", "١", "İ", "ß" * 3]
    ),
)  # fmt: skip
tables = st.builds(
    lambda rows, comma, end, mark: mark + end.join(comma.join(row) for row in rows),
    st.lists(st.lists(cells, max_size=6), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    st.sampled_from(["", "\ufeff", "image,label\n", "image;label;patient_id\n", "image,reason\n"]),
)
csv_bytes = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda text, code: text.encode(code, "surrogatepass"),
        tables,
        st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
    ),
)


def a_csv_is_a_table_or_an_input_error(data: bytes) -> None:
    for reader in (read_labels, read_exclusions):
        try:
            found = reader("labels.csv", data)
        except InputError as error:
            assert str(error).startswith("labels.csv")  # noqa: PT017 - success is as good
            continue
        is_list = isinstance(found, ExclusionTable)
        names = list(found.rows) if is_list else [row.image for row in found.rows]
        for name in names:
            assert name
            assert not name.startswith("/")
            assert ".." not in name.split("/")
        if not is_list:
            assert {row.label for row in found.rows} <= {0, 1, None}


PIECES = [
    "<case>", "</case>", "<tirads>", "</tirads>", "<age>", "<sex>F</sex>", "4a", "&lt;",
    "&#0;", "&#x41;",
    "&a;", "<!DOCTYPE case [", "<!ENTITY a 'b'>", "]>", "<![CDATA[", "]]>", "<!--", "-->",
    "<?xml version='1.0' encoding='utf-16'?>", "<case xmlns='x'>", "\x00", "\ufeff", "é",
]  # fmt: skip
xml_bytes = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda parts, code: "".join(parts).encode(code, "replace"),
        st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=20),
        st.sampled_from(["utf-8", "utf-16", "latin-1", "cp037", "utf-7"]),
    ),
    st.builds(
        lambda parts: f"<case>{''.join(parts)}</case>".encode(),
        st.lists(st.sampled_from(["<tirads>4a</tirads>", "<age>40</age>", "<mark/>", "x"])),
    ),
)


def a_case_file_is_a_case_or_a_value_error(data: bytes) -> None:
    try:
        found = parse_case(data)
    except ValueError:
        return
    assert isinstance(found, DdtiCase)
    assert found.attributes.keys() <= {"tirads", "age", "sex"}
    assert found.label(RULES) in {0, 1, None}


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes], among: int = 1 << 30) -> bytes:
    """A file with a few bytes changed, cut, doubled or put in, among its first so many."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, min(among, len(data))))
        kind = draw(st.sampled_from(["set", "cut", "insert", "double", "end"]))
        piece = draw(st.binary(min_size=1, max_size=8))
        if kind == "set":
            data[at : at + len(piece)] = piece
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[at:at] = piece
        elif kind == "double":
            data[at:at] = data[at : at + 64]
        else:
            del data[at:]
    return bytes(data)


damaged_images = damaged([*VALID.values(), b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00"])
DICOMS = [
    data
    for name, data in {**variants(), "speckle": dicom(speckle(24, 32))}.items()
    if not name.startswith("cut")
]
# Where the elements are; what follows are pixels.
damaged_dicoms = damaged(DICOMS, among=1500)
SMALL = IngestConfig(max_pixels=1_000_000, max_bytes=1_000_000)


def an_image_file_is_a_bounded_picture_or_a_reason(data: bytes) -> None:
    try:
        found = decode(data, SMALL)
    except UndecodableError as error:
        assert 0 < len(error.detail) < 300  # noqa: PT017 - success is as good
        return
    assert found.grey.dtype == np.uint8
    assert found.grey.ndim == 2
    assert 0 < found.grey.size <= SMALL.max_pixels
    assert 0 <= found.overlay_share <= 1


SMALL_NIGHT = ScreeningRules(max_pixels=1_000_000, max_bytes=1_000_000)
NAMES = telltales()


def a_dicom_file_gives_bounded_frames_or_reasons(data: bytes) -> None:
    """Whatever it holds, nothing is raised, and no word of it is told."""
    found = read_dicom(data, SMALL_NIGHT, lambda *_: "q1")
    assert (found.reason is None) == bool(found.frames)
    for frame in found.frames:
        assert (frame.image is None) == (frame.reason is not None)
        if frame.image is not None:
            assert frame.image.grey.dtype == np.uint8
            assert 0 < frame.image.grey.size <= SMALL_NIGHT.max_pixels
    told = [found.reason, found.detail, *(f.detail for f in found.frames)]
    assert [name for name in NAMES if name in str(told)] == []


@given(csv_bytes)
@example(b"image\n0")
@example(b'image,label\n"' + b"x" * 200_000)
@example(b"image,label\n" + b"," * 100_000)
@fuzzed(FEW)
def test_fuzz_csv(data: bytes) -> None:
    a_csv_is_a_table_or_an_input_error(data)


@given(xml_bytes)
@example(b"<case>" * 50_000)
@example(b"<case " + b" ".join(b'a%d="x"' % i for i in range(20_000)) + b"/>")
@fuzzed(FEW)
def test_fuzz_xml(data: bytes) -> None:
    a_case_file_is_a_case_or_a_value_error(data)


@given(damaged_images)
@fuzzed(FEW)
def test_fuzz_images(data: bytes) -> None:
    an_image_file_is_a_bounded_picture_or_a_reason(data)


@given(damaged_dicoms)
@fuzzed(FEW)
def test_fuzz_dicom(data: bytes) -> None:
    a_dicom_file_gives_bounded_frames_or_reasons(data)


@pytest.mark.slow
@given(csv_bytes)
@fuzzed(MANY)
def test_long_fuzz_csv(data: bytes) -> None:
    a_csv_is_a_table_or_an_input_error(data)


@pytest.mark.slow
@given(xml_bytes)
@fuzzed(MANY)
def test_long_fuzz_xml(data: bytes) -> None:
    a_case_file_is_a_case_or_a_value_error(data)


@pytest.mark.slow
@given(damaged_images)
@fuzzed(MANY)
def test_long_fuzz_images(data: bytes) -> None:
    an_image_file_is_a_bounded_picture_or_a_reason(data)


@pytest.mark.slow
@given(damaged_dicoms)
@fuzzed(MANY)
def test_long_fuzz_dicom(data: bytes) -> None:
    a_dicom_file_gives_bounded_frames_or_reasons(data)


# Bombs


def laughs(levels: int) -> str:
    """Ten of ten of ten...: a few hundred bytes that would unfold to 10 to the power of levels."""
    entities = ["<!ENTITY l0 'ha'>"]
    entities += [f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, levels)]
    return f"<!DOCTYPE case [{''.join(entities)}]><case><tirads>&l{levels - 1};</tirads></case>"


@pytest.mark.parametrize(
    "text",
    [
        laughs(10),
        f"<!DOCTYPE case [<!ENTITY a '{'x' * 10_000}'>]><case>{'&a;' * 10_000}</case>",
        "<!DOCTYPE case [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><case><tirads>&a;</tirads></case>",
        "<!DOCTYPE case [<!ENTITY % p SYSTEM 'http://127.0.0.1:9/x'> %p;]><case/>",
        "<!DOCTYPE case SYSTEM 'http://127.0.0.1:9/x.dtd'><case/>",
        "<!dOcTyPe case [<!eNtItY a 'b'>]><case>&a;</case>",
    ],
)
@pytest.mark.parametrize(
    "code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32-le"]
)
def test_entities_are_refused_before_they_unfold(text: str, code: str) -> None:
    with pytest.raises(ValueError, match=r"declared|well-formed|more than"):
        parse_case(text.encode(code))


def test_a_set_with_an_xml_bomb_loses_that_case_alone(tmp_path: Path) -> None:
    image = next(iter(VALID.values()))
    for name, data in {
        "1.xml": b"<case><tirads>2</tirads></case>",
        "1_1.jpg": image,
        "2.xml": laughs(10).encode(),
        "2_1.jpg": image,
        "3.xml": b"<case>" + b" " * MAX_XML_BYTES + b"</case>",
        "3_1.jpg": image,
    }.items():
        (tmp_path / name).write_bytes(data)
    found = read_image_set(str(tmp_path), RULES)
    assert {entry.name: entry.label for entry in found.entries} == {
        "1_1.jpg": 0, "2_1.jpg": None, "3_1.jpg": None,
    }  # fmt: skip
    assert any("2.xml, 3.xml" in note for note in found.notes)
