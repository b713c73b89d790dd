"""The worklist's CSV: its order, and why an image stands where it stands."""

import csv
from pathlib import Path

import pytest

from tests.support.worklists import ORDER, ROWS, TOTALS, batch_row, written
from thyro_core import NOTICE
from thyro_core.screening.rules import WHY
from thyro_core.screening.worklist import REFERRAL_REASON, why


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("list"), ROWS, TOTALS, batch_row())


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / "worklist.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_ranks_every_image(folder: Path) -> None:
    rows = listed(folder)
    assert [int(each["image_id"], 16) for each in rows] == ORDER
    assert [each["rank"] for each in rows] == [str(i) for i in range(1, 9)]
    assert rows[0] == rows[0] | {
        "band": "refer", "prob_malignant": "0.9", "sd": "0.05", "why": REFERRAL_REASON,
        "notice": NOTICE, "name": "", "patient_id": "", "model_id": "b1", "batch": "s3://night",
    }  # fmt: skip
    assert rows[2]["patient_id"] == "q0123456789abcdef"
    assert rows[4] == rows[4] | {
        "band": "not scored", "status": "rejected", "reason": "doppler_colour",
        "why": WHY["doppler_colour"], "prob_malignant": "",
        "detail": "share of coloured pixels 0.3",
    }  # fmt: skip
    assert (rows[5]["status"], rows[7]["why"]) == ("failed", "")


def test_why_in_words() -> None:
    assert [why(each) for each in ROWS[:3]] == ["", REFERRAL_REASON, WHY["doppler_colour"]]
    assert why(ROWS[4]) == WHY["uncertain"]
