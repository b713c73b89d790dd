"""The worklists as web pages: who gets in, what a foreign site can do (nothing), what is kept."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pydantic import SecretStr

from flows.serving import pages
from flows.serving.pages import COOKIE, MOST_BYTES, Pages
from flows.serving.pages_server import check_access, serve_pages, served_address
from tests.support.prefectserver import free_port
from tests.support.worklists import DATE, NUMBER, ROWS, TOTALS, batch_row, row, written
from thyro_core.errors import InputError
from thyro_core.screening.identifiers import StudyBook
from thyro_core.store.keys import identifiers_key, pages_key
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

PASSWORD = "grüße an alle"
NASTY = "<script>alert(1)</script>"
HOST = "http://127.0.0.1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    rows = [*ROWS[:-1], row(8, "routine", 0.2, name=f"{NASTY}.png")]
    sums = {"scored": 6, "rejected": 1, "failed": 1, "copies": 0, "refer": 3, "review": 1,
            "routine": 2}  # fmt: skip
    written(tmp_path, rows, TOTALS, batch_row(**sums))
    opened = open_store(str(tmp_path))
    table = schemas.rows_to_table("screening_batches", [batch_row(**sums)])
    write_table(opened, "screening_batches", table, date=NUMBER)
    return opened


class Browser:
    """Keeps its cookies, and follows no redirection."""

    def __init__(self, pages: Pages) -> None:
        transport = httpx.ASGITransport(app=pages.app())
        self._client = httpx.AsyncClient(transport=transport, base_url=HOST)

    @property
    def cookies(self) -> httpx.Cookies:
        return self._client.cookies

    def get(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._client.get(path, **more))

    def post(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._client.post(path, **more))


@pytest.fixture
def locked(store: Store) -> Browser:
    return Browser(Pages(store, PASSWORD))


@pytest.fixture
def inside(store: Store) -> Browser:
    browser = Browser(Pages(store, PASSWORD))
    assert log_in(browser).status_code == 303
    return browser


def token_of(text: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', text) or re.search(r'"csrf": "([^"]+)"', text)
    assert found
    return found[1]


def log_in(browser: Browser, password: str = PASSWORD, **form: str) -> Any:
    csrf = token_of(browser.get("/login").text)
    return browser.post("/login", data={"csrf": csrf, "who": "AB", "password": password} | form)


def event(number: int = 4, **more: Any) -> dict[str, Any]:
    return {"what": "agree", "comment": None, "batch_id": "n1", "image_id": f"{number:064x}",
            "model_id": "b1", "who": "XX", "said_at": "2001-01-01T00:00:00Z"} | more  # fmt: skip


def post(browser: Browser, said: Any, csrf: str | None = None, **headers: str) -> Any:
    token = csrf or token_of(browser.get(f"/screening/{DATE}/").text)
    return browser.post(
        f"/screening/{DATE}/feedback",
        content=said if isinstance(said, str | bytes) else json.dumps(said),
        headers={"X-CSRF-Token": token} | headers,
    )


def feedback(store: Store) -> list[dict[str, Any]]:
    return read_table(store, "feedback").to_pylist()


@pytest.mark.parametrize(
    "path",
    ["/", f"/screening/{DATE}/", f"/screening/{DATE}/worklist.csv", "/screening/2020-01-01/"],
)
def test_without_the_password_nothing_is_shown(locked: Browser, path: str) -> None:
    reply = locked.get(path)
    assert (reply.status_code, reply.headers["location"]) == (303, "/login")
    assert DATE not in reply.text
    asked = locked.get("/login")
    assert (asked.status_code, "Password" in asked.text) == (200, True)
    assert locked.get(path).status_code == 303, "who was asked is not in yet"


@pytest.mark.parametrize("password", ["", "wrong", PASSWORD + " ", PASSWORD.upper(), "\x00"])
def test_a_wrong_password_does_not_let_in(locked: Browser, password: str) -> None:
    assert log_in(locked, password).status_code == 403
    assert locked.get("/").status_code == 303


def test_many_wrong_passwords_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    time = [0.0]
    monkeypatch.setattr(pages, "monotonic", lambda: time[0])
    browser = Browser(Pages(store, PASSWORD))
    assert [log_in(browser, "wrong").status_code for _ in range(11)] == [403] * 10 + [429]
    assert log_in(browser).status_code == 429, "the right one, too"
    time[0] = 61.0
    assert log_in(browser).status_code == 303
    assert browser.get("/").status_code == 200
    time[0] += 13 * 3600
    assert browser.get("/").status_code == 303, "a login ends"


def test_who_only_asks_for_the_form_pushes_out_nobody_who_is_in(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.serving.pages._MOST_SESSIONS", 5)
    pages = Pages(store, PASSWORD)
    reader = Browser(pages)
    assert log_in(reader).status_code == 303
    for _ in range(20):
        Browser(pages).get("/login")
    assert reader.get("/").status_code == 200


def test_a_login_has_a_new_token_in_a_cookie_that_scripts_and_other_sites_do_not_get(
    locked: Browser,
) -> None:
    locked.get("/login")
    before = locked.cookies[COOKIE]
    reply = log_in(locked)
    words = reply.headers["set-cookie"].lower()
    assert "httponly" in words
    assert "samesite=strict" in words
    assert locked.cookies[COOKIE] != before
    text = locked.get("/").text
    assert locked.post("/logout", data={"csrf": "x"}).status_code == 403
    assert locked.get("/").status_code == 200
    assert locked.post("/logout", data={"csrf": token_of(text)}).status_code == 303
    assert locked.get("/").status_code == 303


def test_nothing_is_posted_without_the_sessions_own_token(
    store: Store, locked: Browser, inside: Browser
) -> None:
    assert post(locked, event(), "x").status_code == 401
    assert log_in(locked, csrf="x").status_code == 403
    other = Browser(Pages(store))
    stolen = token_of(other.get(f"/screening/{DATE}/").text)
    for csrf in ("x", stolen):
        assert post(inside, event(), csrf).status_code == 403
    assert post(inside, event(), Origin="https://evil.example").status_code == 403
    assert post(inside, event(), Origin="http://127.0.0.1:81").status_code == 403
    assert post(inside, event(), Origin="null").status_code == 403
    assert feedback(store) == []
    assert post(inside, event(), Origin=HOST).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 421), ("127.0.0.1:4201", 303), ("[::1]:4201", 303), ("localhost:4201", 303),
     ("10.0.0.7", 303), ("lists.example", 303), ("127.0.0.1.evil.example", 421), ("", 421)],
)  # fmt: skip
def test_only_known_names_are_answered(store: Store, host: str, status: int) -> None:
    browser = Browser(Pages(store, PASSWORD, names=("lists.example",)))
    assert browser.get("/", headers={"Host": host}).status_code == status


def test_what_is_said_is_kept_under_the_name_and_the_time_of_the_server(
    store: Store, inside: Browser
) -> None:
    assert post(inside, event()).json()["who"] == "AB"
    assert post(inside, event(what="comment", comment=NASTY)).status_code == 200
    rows = feedback(store)
    assert {(each["who"], each["said_at"].year > 2001) for each in rows} == {("AB", True)}
    page = inside.get(f"/screening/{DATE}/").text
    assert NASTY not in page
    data = re.findall(r'id="data">(.*?)</script>', page)[0]
    assert [each["comment"] for each in json.loads(data)["feedback"]] == [None, NASTY]
    assert "refer: 1 of 1 verdict agree, on 1 of 3 images, by 1 reader" in inside.get("/").text
    assert "it is not with the truth" in inside.get("/").text


@pytest.mark.parametrize(
    ("said", "status"),
    [("", 400), ("[]", 400), ("3", 400), ('{"a": 1}', 400), ("[" * 9000, 400), (b"\xff", 400),
     (event(99), 400), (event(3), 400), (event(what="drop"), 400), (event(image_id="../x"), 400),
     (event(batch_id="n1/../n2"), 400), (event(comment="x" * 501), 400), (event(extra=1), 400),
     ("x" * (MOST_BYTES + 1), 413)],
)  # fmt: skip
def test_other_data_is_refused(store: Store, inside: Browser, said: Any, status: int) -> None:
    reply = post(inside, said)
    assert reply.status_code == status
    assert "Traceback" not in reply.text
    assert feedback(store) == []


@pytest.mark.parametrize(
    "path",
    ["/screening/../../etc/passwd", "/screening/..%2f..%2fetc/", "/screening/2026-11-25%2f../",
     "/screening/20261125/", "/screening/2026-11-24/", "/screening/%2e%2e/worklist.csv",
     "/screening/2026-13-45/", "/worklist.html", "/tables", "/screening/2026-11-25/n1/pictures"],
)  # fmt: skip
def test_no_path_leads_to_anything_but_a_night(inside: Browser, path: str) -> None:
    reply = inside.get(path)
    assert reply.status_code == 404
    assert "root" not in reply.text


def test_every_answer_has_the_headers_that_keep_it_to_itself(
    locked: Browser, inside: Browser
) -> None:
    replies = [locked.get(path) for path in ("/login", "/", "/none")]
    replies += [inside.get(path) for path in ("/", f"/screening/{DATE}/")]
    replies.append(locked.get("/", headers={"Host": "x"}))
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-frame-options"] == "DENY"
    assert NASTY not in replies[4].text


def test_without_a_password_this_machine_is_in_at_once_and_no_other_is_served(store: Store) -> None:
    browser = Browser(Pages(store))
    assert browser.get(f"/screening/{DATE}/").status_code == 200
    assert post(browser, event()).json()["who"] == "XX"
    assert "Log out" not in browser.get("/").text
    for host in ("0.0.0.0", "::", "10.0.0.1", "ward.example"):
        with pytest.raises(InputError, match="THYRO_PAGES_PASSWORD where others can reach"):
            check_access(host, None)
        check_access(host, PASSWORD)
    with pytest.raises(InputError, match="at least 8 letters") as info:
        check_access("127.0.0.1", "short")
    assert "short" not in str(info.value)


def test_an_empty_store_has_an_empty_list(tmp_path: Path) -> None:
    assert "None yet" in Browser(Pages(open_store(str(tmp_path)))).get("/").text


def test_a_night_knows_where_it_is_served_as_long_as_it_is(store: Store) -> None:
    assert served_address(store, DATE) is None
    port = free_port()
    with serve_pages(Pages(store, PASSWORD), "127.0.0.1", port) as url:
        assert served_address(store, DATE) == f"{url}/screening/{DATE}/"
        record = store.read(pages_key())
        with (
            pytest.raises(InputError, match="choose another --pages-port"),
            serve_pages(Pages(store), "127.0.0.1", port),
        ):
            pass
        store.write(pages_key(), record.replace(b'"token": "', b'"token": "0'))
        assert served_address(store, DATE) is None, "another program at the same address"
    assert not store.exists(pages_key())
    for left in (record, b"", b"[]", b'{"url": "file:///etc/passwd", "token": ""}'):
        store.write(pages_key(), left)
        assert served_address(store, DATE) is None


EXAM = f"e{'0' * 31}7"
STUDY = "1.2.840.113619.55.2.1"


def with_exam(store: Store) -> None:
    table = read_table(store, "screening")
    column = pa.array([EXAM] * table.num_rows)
    place = table.schema.get_field_index("exam_id")
    table = table.set_column(place, "exam_id", column)
    batch_id = table["batch_id"][0].as_py()
    write_table(store, "screening", table, date=NUMBER, batch_id=batch_id)


def test_rows_lead_to_their_study_by_way_of_the_server(store: Store) -> None:
    """The page names the pseudonym of the exam; what it stands for is in the answer to a click."""
    with_exam(store)
    book = StudyBook(store, SecretStr("a-secret-of-the-tests"))
    store.write(identifiers_key(), book._cipher.encrypt(json.dumps({EXAM: STUDY}).encode()))
    pattern = "https://viewer/ohif?StudyInstanceUIDs={study}"
    browser = Browser(Pages(store, PASSWORD, links=(pattern, book)))
    assert browser.get(f"/screening/{DATE}/study/{EXAM}").headers["location"] == "/login"
    log_in(browser)
    page = browser.get(f"/screening/{DATE}/").text
    assert f'href="study/{EXAM}"' in page
    assert STUDY not in page
    answer = browser.get(f"/screening/{DATE}/study/{EXAM}")
    assert answer.status_code == 303
    assert answer.headers["location"] == pattern.format(study=STUDY)
    assert answer.headers["cache-control"] == "no-store"
    assert browser.get(f"/screening/{DATE}/study/enobody").status_code == 404
    other = StudyBook(store, SecretStr("another-secret-of-tests"))
    foreign = Browser(Pages(store, links=(pattern, other)))
    refusal = foreign.get(f"/screening/{DATE}/study/{EXAM}")
    assert refusal.status_code == 503
    assert "set that key again" in refusal.text


def test_without_the_setting_no_row_leads_to_a_study(store: Store, inside: Browser) -> None:
    with_exam(store)
    assert "study/e" not in inside.get(f"/screening/{DATE}/").text
    assert inside.get(f"/screening/{DATE}/study/{EXAM}").status_code == 404
