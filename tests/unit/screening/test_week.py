"""A week of nights by a fake clock: whatever comes in, every image is accounted for."""

import hashlib
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.dicoms import dicom, speckle
from tests.support.screened import RULES, Ward, write_colour, write_image
from tests.unit.screening.test_night import Crash, check_sums, worklist
from thyro_core.tables.io import read_table
from thyro_core.tables.query import run_query

pytestmark = pytest.mark.usefixtures("one_thread")

NIGHTS = [f"2026-11-{day}" for day in range(23, 30)]


@dataclass
class Delivery:
    """What the ward has sent, and what should become of it."""

    folder: Path
    fates: dict[str, str] = field(default_factory=dict)
    """File hash -> `image` (scored, or unlike the training set), or the reason it must have."""
    copies: int = 0
    seed: int = 0

    def images(self, night: int, count: int) -> list[Path]:
        made = []
        for _ in range(count):
            self.seed += 1
            path = self.folder / f"night{night}" / f"image{self.seed}.png"
            write_image(path, self.seed, malignant=self.seed % 4 == 0)
            made.append(self._expect(path, "image"))
        return made

    def dicom(self, night: int) -> None:
        self.seed += 1
        path = self.folder / f"night{night}" / f"1.2.840.{self.seed}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom(speckle(seed=self.seed)))
        self._expect(path, "image")

    def colour(self, night: int) -> None:
        self.seed += 1
        path = self.folder / f"night{night}" / f"colour{self.seed}.png"
        self._expect(write_colour(path, self.seed), "doppler_colour")

    def corrupt(self, night: int, like: Path) -> None:
        self.seed += 1
        path = self.folder / f"night{night}" / f"corrupt{self.seed}.png"
        data = like.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes([self.seed]))
        self._expect(path, "undecodable")

    def copy(self, night: int, of: Path) -> None:
        self.copies += 1
        shutil.copy(of, self.folder / f"night{night}" / f"copy{self.copies}-{of.name}")

    def blurred_scanner(self, night: int, count: int) -> None:
        """A scanner out of focus and far too bright: the night drifts."""
        for _ in range(count):
            self.seed += 1
            path = self.folder / f"night{night}" / f"drifted{self.seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(speckle(80, 96, self.seed, sigma=5.0).astype(float) + 60, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            self._expect(path, "drifted")

    def _expect(self, path: Path, fate: str) -> Path:
        self.fates[hashlib.sha256(path.read_bytes()).hexdigest()] = fate
        return path


def deliver(ward: Ward) -> Delivery:
    """Screens the week, and returns what was sent."""
    sent = Delivery(ward.batch)
    for number, night in enumerate(NIGHTS):
        fresh = sent.images(number, 6)
        sent.dicom(number)
        sent.colour(number)
        sent.corrupt(number, fresh[0])
        sent.copy(number, fresh[1])
        if number == 2:
            crash(ward, night)
        if number == 5:
            sent.blurred_scanner(number, 60)
        ward.screen(night)
        if number == 3:
            sent.images(number, 2)  # late, and screened again the same night
            ward.screen(night)
        if number == 4:
            sent.images(number, 3)  # too late for this night: the next one takes them
    return sent


def crash(ward: Ward, night: str) -> None:
    def die(number: int) -> None:
        if number == 2:
            raise Crash

    with pytest.raises(Crash):
        ward.screen(night, after_block=die)


def test_a_week_in_which_every_image_is_accounted_for(ward: Ward) -> None:
    sent = deliver(ward)
    rows = read_table(ward.store, "screening").to_pylist()
    found = {row["file_id"]: row for row in rows if row["status"] != "copy"}
    assert len(found) == len(sent.fates)
    assert len(rows) == len(found) + sent.copies
    assert found.keys() == sent.fates.keys()
    for file_id, fate in sent.fates.items():
        row = found[file_id]
        if fate == "image":
            assert row["status"] == "scored" or row["reason"] == "unlike_training", row
        elif fate != "drifted":
            assert row["reason"] == fate, row
    # By SQL, night for night; seven nights and no more.
    batches = check_sums(ward)
    assert [row["date"] for row in batches] == [int(night.replace("-", "")) for night in NIGHTS]
    by_night = [row["received"] for row in batches]
    assert by_night == [10, 10, 10, 12, 10, 73, 10]
    assert sum(by_night) == len(sent.fates) + sent.copies
    for night, received in zip(NIGHTS, by_night, strict=True):
        listed = worklist(ward, night)
        assert len(listed) == received
        assert [int(row["rank"]) for row in listed] == list(range(1, received + 1))
    assert Counter(row["status"] for row in rows)["failed"] == len(NIGHTS)


def test_the_drifted_night_stands_out(ward: Ward) -> None:
    sent = Delivery(ward.batch)
    sent.images(0, 60)
    ward.screen(NIGHTS[0], rules=RULES)
    sent.blurred_scanner(1, 60)
    drifted = ward.screen(NIGHTS[1], rules=RULES)
    calm_row, row = run_query(ward.store.url, "FROM screening_batches ORDER BY date").to_pylist()
    named = [breach.split()[0] for breach in drifted.breaches]
    assert [each.split()[0] for each in re.split("[;,] ?", row["breaches"])] == named
    assert any(breach.startswith("share_rejected") for breach in drifted.breaches)
    assert row["share_rejected"] > calm_row["share_rejected"] + 0.3
    for name in ("psi_score", "ks_score", "ks_score_p", "psi_mean", "ks_sharpness"):
        # Judged by fifty scored images; the calm night of this small model has fewer.
        assert (calm_row[name] is None) == (calm_row["scored"] < 50)
    page = ward.store.read(f"screening/{NIGHTS[1]}/worklist.html").decode()
    assert "Trust the order less." in page
