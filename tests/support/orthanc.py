"""A real archive: Debian's Orthanc with its DICOMweb plugin, on loopback, while a block lasts."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
TITLE = "ORTHANC"
USER, PASSWORD = "thyro", "a-password-of-the-tests"


def why_not() -> str | None:
    """Why there is no such archive here; None: there is one."""
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        return "Orthanc is not installed: apt-get install orthanc orthanc-dicomweb"
    return None


class Orthanc:
    """An archive that can be stopped and started again."""

    def __init__(self, folder: Path, config: Mapping[str, object] | None = None) -> None:
        with socket.socket() as free, socket.socket() as other:
            free.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.dicom_port = free.getsockname()[1], other.getsockname()[1]
        self._config = folder / "orthanc.json"
        self._config.write_text(
            json.dumps(
                {
                    "HttpPort": self.port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": True,
                    "RegisteredUsers": {USER: PASSWORD},
                    "StorageDirectory": str(folder / "objects"),
                    "IndexDirectory": str(folder / "objects"),
                    "DicomAet": TITLE,
                    "DicomPort": self.dicom_port,
                    "Plugins": [str(PLUGIN)],
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
                | dict(config or {})
            )
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"dicomweb+http://127.0.0.1:{self.port}/dicom-web?ModalitiesInStudy=US"

    @property
    def results_to(self) -> str:
        return self.address.partition("?")[0]

    @property
    def node(self) -> str:
        return f"dicom://{TITLE}@127.0.0.1:{self.dicom_port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["Orthanc", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            try:
                if self._ask("GET", "/system").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        pytest.fail("Orthanc did not start within a minute")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def put(self, data: bytes) -> None:
        self._ask("POST", "/instances", content=data).raise_for_status()

    def files(self) -> list[bytes]:
        """All objects that it holds."""
        names = self._ask("GET", "/instances").json()
        return [self._ask("GET", f"/instances/{name}/file").content for name in names]

    def _ask(self, method: str, path: str, **options: object) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, auth=(USER, PASSWORD), timeout=60, **options)


@contextmanager
def running_orthanc(folder: Path, config: Mapping[str, object] | None = None) -> Iterator[Orthanc]:
    """An archive for as long as the block lasts; `config` stands above the tests' own."""
    archive = Orthanc(folder, config)
    try:
        yield archive
    finally:
        archive.stop()
