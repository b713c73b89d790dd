"""Starting weights: who is asked in what order, what is refused, and ten processes at once."""

import functools
import hashlib
import http.server
import json
import logging
import multiprocessing
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.client import IncompleteRead
from pathlib import Path
from ssl import SSLError
from typing import NamedTuple
from urllib.error import URLError

import fsspec
import pytest
import torch
from safetensors.torch import save

from thyro_core.config import ARCHITECTURES
from thyro_core.errors import InputError
from thyro_core.store.keys import weights_key
from thyro_core.store.store import open_store
from thyro_core.training import pretrained
from thyro_core.urls import redact

TENSORS = {
    "conv1.weight": torch.arange(24, dtype=torch.float16).reshape(2, 3, 2, 2),
    "fc.bias": torch.tensor([1.5, -2.0]),
}
FILE = save(TENSORS)
SHA256 = hashlib.sha256(FILE).hexdigest()
TORCHVISION_WEIGHTS = pretrained._torchvision_weights
KEY = f"weights/resnet18-{SHA256[:16]}.safetensors"


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def memory():
    return open_store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "scratch"


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "resnet18.safetensors").write_bytes(FILE)
    return folder


@pytest.fixture(autouse=True)
def official(monkeypatch):
    """Where torchvision's files are said to lie: nowhere, so that no test leaves the machine."""
    urls = dict.fromkeys(ARCHITECTURES, "http://127.0.0.1:9/absent-00000000.pth")
    monkeypatch.setattr(
        pretrained, "_torchvision_weights", lambda name: ("IMAGENET1K_V1", urls[name])
    )
    return urls


class Site(NamedTuple):
    folder: Path
    address: str
    asked: list[str]
    door: list[threading.Barrier]


@pytest.fixture
def site(tmp_path):
    """A web server on this machine; HEAD waits at its door, where one is set."""
    folder = tmp_path / "www"
    folder.mkdir()
    asked, door = [], []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/cut"):
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                self.wfile.write(b"only the start")
            elif self.path.startswith("/silent"):
                time.sleep(1.0)
            else:
                super().do_GET()

        def do_HEAD(self):
            if door:
                door[0].wait(60)
            super().do_HEAD()

        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Site(folder, f"http://127.0.0.1:{server.server_port}", asked, door)
        server.shutdown()
        thread.join()


def publish(site, data):
    """Serve bytes under a name with their hash prefix, as torchvision does."""
    name = f"resnet18-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    (site.folder / name).write_bytes(data)
    return f"{site.address}/{name}"


@pytest.fixture
def published(site, official, tmp_path):
    """torchvision's ResNet18 can be downloaded."""
    official["resnet18"] = publish(site, pth(tmp_path, TENSORS))


def pth(tmp_path, value, **options):
    path = tmp_path / "state.pth"
    torch.save(value, path, **options)
    return path.read_bytes()


def one(value, mirror, store, scratch):
    found = pretrained.resolve_weights(value, ("resnet18",), mirror and str(mirror), store, scratch)
    assert list(found) == ["resnet18"]
    return found["resnet18"]


def is_same(found, expected=TENSORS):
    return found.keys() == expected.keys() and all(
        torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in expected.items()
    )


# --- the order of sources


def test_none_touches_no_source(mirror, store, scratch, monkeypatch):
    monkeypatch.setattr(pretrained, "_torchvision_weights", lambda _: pytest.fail("asked"))
    start = one("none", mirror, store, scratch)
    assert start == pretrained.StartingWeights("resnet18", "none", None, None, None)
    assert pretrained.load_weights(start, store, scratch) is None
    assert store.keys("") == []


