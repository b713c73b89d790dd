"""Each finding of the doctor: well, and ill with its cure. No network; one case starts Ray."""

import http.server
import platform
import shutil
import threading
from collections import namedtuple
from contextlib import contextmanager
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from botocore.exceptions import NoCredentialsError
from fsspec.implementations.local import LocalFileSystem
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli import probes
from flows.cli.probes import Finding, examine
from thyro_core.store.store import Store
from thyro_core.urls import redact

NAMES = [
    "python", "machine", "fastapi", "SQLAlchemy", "torch", "torchvision", "images", "gpu", "ray",
    "prefect",
    "store", "pseudonyms", "archive", "results", "disk",
    "weights resnet18", "weights alexnet", "weights vgg16", "weights inception_v3",
]  # fmt: skip
ANSWERS = {"/api/health": 200, "/locked/health": 401}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No Ray, no network and no Prefect server, unless a test wants them."""
    monkeypatch.setattr("thyro_core.training.models.build", lambda *_: None)
    monkeypatch.setattr(probes, "_RAY_PROBE", "print('4 CPUs')")


@pytest.fixture(autouse=True)
def no_server():
    with asked_at(None):
        yield


def asked_at(url):
    return temporary_settings(updates={PREFECT_API_URL: url})


@pytest.fixture
def found(tmp_path):
    def examined(store: str | None = None, mirror: str | None = None) -> dict[str, Finding]:
        findings = list(examine(store or str(tmp_path / "store"), mirror))
        assert [finding.name for finding in findings] == NAMES
        assert not any("\n" in finding.detail for finding in findings)
        return {finding.name: finding for finding in findings}

    return examined


@pytest.mark.parametrize(("number", "words"), [(1, ", 1 core, "), (2, ", 2 cores, ")])
def test_cores_are_those_that_this_process_may_use(monkeypatch, number, words):
    monkeypatch.setattr(probes, "cores", lambda: number)
    assert words in probes._machine()[1]


def test_a_sound_machine_has_nothing_to_complain_of_but_the_mirror(found):
    findings = found()
    states = {name: finding.state for name, finding in findings.items()}
    assert {name for name, state in states.items() if state != "ok"} <= {
        *NAMES[-4:],
        "disk",
        "pseudonyms",
    }
    assert findings["python"].detail.startswith(platform.python_version())
    assert torch.__version__ in findings["torch"].detail
    assert "ephemeral" not in findings["prefect"].detail
    assert "starts a server of its own" in findings["prefect"].detail


def test_the_probes_leave_no_trace(found, tmp_path):
    found(mirror=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_store_stays(found, tmp_path):
    kept = tmp_path / "store" / "doctor" / "kept"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    (tmp_path / "store" / "empty").mkdir()
    assert found()["store"].state == "ok"
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]
    assert (tmp_path / "store" / "empty").is_dir()


def test_a_memory_store_needs_no_disk(found):
    findings = found("memory://doctor")
    assert findings["store"] == Finding(
        "store", "ok", "memory:///doctor: writes, reads, lists and deletes"
    )
    assert findings["disk"].state == "ok"
    assert "not on a disk" in findings["disk"].detail


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(platform, "python_version", lambda: "3.9.18")
    state, detail = probes._python()
    assert state == "fail"
    assert "3.9.18; Thyro needs 3.11 or later" in detail


@pytest.mark.parametrize(
    ("package", "version", "state"),
    [
        ("fastapi", "0.150.9", "ok"),
        ("fastapi", "0.151.0", "fail"),
        ("fastapi", "1.0", "fail"),
        ("SQLAlchemy", "2.0.99", "ok"),
        ("SQLAlchemy", "2.1.0b1", "fail"),
        ("SQLAlchemy", "2.10.0", "fail"),
    ],
)
def test_packages_that_are_known_to_break(monkeypatch, package, version, state):
    monkeypatch.setattr(metadata, "version", lambda _: version)
    assert probes._version_cap(package)[0] == state
    detail = probes._version_cap(package)[1]
    assert version in detail
    assert (f'pip install "{package}<' in detail) == (state == "fail")


def test_a_package_that_is_not_there_does_not_stop_the_rest(found, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = found()
    for name in ("fastapi", "SQLAlchemy", "torchvision", "ray", "prefect"):
        assert findings[name].state == "fail", name
    assert "pip install -c constraints.txt fastapi" in findings["fastapi"].detail
    assert findings["store"].state == "ok"


def test_torchvision_is_asked_to_build_a_network(monkeypatch):
    asked = []
    monkeypatch.setattr("thyro_core.training.models.build", lambda *values: asked.append(values))
    state, detail = probes._torchvision()
    assert (state, detail) == ("ok", f"{metadata.version('torchvision')} builds a resnet18")
    assert asked == [("resnet18", 224, 0)]


@pytest.mark.parametrize("error", [ImportError("no _C"), OSError("libcudart"), RuntimeError("nms")])
def test_a_torchvision_that_does_not_build(found, monkeypatch, error):
    def build(*args):
        raise error

    monkeypatch.setattr("thyro_core.training.models.build", build)
    finding = found()["torchvision"]
    assert finding.state == "fail"
    assert f"{type(error).__name__}: {error}; install again: pip" in finding.detail


def test_a_torch_that_cannot_tell_its_hardware(found, monkeypatch):
    def broken(wanted, device):
        raise RuntimeError("driver too old")

    monkeypatch.setattr("thyro_core.training.device.choose_precision", broken)
    finding = found()["torch"]
    assert (finding.state, "driver too old" in finding.detail) == ("fail", True)


def test_gpus_are_named_with_their_memory(monkeypatch):
    gpu = SimpleNamespace(name="H1", total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    assert probes._gpu() == ("ok", "H1 80.0 GB, H1 80.0 GB")


@pytest.mark.parametrize(("driver", "state"), [(None, "ok"), ("/usr/bin/nvidia-smi", "warn")])
def test_no_gpu_is_a_warning_only_where_a_driver_is(monkeypatch, driver, state):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _: driver)
    found, detail = probes._gpu()
    assert found == state
    assert ("CUDA build" in detail) == (state == "warn")
    assert ("training runs on the CPU" in detail) == (state == "ok")


def test_what_ray_answers_is_shown(found):
    assert found()["ray"].detail.endswith(": 4 CPUs")


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("import sys; sys.exit('no raylet')", "ran no task: no raylet; stop other Ray"),
        ("import os; os._exit(9)", "ran no task: exit status 9; stop other Ray"),
    ],
)
def test_a_ray_that_does_not_start(found, monkeypatch, probe, words):
    monkeypatch.setattr(probes, "_RAY_PROBE", probe)
    finding = found()["ray"]
    assert finding.state == "fail"
    assert words in finding.detail


def test_a_ray_that_hangs_meets_its_deadline(found, monkeypatch):
    monkeypatch.setattr(probes, "_RAY_PROBE", "import time; time.sleep(600)")
    monkeypatch.setattr(probes, "_RAY_SECONDS", 0.2)
    finding = found()["ray"]
    assert finding.state == "fail"
    assert "ran no task within 0.2 s; stop other Ray" in finding.detail


@pytest.mark.slow
def test_ray_itself_runs_a_task(monkeypatch):
    monkeypatch.undo()
    state, detail = probes._ray()
    assert state == "ok"
    assert metadata.version("ray") in detail
    assert "a CPU job would train in " in detail


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(ANSWERS.get(self.path, 404))
        self.end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def served():
    with http.server.HTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "state", "words"),
    [
        ("/api", "ok", "answers"),
        ("/api/", "ok", "answers"),
        ("", "fail", "answers 404; correct PREFECT_API_URL (it ends in /api)"),
        ("/locked", "fail", "answers 401; correct PREFECT_API_URL"),
    ],
)
def test_a_prefect_server_is_asked(path, state, words):
    with served() as port, asked_at(f"http://127.0.0.1:{port}{path}"):
        found = probes._prefect()
    assert found[0] == state
    assert words in found[1]


def test_a_prefect_server_that_does_not_answer(found):
    with served() as port:
        pass
    with asked_at(f"http://127.0.0.1:{port}/api"):
        finding = found()["prefect"]
    assert finding.state == "fail"
    assert finding.detail.endswith("start the server, or unset PREFECT_API_URL")


def test_a_prefect_url_that_is_no_web_address():
    with asked_at("file:///etc/passwd"):
        state, detail = probes._prefect()
    assert state == "fail"
    assert "expected http://... or https://..., found file:///etc" in detail


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "{file}/store"])
def test_a_store_that_cannot_be(found, tmp_path, url):
    (tmp_path / "file").write_text("not a folder")
    finding = found(url.format(file=tmp_path / "file"))["store"]
    assert finding.state == "fail"
    assert "give a folder you may write to" in finding.detail


def test_a_store_that_must_not_be_written(found, monkeypatch):
    def refuse(self, key, data):
        raise PermissionError(13, "Permission denied", "/srv/store")

    monkeypatch.setattr(Store, "write", refuse)
    finding = found()["store"]
    assert finding.state == "fail"
    assert "Permission denied: '/srv/store'; give a folder" in finding.detail


@pytest.mark.parametrize(
    ("method", "answer", "words"),
    [
        ("read", lambda *_: b"other", "does not give back what was written"),
        ("keys", lambda *_: [], "does not list what was written"),
        ("delete", lambda *_: None, "does not delete what was written"),
    ],
)
def test_a_store_that_does_not_keep_its_word(found, monkeypatch, method, answer, words):
    monkeypatch.setattr(Store, method, answer)
    finding = found()["store"]
    assert finding.state == "fail"
    assert words in finding.detail


def test_an_s3_store_without_credentials_has_the_cure(monkeypatch):
    def refuse(url):
        raise NoCredentialsError

    monkeypatch.setattr(probes, "_round_trip", refuse)
    findings = {finding.name: finding for finding in examine("s3://bucket/prefix", None)}
    finding = findings["store"]
    assert finding.state == "fail"
    assert "NoCredentialsError: Unable to locate credentials; create the bucket" in finding.detail
    assert "AWS_ENDPOINT_URL" in finding.detail


def test_a_store_that_never_answers(found, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(probes, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(probes, "_round_trip", lambda _: release.wait(60))
    finding = found()["store"]
    release.set()
    assert finding.state == "fail"
    assert finding.detail.startswith("no answer within 0.05 s; give a folder")


def test_a_time_out_of_the_store_itself_is_told_as_such(found, monkeypatch):
    def late(url):
        raise TimeoutError("server took too long")

    monkeypatch.setattr(probes, "_round_trip", late)
    assert found()["store"].detail.startswith("TimeoutError: server took too long; give")


@pytest.mark.parametrize(
    ("free", "state"), [(20 * 10**9, "ok"), (14 * 10**9, "warn"), (10**9 - 1, "fail")]
)
def test_the_disk_of_a_store_yet_to_be_made(monkeypatch, tmp_path, free, state):
    asked = []

    def usage(folder):
        asked.append(folder)
        return namedtuple("Usage", "total used free")(10**12, 0, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    found, detail = probes._disk(str(tmp_path / "not" / "there"))
    assert asked == [tmp_path]
    assert found == state
    assert f"{free / 1e9:.1f} GB free at {tmp_path}" in detail
    assert ("free some" in detail) == (state != "ok")


def test_a_mirror_with_one_file(found, tmp_path):
    (tmp_path / "alexnet.safetensors").write_bytes(b"x")
    findings = found(mirror=f"{tmp_path}/")
    assert findings["weights alexnet"] == Finding(
        "weights alexnet", "ok", f"{tmp_path}/alexnet.safetensors"
    )
    other = findings["weights vgg16"]
    assert other.state == "warn"
    assert f"expected {tmp_path}/vgg16.safetensors, found no such file" in other.detail
    assert "training starts at random; copy the file there" in other.detail


def test_no_mirror_says_what_will_happen(found):
    finding = found()["weights resnet18"]
    assert finding.state == "warn"
    assert "torchvision's download is tried" in finding.detail
    assert "set THYRO_WEIGHTS to the URL of a folder with resnet18.safetensors" in finding.detail


def test_a_mirror_that_lets_nobody_in(found, monkeypatch, tmp_path):
    def refuse(self, path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(probes, "_round_trip", lambda _: ("ok", ""))
    monkeypatch.setattr(LocalFileSystem, "info", refuse)
    finding = found(mirror=str(tmp_path))["weights vgg16"]
    assert finding.state == "fail"
    assert finding.detail.endswith("Permission denied; correct THYRO_WEIGHTS")


def test_a_mirror_of_an_unknown_kind(found):
    assert found(mirror="nosuch://u:secret@host/w")["weights alexnet"].state == "fail"


@pytest.mark.parametrize("place", ["store", "mirror"])
def test_no_secret_is_shown(found, place):
    url = "nosuch://user:s3cr3t@host/folder?signature=s3cr3t"
    findings = found(**{place: url})
    assert any("host/folder" in finding.detail for finding in findings.values())
    assert not any("s3cr3t" in finding.detail for finding in findings.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at https://u:p@h/x?k=v#f; do", "at https://h/x; do"),
        ("s3://key:a@b@bucket/x", "s3://bucket/x"),
        ("mail@host, /tmp/a?b#c", "mail@host, /tmp/a?b#c"),
        ("http://a/x?y http://u@b/z", "http://a/x http://b/z"),
    ],
)
def test_public_texts(text, expected):
    assert redact(text) == expected


def test_an_unexpected_error_fails_its_own_probe_and_is_logged(found, monkeypatch, caplog):
    def bug():
        raise AssertionError("a bug of ours")

    monkeypatch.setattr(probes, "_machine", bug)
    findings = found()
    assert findings["machine"] == Finding(
        "machine", "fail", "AssertionError: a bug of ours; run `thyro doctor --debug`"
    )
    assert findings["store"].state == "ok"
    (record,) = [record for record in caplog.records if record.message.endswith("machine failed")]
    assert record.exc_info[1].args == ("a bug of ours",)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_is_no_finding(monkeypatch, tmp_path, stop):
    def stopped():
        raise stop

    monkeypatch.setattr(probes, "_machine", stopped)
    with pytest.raises(stop):
        list(examine(str(tmp_path), None))


def test_doctor_lists_what_is_decoded_and_what_is_not(found, monkeypatch):
    from thyro_core.imaging import codecs

    state, detail = probes._images()
    assert state == "ok"
    read, _, unread = detail.partition("; not: ")
    assert "JPEG Lossless" in read
    assert "JPEG-LS" in read
    assert "MPEG-4" in read
    assert "JPIP" in unread
    decodable = codecs.is_decodable
    monkeypatch.setattr(
        codecs, "is_decodable", lambda syntax: decodable(syntax) and not str(syntax).endswith(".70")
    )
    state, detail = probes._images()
    assert state == "warn"
    assert "for JPEG Lossless install again: pip install -c constraints.txt pylibjpeg" in detail


@pytest.mark.parametrize(
    ("key", "state", "detail"),
    [(None, "warn", "by folder and not by exam"), ("short", "fail", "at least 16 bytes"),
     ("0123456789abcdef", "ok", "is set")],
)  # fmt: skip
def test_a_missing_pseudonym_key_is_said_with_what_it_costs(
    monkeypatch: pytest.MonkeyPatch, key: str | None, state: str, detail: str
) -> None:
    monkeypatch.delenv("THYRO_PSEUDONYM_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("THYRO_PSEUDONYM_KEY", key)
    (finding,) = [each for each in examine("memory://x", None) if each.name == "pseudonyms"]
    assert finding.state == state
    assert detail in finding.detail
    assert key is None or key not in finding.detail
