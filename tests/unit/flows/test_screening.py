"""What the flow says of a night, and what its process loads."""

from dataclasses import replace

import pytest

from tests.project.test_style import loaded
from tests.support.screened import Ward, write_colour, write_image
from thyro_core import NOTICE
from thyro_core.errors import InputError
from thyro_core.screening.drift import FIGURES, Breach, DriftReport
from thyro_core.screening.night import checked_date, today
from thyro_core.screening.rules import Counts
from thyro_core.screening.worklist import unscored_rows

DRIFT = DriftReport(
    n_received=40,
    n_scored=40,
    values=dict.fromkeys(FIGURES, float("nan")) | {"mmd": 0.1},
    breaches=(Breach("mmd", 0.1, 0.01),),
    too_few=None,
)


def test_today_is_the_zones_own_day(monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as dt

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime(2026, 11, 25, 23, 30, tzinfo=dt.UTC).astimezone(tz)

    monkeypatch.setattr("thyro_core.screening.night.datetime", Clock)
    assert today("UTC") == "2026-11-25"
    assert today("Europe/Warsaw") == "2026-11-26"
    assert today("America/New_York") == "2026-11-25"


def test_a_night_to_come_is_refused() -> None:
    assert checked_date("", "UTC") == today("UTC")
    assert checked_date("2020-02-29", "UTC") == "2020-02-29"
    with pytest.raises(
        InputError, match=r"expected a night until today, .* found 9999-12-31; corr"
    ):
        checked_date("9999-12-31", "UTC")
    with pytest.raises(InputError, match="date: expected one such as 2026-11-25"):
        checked_date("2026-02-30", "UTC")


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../../etc/passwd"])
def test_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(InputError, match="THYRO_TIMEZONE: expected an IANA zone"):
        today(zone)


def test_what_leads_a_screening_loads_no_torch() -> None:
    night, actors = loaded("thyro_core.screening.night", "thyro_core.cluster.screening")
    assert night & {"torch", "torchvision", "ray", "prefect"} == set()
    assert actors & {"torch", "torchvision", "prefect"} == set()
    assert "ray" in actors


def test_the_summary_and_the_table_of_what_is_not_scored(ward: Ward) -> None:
    from flows.screening import summary

    write_image(ward.batch / "Nowak.png", 1)
    write_colour(ward.batch / "Kowalska.png", 2)
    result = ward.screen()
    said = summary(ward.store, result)
    assert NOTICE in said
    assert f"| {result.totals.received} | {result.totals.scored} |" in said
    assert f"{result.totals.sentence}. A copy shows" in said
    assert "This run met 2 files = 2 read + 0 passed over" in said
    assert "Drift" not in said
    rows = unscored_rows(ward.store, result.night)
    assert any(row["why"].startswith("Coloured pixels") for row in rows)
    assert all(len(row["file"]) == 16 for row in rows)
    assert not any(name in str(rows) + said for name in ("Nowak", "Kowalska"))
    drifted = replace(result, counts=Counts(), drift=DRIFT)
    assert "**Drift: mmd 0.100 (bound 0.010).** Trust the order less." in summary(
        ward.store, drifted
    )


def test_drift_is_an_event_that_names_the_statistics_and_nobody(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import drift
    from flows import screening as flow

    said: dict[str, list] = {"events": [], "pages": [], "tables": []}
    monkeypatch.setattr(
        drift, "emit_event", lambda name, **event: said["events"].append((name, event))
    )
    monkeypatch.setattr(
        drift, "create_markdown_artifact", lambda page, **_: said["pages"].append(page)
    )
    monkeypatch.setattr(
        flow, "create_markdown_artifact", lambda page, **_: said["pages"].append(page)
    )
    monkeypatch.setattr(
        flow, "create_table_artifact", lambda rows, **_: said["tables"].append(rows)
    )
    monkeypatch.setattr(flow, "show_table", lambda *said_: said["tables"].append(said_))
    write_image(ward.batch / "Nowak.png", 1)
    calm = ward.screen()
    flow._publish(ward.store, replace(calm, totals=replace(calm.totals, rejected=0)))
    assert said["events"] == []
    flow._publish(ward.store, replace(calm, drift=DRIFT))
    ((name, event),) = said["events"]
    assert name == "thyro.drift"
    night = calm.night
    assert event["resource"]["prefect.resource.id"] == f"thyro.batch.20261125.{night.batch_id}"
    payload = event["payload"]
    assert (payload["model_id"], payload["breaches"]) == (night.model_id, "mmd")
    assert "mmd 0.100" in payload["text"]
    assert sum("mmd 0.100" in page for page in said["pages"]) == 2  # the night's and the drift's
    assert "Nowak" not in str(said)
