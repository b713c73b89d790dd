"""Log lines: their fields, their two forms, and what they must not hold."""

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from thyro_core.logs import log_context, set_up_logs

LOG = logging.getLogger("thyro_core.trial")


@pytest.fixture(autouse=True)
def _root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(monkeypatch: pytest.MonkeyPatch, *, as_json: bool) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    set_up_logs(as_json=as_json)
    return out


def test_a_json_line_has_its_fields_as_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, as_json=True)
    with log_context(study="s1", split=3):
        with log_context(architecture="vgg16"):
            LOG.info("epoch %d", 2)
        LOG.warning("between")
    LOG.info("outside")
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "INFO", "logger": "thyro_core.trial", "message": "epoch 2",
        "study": "s1", "split": 3, "architecture": "vgg16",
    }  # fmt: skip
    assert (second["split"], "architecture" in second) == (3, False)
    assert "study" not in third


def test_a_plain_line_names_where(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, as_json=False)
    with log_context(study="s1", split=0, architecture="resnet18"):
        LOG.info("epoch %d", 2)
    LOG.info("outside")
    inside, outside = out.getvalue().splitlines()
    assert inside.endswith(
        "INFO thyro_core.trial [study=s1 split=0 architecture=resnet18]: epoch 2"
    )
    assert outside.endswith("INFO thyro_core.trial: outside")


def test_the_fields_end_with_their_block_also_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = written(monkeypatch, as_json=True)
    with pytest.raises(KeyError), log_context(split=1):
        raise KeyError
    LOG.info("after")
    assert "split" not in json.loads(out.getvalue())


def test_jobs_in_threads_keep_their_fields_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, as_json=True)
    meet = threading.Barrier(2)

    def job(split: int) -> None:
        with log_context(split=split):
            meet.wait()
            LOG.info("%d", split)

    threads = [threading.Thread(target=job, args=(split,)) for split in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert sorted((line["split"], line["message"]) for line in lines) == [(1, "1"), (2, "2")]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_keeps_no_password_and_a_json_line_stays_one(
    monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    out = written(monkeypatch, as_json=as_json)

    def refuse() -> None:
        raise OSError("https://me:hunter2@host/key?X-Amz-Signature=abcdef refused")

    try:
        refuse()
    except OSError:
        LOG.exception("cannot read %s", "s3://me:hunter2@bucket/key")
    said = out.getvalue()
    assert "hunter2" not in said
    assert "abcdef" not in said
    assert "Traceback" in said
    assert "https://host/key" in said
    if as_json:
        assert "OSError" in json.loads(said)["traceback"]


def test_set_up_twice_says_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(monkeypatch, as_json=True)
    set_up_logs(as_json=True)
    LOG.info("once")
    LOG.debug("never")
    assert len(out.getvalue().splitlines()) == 1