@pytest.mark.parametrize("value", ["auto", "imagenet"])
def test_the_mirror_comes_first(value, mirror, store, scratch, monkeypatch, caplog):
    monkeypatch.setattr(pretrained, "_torchvision_weights", lambda _: pytest.fail("asked"))
    start = one(value, mirror, store, scratch)
    origin = f"mirror: {mirror}/resnet18.safetensors"
    assert start == pretrained.StartingWeights("resnet18", origin, SHA256, KEY, None)
    assert store.read(KEY) == FILE
    assert is_same(pretrained.load_weights(start, store, scratch))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("origin", "display"),
    [
        ("none", "none"),
        ("torchvision: IMAGENET1K_V1", "torchvision: IMAGENET1K_V1"),
        ("mirror: /home/a-name/w: x/resnet18.safetensors", "mirror: resnet18.safetensors"),
        ("/home/a-name/own.safetensors", "own.safetensors"),
        ("file:///home/a-name/own.safetensors", "own.safetensors"),
        ("mirror: s3://bucket/resnet18.safetensors", "mirror: s3://bucket/resnet18.safetensors"),
        ("https://u:secret@host/w.safetensors?sig=1", "https://host/w.safetensors"),
    ],
)
def test_a_page_names_no_folder_of_the_machine(origin, display):
    assert pretrained.StartingWeights("resnet18", origin).display_origin == display


@pytest.mark.parametrize("url", ["{}/resnet18.safetensors", "{}", "{}/", "file://{}"])
def test_a_url_of_a_folder_or_of_one_file(url, mirror, store, scratch):
    start = one(url.format(mirror), None, store, scratch)
    assert (start.sha256, start.key, start.warning) == (SHA256, KEY, None)
    assert start.origin.endswith(f"{mirror}/resnet18.safetensors")


@pytest.mark.parametrize("value", ["auto", "imagenet"])
def test_torchvision_comes_second(value, store, scratch, published, caplog):
    start = one(value, None, store, scratch)
    assert start.origin == "torchvision: IMAGENET1K_V1"
    assert start.warning is None
    assert hashlib.sha256(store.read(start.key)).hexdigest() == start.sha256
    assert is_same(pretrained.load_weights(start, store, scratch))
    assert caplog.records == []


@pytest.mark.parametrize("absent", ["file", "folder"])
def test_a_mirror_that_lacks_the_file_is_named_before_torchvision_serves(
    absent, mirror, store, scratch, published, caplog
):
    (mirror / "resnet18.safetensors").unlink()
    folder = mirror if absent == "file" else mirror / "nowhere"
    start = one("auto", folder, store, scratch)
    assert start.origin == "torchvision: IMAGENET1K_V1"
    assert f"{folder}/resnet18.safetensors, found no such file" in start.warning
    assert [r.getMessage() for r in caplog.records] == [start.warning]


def test_auto_ends_at_random_with_a_warning_nobody_misses(mirror, store, scratch, caplog):
    (mirror / "resnet18.safetensors").unlink()
    start = one("auto", mirror, store, scratch)
    assert (start.origin, start.sha256, start.key) == ("none", None, None)
    assert "resnet18 STARTS FROM RANDOM WEIGHTS" in start.warning
    assert f"{mirror}/resnet18.safetensors" in start.warning
    assert "http://127.0.0.1:9/absent-00000000.pth" in start.warning
    assert "set THYRO_WEIGHTS to" in start.warning
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, start.warning)
    ]
    assert pretrained.load_weights(start, store, scratch) is None


def test_imagenet_never_ends_at_random(store, scratch):
    with pytest.raises(
        InputError, match=r"THYRO_WEIGHTS names no mirror.*absent.*set THYRO_WEIGHTS"
    ):
        one("imagenet", None, store, scratch)


def test_each_architecture_is_decided_on_its_own(mirror, store, scratch):
    found = pretrained.resolve_weights("auto", ("vgg16", "resnet18"), str(mirror), store, scratch)
    assert list(found) == ["vgg16", "resnet18"]
    assert [start.architecture for start in found.values()] == ["vgg16", "resnet18"]
    assert (found["vgg16"].key, found["resnet18"].key) == (None, KEY)
    assert found["vgg16"].warning


# --- what is refused


@pytest.mark.parametrize("value", ["imagnet", "{}/nowhere", "{}/vgg16.safetensors"])
def test_a_url_is_strict(value, mirror, store, scratch):
    with pytest.raises(InputError, match="found no such file; choose auto, imagenet, none or"):
        one(value.format(mirror), mirror, store, scratch)
    assert store.keys("") == []


