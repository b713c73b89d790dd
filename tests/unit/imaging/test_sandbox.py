"""The decoder in its own process: the same answers, and deaths that stay its own."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from tests.support import deadly_reader
from tests.support.dicoms import PERSON, dicom, speckle
from tests.support.screened import write_image
from thyro_core.imaging import sandbox
from thyro_core.imaging.sandbox import MOST_MEMORY, DecoderDiedError, DecoderProcess
from thyro_core.pseudonyms import Pseudonymiser
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.reader import read_screening_images

RULES = ScreeningRules()
KEY = SecretStr("a secret of the tests, long enough")
READ = partial(read_screening_images, rules=RULES, pseudonymise=Pseudonymiser(KEY))


@pytest.fixture
def decoder(monkeypatch):
    monkeypatch.setattr(sandbox, "PROGRAM", deadly_reader.__name__)
    started = DecoderProcess(READ)
    yield started
    started.close()


def plain(images):
    return [
        {
            name: value.tobytes() if isinstance(value, np.ndarray) else value
            for name, value in vars(image).items()
        }
        for image in images
    ]


def test_its_answers_are_the_readers_own(decoder, tmp_path: Path) -> None:
    picture = write_image(tmp_path / "a.png", 1).read_bytes()
    for data in (picture, dicom(speckle()), b"no image"):
        here = READ(data)
        assert plain(decoder(data)) == plain(here)
    assert decoder(dicom(speckle()))[0].patient_id == Pseudonymiser(KEY)(
        PERSON["PatientID"], PERSON.get("IssuerOfPatientID")
    )


@pytest.mark.parametrize("word", [deadly_reader.SEGV, deadly_reader.EXIT])
def test_a_file_that_kills_it_is_told_and_the_next_one_is_read(decoder, tmp_path, word) -> None:
    picture = write_image(tmp_path / "a.png", 1).read_bytes()
    with pytest.raises(DecoderDiedError) as died:
        decoder(picture + word)
    assert str(died.value) == "crashed_decoder"
    assert decoder(picture)[0].image_id == hashlib.sha256(picture).hexdigest()


def test_a_file_without_an_end_is_given_up(decoder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    picture = write_image(tmp_path / "a.png", 1).read_bytes()
    with pytest.raises(DecoderDiedError) as died:
        decoder(picture + deadly_reader.HANG)
    assert str(died.value) == "hung_decoder"


def test_a_file_that_wants_all_memory_gets_none(decoder, tmp_path) -> None:
    picture = write_image(tmp_path / "a.png", 1).read_bytes()
    with pytest.raises(DecoderDiedError):
        decoder(picture + deadly_reader.MEMORY)
    assert decoder(picture)[0].grey is not None


INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("hard", "limit"),
    [(INFINITY, MOST_MEMORY), (2 * MOST_MEMORY, MOST_MEMORY), (MOST_MEMORY // 2, MOST_MEMORY // 2)],
)
def test_a_bound_that_a_scheduler_has_set_stays(monkeypatch, hard, limit) -> None:
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *values: limits.append(values))
    sandbox.limit_memory()
    assert limits == [(resource.RLIMIT_AS, (limit, limit))]


def test_a_system_that_refuses_a_bound_decodes_without(monkeypatch) -> None:
    """macOS: its programs have mapped more than that before they begin."""

    def refuse(kind, limits) -> None:
        msg = "current limit exceeds maximum limit"
        raise ValueError(msg)

    monkeypatch.setattr(resource, "setrlimit", refuse)
    sandbox.limit_memory()


def test_a_file_larger_than_a_pipe_passes(decoder) -> None:
    large = b"no image" * 1_000_000
    assert decoder(large)[0].reason == "undecodable"


def test_the_secret_is_no_argument(decoder, tmp_path) -> None:
    decoder(write_image(tmp_path / "a.png", 1).read_bytes())
    process, _ = decoder._running
    for what in ("cmdline", "environ"):
        said = Path(f"/proc/{process.pid}/{what}").read_bytes()
        assert KEY.get_secret_value().encode() not in said


def test_it_ends_with_the_one_who_asked() -> None:
    """Also when that one is killed: nobody is left to clean up."""
    script = (
        "import time\n"
        "from thyro_core.imaging.sandbox import DecoderProcess\n"
        "decoder = DecoderProcess(len)\n"
        "assert decoder(b'x') == 1\n"
        "print(decoder._running[0].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as asking:
        child = int(asking.stdout.readline())
        assert is_alive(child)
        asking.send_signal(signal.SIGKILL)
        asking.wait()
    deadline = time.monotonic() + 30
    while is_alive(child):
        assert time.monotonic() < deadline, "the decoder outlived the one who asked"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
