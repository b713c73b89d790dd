"""`thyro send`: what it says before, of what, and what it leaves to the next screening."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tests.support.dicoms import PERSON
from tests.support.orthanc import PASSWORD, USER, running_orthanc, why_not
from tests.support.screened import RULES, Ward
from tests.unit.screening.test_results import UID, instance, thyros
from thyro_core.errors import InputError, ThyroError
from thyro_core.screening.night import plan_night
from thyro_core.screening.results import begin_delivery
from thyro_core.settings import Settings

DATE = "2026-11-25"


def thyro_send(ward: Ward, *options: str) -> str:
    arguments = ["send", str(ward.batch), "--store", ward.store.url, *options]
    done = CliRunner().invoke(app, arguments, catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return " ".join(done.output.split())


@pytest.fixture
def screened(ward: Ward) -> Ward:
    for number in range(3):
        (ward.batch / f"{number}.dcm").write_bytes(instance(number, number // 2))
    ward.screen(DATE)
    return ward


def test_without_an_archive_it_says_which_setting_lacks(screened: Ward) -> None:
    with pytest.raises(InputError, match="THYRO_RESULTS_TO: expected an archive"):
        thyro_send(screened)


def test_a_night_of_another_date_is_none(screened: Ward, monkeypatch) -> None:
    monkeypatch.setenv("THYRO_RESULTS_TO", "dicom://A@127.0.0.1:9")
    with pytest.raises(InputError, match="expected a night of this batch, found none"):
        thyro_send(screened, "--date", "2026-11-01")
    assert "nothing to send" in thyro_send(screened)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_archive_that_is_away_is_an_error_that_names_it(screened: Ward, monkeypatch) -> None:
    monkeypatch.setenv("THYRO_RESULTS_TO", "dicom://A@127.0.0.1:9")
    monkeypatch.setenv("THYRO_STORE_PATIENCE", "0.3")
    with pytest.raises(ThyroError, match="3 files: results not sent; the same command goes on"):
        thyro_send(screened, "--date", DATE)


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_dry_run_says_what_the_next_one_sends(
    screened: Ward, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("THYRO_DICOMWEB_USER", USER)
    monkeypatch.setenv("THYRO_DICOMWEB_PASSWORD", PASSWORD)
    with running_orthanc(tmp_path) as orthanc:
        monkeypatch.setenv("THYRO_RESULTS_TO", orthanc.results_to)
        night = plan_night(screened.store, str(screened.batch), DATE, None, RULES)
        begin_delivery(screened.store, night, Settings())
        said = thyro_send(screened, "--dry-run")
        assert said.count(f"{DATE}: a study's report of") == 2
        assert "nothing is sent: this was a dry run. Research use only" in said
        assert thyros(orthanc) == []
        sent = thyro_send(screened)
        n_objects = len(thyros(orthanc))
        assert f"results of 2 studies in the archive: {n_objects} objects sent" in sent
        assert "nothing to send" in thyro_send(screened)
        assert "0 objects sent" in thyro_send(screened, "--date", DATE)
        assert len(thyros(orthanc)) == n_objects
    for secret in (UID, "MRN-", *PERSON.values()):
        assert secret not in said + sent