def test_one_file_cannot_serve_two_architectures(mirror, store, scratch):
    url = f"{mirror}/resnet18.safetensors"
    with pytest.raises(InputError, match=r"expected a folder.*resnet18, vgg16"):
        pretrained.resolve_weights(url, ("resnet18", "vgg16"), None, store, scratch)


@pytest.mark.parametrize("value", ["auto", "imagenet", "{}"])
@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", FILE[:-1], FILE + b"\0"])
def test_a_damaged_file_is_refused_even_by_auto(value, data, mirror, store, scratch):
    (mirror / "resnet18.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"resnet18\.safetensors: expected a safetensors file"):
        one(value.format(mirror), mirror, store, scratch)
    assert store.keys("") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet18.safetensors.sha256", "{}"),
        ("resnet18.safetensors.sha256", "{}  resnet18.safetensors\n"),
        ("SHA256SUMS", f"{'0' * 64}  alexnet.safetensors\n{{}}  resnet18.safetensors\n"),
        ("SHA256SUMS", "{} *./resnet18.safetensors\n"),
    ],
)
def test_a_checksum_beside_the_file_is_believed(name, text, mirror, store, scratch):
    (mirror / name).write_text(text.format(SHA256.upper()))
    assert one("auto", mirror, store, scratch).sha256 == SHA256
    wrong = "0" * 64
    (mirror / name).write_text(text.format(wrong))
    with pytest.raises(InputError, match=f"expected SHA-256 {wrong}.*found {SHA256}"):
        one("auto", mirror, store, scratch)


def test_an_unreadable_mirror_is_named_without_its_secrets(store, scratch, monkeypatch):
    def refuse(self, path, *_, **__):
        msg = f"403 for {path}"
        raise PermissionError(msg)

    monkeypatch.setattr(fsspec.get_filesystem_class("http"), "open", refuse)
    start = one("auto", "http://jane:secret@mirror.test/w", store, scratch)
    assert start.key is None
    assert (
        "http://mirror.test/w/resnet18.safetensors, found that it may not be read" in start.warning
    )
    assert "secret" not in start.warning


def test_signatures_and_passwords_stay_out_of_the_origin():
    public = redact("https://jane:secret@host:81/a/b.safetensors?X-Signature=abc#d")
    assert public == "https://host:81/a/b.safetensors"
    assert redact("/data/what?/w@2") == "/data/what?/w@2"


def test_a_full_disk_is_no_reason_to_start_at_random(mirror, store, scratch, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        one("auto", mirror, store, scratch)


# --- torchvision's download


@pytest.mark.parametrize(
    "failure",
    [
        ("/absent-00000000.pth", r"the server refused it (HTTP 404)"),
        ("/cut-00000000.pth", "expected SHA-256 00000000"),
        ("/wrong-00000000.pth", "expected SHA-256 00000000"),
        ("/silent-00000000.pth", "no answer within 0.2 s"),
    ],
)
def test_a_failed_download_leaves_nothing_behind(
    failure, store, scratch, site, official, monkeypatch
):
    path, reason = failure
    monkeypatch.setattr(pretrained, "_TIMEOUT", 0.2)
    (site.folder / "wrong-00000000.pth").write_bytes(b"another file")
    official["resnet18"] = site.address + path
    start = one("auto", None, store, scratch)
    assert start.origin == "none"
    assert reason in start.warning
    assert [p for p in scratch.rglob("*") if p.is_file() and p.suffix != ".lock"] == []
    with pytest.raises(InputError, match=re.escape(reason)):
        one("imagenet", None, store, scratch)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (URLError(socket.gaierror(-2, "Name or service not known")), "name is not known here"),
        (URLError(SSLError("CERTIFICATE_VERIFY_FAILED")), "certificate is not trusted here"),
        (URLError(ConnectionRefusedError(111, "Connection refused")), "failed or broke off"),
        (IncompleteRead(b"half"), "failed or broke off"),
    ],
)
def test_a_download_that_fails_is_said_in_words_without_a_class(
    error, words, store, scratch, monkeypatch
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pretrained.urllib.request, "urlopen", fail)
    warning = one("auto", None, store, scratch).warning
    assert words in warning
    assert not re.search(r"\w+Error|\w+Exception|Errno", warning)


