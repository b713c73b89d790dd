"""`thyro predict`: the verdict of a screening on single files, without a night."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from tests.support.screened import write_colour, write_image
from thyro_core.registry.predictor import load_model
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.model import ScreeningModel
from thyro_core.screening.single_files import judge_files


def predict(store, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["predict", "--store", store.url, *words])
    return done.exit_code, done.stdout


def test_every_file_has_its_verdict_and_the_model_s_own_probability(model, tmp_path) -> None:
    store, bundle = model
    good = write_image(tmp_path / "good.png", 1, malignant=True)
    colour = write_colour(tmp_path / "colour.png", 2)
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2_000_000)  # never read as a whole
    names = ("empty.png", "gone.png", "pipe.png", "large.png")
    files = [good, colour, *(tmp_path / name for name in names)]
    loaded = ScreeningModel(store, bundle.model_id, tmp_path)
    verdicts = list(judge_files(loaded, files, ScreeningRules(max_bytes=1_000_000)))
    assert [each.file for each in verdicts] == files
    assert [each.status for each in verdicts] == [
        "scored", "rejected", "failed", "failed", "rejected", "rejected"
    ]  # fmt: skip
    assert [each.reason for each in verdicts[2:]] == [
        "undecodable", "unreadable", "not_a_file", "too_large"
    ]  # fmt: skip
    assert verdicts[2].detail == "the file is empty"
    assert verdicts[3].detail == (
        "there is no such file, or it still grows: check its path, or wait until it is whole"
    )
    assert "name a file" in str(verdicts[4].detail)
    assert verdicts[5].detail == "more than max_bytes = 1000000"
    (probability,) = load_model(store).predict([good])["prob_malignant"]
    assert verdicts[0].prob_malignant == pytest.approx(probability, abs=1e-6)
    assert all(each.prob_malignant is None and each.overlay is None for each in verdicts[1:])
    with Image.open(io.BytesIO(verdicts[0].overlay or b"")) as sheet:
        halves = np.split(np.asarray(sheet.convert("RGB")), 2, axis=1)
    assert (halves[0] != halves[1]).any()


def test_the_terminal_names_reasons_and_writes_overlays(model, tmp_path) -> None:
    store, _ = model
    good = write_image(tmp_path / "good.png", 1)
    colour = write_colour(tmp_path / "colour.png", 2)
    code, text = predict(store, str(good), str(colour), "--overlays", str(tmp_path / "maps"))
    assert code == 0
    assert "colour.png: not scored, doppler colour" in " ".join(text.split())
    assert "not a medical device" in " ".join(text.split())
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["001-good.jpg"]


def test_json_has_one_row_an_image_and_nothing_scored_is_bad_input(model, tmp_path) -> None:
    store, bundle = model
    colour = write_colour(tmp_path / "colour.png", 2)
    code, text = predict(store, str(colour), "--json")
    assert code == 2
    (row,) = json.loads(text)["images"]
    assert (row["status"], row["prob_malignant"]) == ("rejected", None)
    assert json.loads(text)["model_id"] == bundle.model_id


def test_a_folder_is_for_screen(model, tmp_path) -> None:
    store, _ = model
    done = CliRunner().invoke(app, ["predict", "--store", store.url, str(tmp_path)])
    assert "thyro screen takes folders" in str(done.exception)
