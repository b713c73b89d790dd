"""What `thyro doctor` finds of archives: what they let this machine do, without leaving a trace."""

from pathlib import Path

import pytest

from tests.support.dicoms import dicom, speckle
from tests.support.orthanc import PASSWORD, USER, running_orthanc, why_not
from thyro_core.archive.probe import probe_source, probe_target
from thyro_core.errors import InputError, StoreError
from thyro_core.settings import Settings

UID = "1.2.840.113619.33"
RIGHT = {"dicomweb_user": USER, "dicomweb_password": PASSWORD}


def settings(**values: object) -> Settings:
    return Settings(**({"store_patience": 0.5} | values))


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_real_archive_is_asked_each_thing(tmp_path: Path) -> None:
    with running_orthanc(tmp_path) as orthanc:
        empty = probe_source(orthanc.address, settings(**RIGHT))
        assert "no study is what the address asks for" in empty
        uids = {"StudyInstanceUID": f"{UID}.2", "SeriesInstanceUID": f"{UID}.3"}
        orthanc.put(dicom(speckle(), SOPInstanceUID=f"{UID}.1", **uids))
        assert probe_source(orthanc.address, settings(**RIGHT)).endswith("lists and gives")
        for target, how in ((orthanc.results_to, "STOW-RS"), (orthanc.node, "C-STORE")):
            assert probe_target(target, settings(**RIGHT)).endswith(f"takes them ({how})")
        assert len(orthanc.files()) == 1, "nothing is stored"
        wrong = settings(dicomweb_user=USER, dicomweb_password="wrong")
        with pytest.raises(InputError, match=r"refuses \(401\)"):
            probe_source(orthanc.address, wrong)
        with pytest.raises(InputError, match=r"refuses \(401\)"):
            probe_target(orthanc.results_to, wrong)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "target", ["dicom://A@127.0.0.1:9", "dicomweb+http://127.0.0.1:9/dicom-web"]
)
def test_an_archive_that_is_away(target: str) -> None:
    with pytest.raises(StoreError, match="has not answered"):
        probe_target(target, settings())