def test_a_download_is_made_once_per_node(store, scratch, site, official, tmp_path):
    official["resnet18"] = publish(site, pth(tmp_path, TENSORS))
    starts = [one("auto", None, store, scratch) for _ in range(3)]
    assert len(set(starts)) == 1
    assert len(site.asked) == 1


def test_the_old_format_of_torch_is_read_too(store, scratch, site, official, tmp_path):
    data = pth(tmp_path, TENSORS, _use_new_zipfile_serialization=False)
    official["resnet18"] = publish(site, data)
    assert is_same(pretrained.load_weights(one("auto", None, store, scratch), store, scratch))


class Trap:
    """A pickle that leaves a mark where it is executed."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_is_refused_and_not_executed(store, scratch, site, official, tmp_path):
    mark = tmp_path / "executed"
    data = pth(tmp_path, {"conv1.weight": Trap(mark)})
    official["resnet18"] = publish(site, data)
    with pytest.raises(InputError, match="tensors only"):
        one("auto", None, store, scratch)
    assert not mark.exists()
    torch.load(tmp_path / "state.pth", weights_only=False)
    assert mark.exists(), "the trap itself does not work"


@pytest.mark.parametrize("value", [[torch.zeros(1)], {"epoch": 3}, torch.zeros(2), None])
def test_anything_but_named_tensors_is_refused(value, store, scratch, site, official, tmp_path):
    official["resnet18"] = publish(site, pth(tmp_path, value))
    with pytest.raises(InputError, match="named tensors only"):
        one("auto", None, store, scratch)


@pytest.mark.parametrize(
    "data", [b"", b"text", b"<html></html>", bytes(range(256)), pickle.dumps(3, 2)]
)
def test_bytes_that_are_no_state_are_refused(data, store, scratch, site, official):
    official["resnet18"] = publish(site, data)
    with pytest.raises(InputError, match="named tensors only"):
        one("auto", None, store, scratch)


@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_a_file_that_pytorch_saved_is_taken_for_its_tensors(key, store, scratch, tmp_path):
    """Beside the network, a program keeps its own counters in it; tensors may share memory."""
    shared = dict(TENSORS) | {"tied": next(iter(TENSORS.values()))}
    file = tmp_path / "other.pth"
    torch.save(shared if key is None else {key: shared, "epoch": 7, "args": {"lr": 0.1}}, file)
    start = one(str(file), None, store, scratch)
    assert start.origin == str(file)
    found = pretrained.load_weights(start, store, scratch)
    assert found.keys() == shared.keys()
    assert all(torch.equal(found[name], value) for name, value in shared.items())
    assert one(str(file), None, store, scratch) == start


def test_a_file_of_pytorch_s_that_runs_code_or_holds_no_network_is_refused(
    store, scratch, tmp_path
):
    file = tmp_path / "other.pt"
    for content in ({"epoch": 7}, {"state_dict": {"epoch": 7}}, Path("x")):
        torch.save(content, file)
        with pytest.raises(InputError, match=r"other\.pt: expected a file of named tensors only"):
            one(str(file), None, store, scratch)


def test_the_official_files_carry_their_hash_prefix():
    """The hash prefixes published in torchvision's documentation of its model zoo."""
    found = {name: TORCHVISION_WEIGHTS(name)[1].rpartition("/")[2] for name in ARCHITECTURES}
    assert found == {
        "resnet18": "resnet18-f37072fd.pth",
        "alexnet": "alexnet-owt-7be5be79.pth",
        "vgg16": "vgg16-397923af.pth",
        "inception_v3": "inception_v3_google-0cc3c7bd.pth",
    }
    assert {TORCHVISION_WEIGHTS(name)[0] for name in ARCHITECTURES} == {"IMAGENET1K_V1"}


# --- the study's own copy


def test_a_resume_needs_no_mirror(mirror, memory, scratch, tmp_path):
    start = one("auto", mirror, memory, scratch)
    (mirror / "resnet18.safetensors").unlink()
    again = pretrained.StartingWeights(**json.loads(json.dumps(asdict(start))))
    assert again == start
    assert is_same(pretrained.load_weights(again, memory, tmp_path / "another node"))


