"""Word of a night by Prefect's own automations: a real server, a mail server and a web hook."""

import asyncio
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from prefect.exceptions import ObjectNotFound

from flows.screening import REFERRALS
from flows.serving.notifications import (
    NAMES,
    NotificationPlan,
    ensure_notifications,
    notifications,
)
from tests.support.prefectserver import Serving, serving, wait_until
from thyro_core import NOTICE
from thyro_core.errors import InputError

BLOCK = UUID(int=7)


def made(cron: str, timezone: str = "UTC", *, has_batch: bool = True) -> dict[str, Any]:
    plan = NotificationPlan("slack-webhook/ward", cron, timezone, has_batch)
    return {each.name: each for each in asyncio.run(notifications(plan, BLOCK))}


@pytest.mark.parametrize(
    ("cron", "hours"),
    [("0 2 * * *", 26), ("0 2 * * 1-5", 3 * 24 + 2), ("0 2 1 * *", 31 * 24 + 2)],
)
def test_a_night_is_missed_after_the_longest_gap_of_its_schedule(cron: str, hours: int) -> None:
    *_, missing = made(cron).values()
    assert missing.trigger.within.total_seconds() == hours * 3600
    assert f"No screening has begun for {hours} hours" in missing.actions[0].body


def test_each_has_its_name_the_block_and_the_notice() -> None:
    found = made("0 2 * * *")
    assert tuple(found) == NAMES
    for automation in found.values():
        (action,) = automation.actions
        assert action.block_document_id == BLOCK
        assert NOTICE in action.body
    assert tuple(made("0 2 * * *", has_batch=False)) == NAMES[:2], "no night is due"


@pytest.mark.parametrize("block", ["ward", "slack-webhook/none", "/"])
def test_a_block_that_is_not_there_is_said_with_the_cure(
    block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        async def __aenter__(self) -> "Client":
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def read_block_document_by_name(self, *_: str, **__: bool) -> None:
            raise ObjectNotFound(None)

    monkeypatch.setattr("flows.serving.notifications.get_client", Client)
    plan = NotificationPlan(block, "0 2 * * *", "UTC", has_batch=False)
    with pytest.raises(InputError, match=f"--notify {block}: expected .* correct THYRO_NOTIFY"):
        asyncio.run(ensure_notifications(plan))


class _Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs that sends one message."""

    def handle(self) -> None:
        def say(line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        say("220 here")
        for raw in self.rfile:
            verb = raw[:4].upper().strip()
            if verb == b"DATA":
                say("354 go on")
                message = b""
                while not message.endswith(b"\r\n.\r\n"):
                    message += self.rfile.readline()
                self.server.mails.append(message.decode())  # type: ignore[attr-defined]
            say("221 bye" if verb == b"QUIT" else "250 OK")
            if verb == b"QUIT":
                return


class _Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        self.server.mails.append(json.loads(self.rfile.read(length))["text"])  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiver(handler: type[socketserver.BaseRequestHandler]) -> Iterator[tuple[int, list[str]]]:
    """A server on a free port, and what it took."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.mails = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1], server.mails  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def save_block(server: Serving, kind: str, name: str, data: dict[str, Any]) -> None:
    """A block document by the server's API, as its pages make one."""
    block_type = server.ask(f"/block_types/slug/{kind}")
    schemas = {"block_schemas": {"block_type_id": {"any_": [block_type["id"]]}}}
    schema = server.ask("/block_schemas/filter", schemas)[0]
    body = {
        "name": name, "data": data, "block_schema_id": schema["id"],
        "block_type_id": block_type["id"],
    }  # fmt: skip
    server.ask("/block_documents/", body)


@pytest.mark.slow
def test_a_failed_night_is_mailed_and_referrals_reach_a_web_hook(tmp_path) -> None:
    """The first server has no block yet; the next ones send word, and a missing one is said."""
    with receiver(_Mail) as (mail_port, mails), receiver(_Hook) as (hook_port, calls):
        mail = f"mailto://127.0.0.1:{mail_port}?from=thyro@clinic.example&to=ward@clinic.example"
        hook = {
            "name": "pager", "url": f"http://127.0.0.1:{hook_port}/",
            "json_data": {"text": "{{subject}}: {{body}}"},
        }  # fmt: skip
        with serving(tmp_path) as server:
            save_block(server, "slack-webhook", "ward", {"url": mail})
            save_block(server, "custom-webhook", "pager", hook)
            assert server.stop() == 0
        with serving(tmp_path, "--notify", "slack-webhook/ward") as server:
            assert "goes to slack-webhook/ward" in server.said()
            gone = str(tmp_path / "gone")
            run = server.over(server.create("screening", batch=gone))
            assert run["state_type"] == "FAILED"
            wait_until(lambda: mails, "a mail arrives", 90)
            assert "a screening failed" in mails[0]
            assert "Research use only" in mails[0]
            assert server.stop() == 0
        with serving(tmp_path, "--notify", "custom-webhook/pager") as server:
            found = server.ask("/automations/filter", {})
            assert {each["name"] for each in found} >= set(NAMES[:2])
            event = {
                "event": REFERRALS, "occurred": "2026-11-28T03:00:00Z", "id": str(UUID(int=9)),
                "resource": {"prefect.resource.id": "thyro.batch.20261128.b1"},
                "payload": {"sentence": "6 received, 5 refer"},
            }  # fmt: skip
            server.ask("/events", [event])
            wait_until(lambda: calls, "the hook is called", 90)
            assert calls[0].startswith("Thyro: a worklist is ready: 6 received, 5 refer")
            assert server.stop() == 0