def test_the_copy_is_not_written_twice(mirror, store, scratch):
    start = one("auto", mirror, store, scratch)
    copy = Path(store.path(start.key))
    before = copy.stat()
    assert one("imagenet", mirror, store, scratch) == start
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_damaged_node_copy_is_fetched_again(mirror, memory, scratch):
    start = one("auto", mirror, memory, scratch)
    pretrained.load_weights(start, memory, scratch)
    (copy,) = [p for p in scratch.rglob("*.safetensors") if p.is_file()]
    copy.write_bytes(save({name: value + 1 for name, value in TENSORS.items()}))
    assert is_same(pretrained.load_weights(start, memory, scratch))


def test_a_damaged_object_is_refused(mirror, memory, scratch):
    start = one("auto", mirror, memory, scratch)
    other = save({name: value + 1 for name, value in TENSORS.items()})
    memory.write(start.key, other)
    found = hashlib.sha256(other).hexdigest()
    with pytest.raises(InputError, match=f"{SHA256}.*found {found}.*is damaged: delete ") as caught:
        pretrained.load_weights(start, memory, scratch)
    (copy,) = [p for p in scratch.rglob("*.safetensors") if p.is_file()]
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("kind", ["store", "memory"])
def test_a_copy_that_is_gone_is_named(kind, mirror, scratch, request):
    store = request.getfixturevalue(kind)
    start = one("auto", mirror, store, scratch)
    store.delete(start.key)
    with pytest.raises(InputError, match="found no file; start the study again") as caught:
        pretrained.load_weights(start, store, scratch)
    assert start.key in str(caught.value)


def test_resolving_leaves_no_temporary_file(mirror, store, scratch):
    one("auto", mirror, store, scratch)
    assert list(scratch.rglob("*")) == []
    assert store.keys("") == [KEY]


WITHOUT_TORCH = """
import sys
from pathlib import Path
from thyro_core.training import pretrained as weights
from thyro_core.store.store import open_store
store, mirror, scratch = sys.argv[1:]
found = weights.resolve_weights("auto", ("resnet18",), mirror, open_store(store), Path(scratch))
assert found["resnet18"].key, found
loaded = {"torch", "ray", "prefect"} & set(sys.modules)
assert not loaded, loaded
"""


def test_a_mirror_needs_no_torch(mirror, store, scratch):
    arguments = [sys.executable, "-c", WITHOUT_TORCH, store.url, str(mirror), str(scratch)]
    subprocess.run(arguments, check=True, capture_output=True, timeout=120)


def test_ten_processes_at_once_make_one_good_copy(store, scratch, site):
    """The mirror lets nobody in before all ten stand at its door."""
    (site.folder / "resnet18.safetensors").write_bytes(FILE)
    site.door.append(threading.Barrier(10))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["thyro_core.training.pretrained", "fsspec.implementations.http"]
    )
    arguments = ("auto", ("resnet18",), site.address, store, scratch)
    with context.Pool(10) as pool:
        found = pool.starmap(pretrained.resolve_weights, [arguments] * 10, chunksize=1)
    assert [start["resnet18"].sha256 for start in found] == [SHA256] * 10
    assert [p.name for p in Path(store.path("weights")).iterdir()] == [Path(KEY).name]
    assert store.read(KEY) == FILE


def at_once(count, function):
    """What a function returns to threads that call it together."""
    barrier = threading.Barrier(count)

    def call(_):
        barrier.wait(60)
        return function()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_ten_jobs_at_once_fetch_one_copy(mirror, memory, scratch, monkeypatch):
    start = one("auto", mirror, memory, scratch)
    opened = []
    real = memory.fs.open
    monkeypatch.setattr(memory.fs, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    assert all(map(is_same, at_once(10, lambda: pretrained.load_weights(start, memory, scratch))))
    assert len(opened) == 1


def test_ten_studies_at_once_download_once(store, scratch, site, official, tmp_path):
    official["resnet18"] = publish(site, pth(tmp_path, TENSORS))
    found = at_once(10, lambda: one("auto", None, store, scratch))
    assert len(set(found)) == 1
    assert len(site.asked) == 1
    assert store.keys("") == [found[0].key]
    assert weights_key("resnet18", found[0].sha256) == found[0].key
