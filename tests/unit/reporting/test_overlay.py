"""`thyro overlay`: the right map over the right image, out of a store, or one sentence why not."""

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow.compute as pc
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from flows.cli.overlay import overlay as command
from tests.support.places import REPOSITORY
from tests.support.s3server import BUCKET, forget_clients
from tests.unit.study.test_verify import write_images, write_run
from thyro_core.config import StudyConfig
from thyro_core.datasets.manifest import ingest
from thyro_core.datasets.splits import make_splits
from thyro_core.errors import InputError
from thyro_core.explain.overlay import overlay_map, png_bytes
from thyro_core.imaging.decode import decode, resize
from thyro_core.reporting.map_lookup import ExplainedImage, MapRequest, explained_image
from thyro_core.reporting.overlay import overlay_sheet, sheet_text
from thyro_core.store.keys import table_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import make_plan, save_plan
from thyro_core.tables.io import read_table, write_table

CONFIG = StudyConfig(
    architectures=("alexnet", "inception_v3"),
    splits=3,
    test_fraction=0.4,
    image_size=64,
    blur_bound=0.0,
)


def build(folder: Path, store: Store) -> str:
    """A study of 24 images with made-up predictions; split 2 is not finished."""
    write_images(folder / "images")
    (folder / "images/small.png").write_bytes(png(np.full((20, 20), 7, np.uint8)))
    with (folder / "images/labels.csv").open("a") as labels:
        labels.write("\nsmall.png,benign,p9")
    manifest = ingest(str(folder / "images"), CONFIG.ingest(), store, (64, 85))
    plan = make_plan(CONFIG, manifest.manifest_id, "fp32", {}, ())
    save_plan(store, plan)
    splits = make_splits(plan.study_id, manifest.table, CONFIG)
    write_table(store, "splits", splits, study_id=plan.study_id)
    for split in (0, 1):
        for architecture in CONFIG.architectures:
            write_run(store, plan.study_id, split, architecture)
    return plan.study_id


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("made")
    return folder, build(folder, open_store(str(folder / "store")))


@pytest.fixture
def store(made, tmp_path) -> Store:
    shutil.copytree(made[0] / "store", tmp_path / "store")
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def study(made) -> str:
    return made[1]


def image_tested_in(store: Store, study: str, splits: set[int]) -> str:
    """An image that is in the test part of just these splits."""
    rows = read_table(store, "splits", study_id=study).to_pylist()
    found: dict[str, set[int]] = {row["image_id"]: set() for row in rows}
    for row in rows:
        if row["role"] == "test":
            found[row["image_id"]].add(row["split"])
    return next(image_id for image_id, where in sorted(found.items()) if where == splits)


def test_the_map_is_the_one_asked_for(made, store, study, tmp_path) -> None:
    image_id = image_tested_in(store, study, {0, 1})
    rows = read_table(store, "images").to_pylist()
    (row,) = (row for row in rows if row["image_id"] == image_id)
    pixels = decode(Path(row["uri"].removeprefix("file://")).read_bytes(), CONFIG.ingest()).grey
    for architecture, side in (("alexnet", 64), ("inception_v3", 85)):
        for split in (0, 1):
            keys = {"study_id": study, "split": split, "architecture": architecture}
            prediction = read_table(store, "predictions", **keys)
            (truth,) = prediction.filter(pc.field("image_id") == image_id).to_pylist()
            for target in (0, 1):
                wanted = MapRequest(study, image_id[:10], target, architecture, split)
                found = explained_image(store, wanted, tmp_path)
                assert (found.image_id, found.architecture) == (image_id, architecture)
                assert (found.split, found.target) == (split, target)
                assert (found.width, found.height) == (96, 80)
                np.testing.assert_array_equal(found.grey, resize(pixels, side))
                assert found.prob_malignant == truth["prob_malignant"]
                assert found.label == truth["label"] == row["label"]
                cams = read_table(store, "cams", **keys).to_pylist()
                (cam,) = (
                    c for c in cams if c["image_id"] == image_id and c["target_class"] == target
                )
                expected = np.array(cam["map"]).reshape(3, 3) * cam["peak"]
                np.testing.assert_allclose(found.cam, expected, rtol=1e-6)


def test_defaults_are_the_first_architecture_and_the_first_finished_split(store, study, tmp_path):
    late = image_tested_in(store, study, {1, 2})
    found = explained_image(store, MapRequest(study, late, 1), tmp_path)
    assert (found.architecture, found.split) == ("alexnet", 1)
    store.delete(table_key("predictions", study_id=study, split=0, architecture="alexnet"))
    both = image_tested_in(store, study, {0, 1})
    assert explained_image(store, MapRequest(study, both.upper(), 1), tmp_path).split == 1
    other = explained_image(store, MapRequest(study, f" {both[:20]} ", 1, "inception_v3"), tmp_path)
    assert other.split == 0


def refusal(store: Store, tmp_path: Path, *wanted, **options) -> str:
    with pytest.raises(InputError) as error:
        explained_image(store, MapRequest(*wanted, **options), tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_not_there_is_said_in_one_sentence(store, study, tmp_path) -> None:
    image_id = image_tested_in(store, study, {0, 1})
    assert "expected a study s0, found " + study in refusal(store, tmp_path, "s0", image_id, 1)
    found = refusal(store, tmp_path, study, image_id, 1, architecture="vgg16")
    assert "one of its architectures (alexnet, inception_v3), found vgg16" in found
    found = refusal(store, tmp_path, study, image_id, 1, split=2)
    assert "expected split 2 with it in the test part, found splits with it: 0, 1" in found
    late = image_tested_in(store, study, {2})
    found = refusal(store, tmp_path, study, late, 1)
    assert f"image {late[:12]}: expected a finished split of alexnet that tested it (of 2)" in found
    assert "expected a finished split" in refusal(store, tmp_path, study, late, 1, split=2)
    never = image_tested_in(store, study, set())
    found = refusal(store, tmp_path, study, never, 1)
    assert "expected a split with it in the test part, found splits with it: none" in found


def test_an_unknown_image_is_told_the_nearest(store, study, tmp_path) -> None:
    image_id = image_tested_in(store, study, {0, 1})
    wrong = image_id[:7] + ("0" if image_id[7] != "0" else "1") + image_id[8:]
    found = refusal(store, tmp_path, study, wrong, 1)
    assert f"expected the beginning of one image_id of study {study}, found none" in found
    assert f"the nearest: {image_id[:12]}" in found
    found = refusal(store, tmp_path, study, "photo.png", 1)
    assert "there are 24, from " in found
    assert found.endswith(", ...")


def test_a_beginning_that_several_share_is_refused(store, study, tmp_path) -> None:
    found = refusal(store, tmp_path, study, "", 1)
    assert "image (empty)" in found
    assert "found 24 that begin so" in found
    ids = read_table(store, "images").filter(pc.field("included"))["image_id"].to_pylist()
    firsts = [image_id[0] for image_id in ids]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    assert f"found {firsts.count(twice)} that begin so" in refusal(store, tmp_path, study, twice, 1)


def test_an_excluded_image_is_said_to_be_one(store, study, tmp_path) -> None:
    (small,) = read_table(store, "images").filter(pc.field("width") == 20)["image_id"].to_pylist()
    assert "the image that begins so is excluded: too_small" in refusal(
        store, tmp_path, study, small[:16], 1
    )


def test_a_table_without_the_map_is_damage(store, study, tmp_path) -> None:
    image_id = image_tested_in(store, study, {0, 1})
    keys = {"study_id": study, "split": 0, "architecture": "alexnet"}
    write_table(store, "cams", read_table(store, "cams", **keys).slice(0, 0), **keys)
    found = refusal(store, tmp_path, study, image_id, 1)
    assert "expected one map of image" in found
    assert "split 0, alexnet, found 0; `thyro verify`" in found


# The picture.


def explained(**changes) -> ExplainedImage:
    rng = np.random.default_rng(3)
    image = ExplainedImage(
        image_id="0123456789abcdef" * 4,
        architecture="resnet18",
        split=4,
        target=1,
        label=0,
        prob_malignant=0.73456,
        grey=rng.integers(0, 256, (64, 64), np.uint8),
        width=800,
        height=400,
        cam=rng.random((7, 7), np.float32) * np.float32(3.25),
    )
    return replace(image, **changes)


def test_the_line_says_what_it_is() -> None:
    assert sheet_text(explained()).split("   ") == [
        "0123456789ab", "resnet18", "split 4", "Grad-CAM for malignant", "P(malignant) 0.735",
        "label benign",
    ]  # fmt: skip
    other = sheet_text(explained(target=0, label=None, cam=np.zeros((7, 7), np.float32)))
    assert other.endswith("Grad-CAM for benign   P(malignant) 0.735   label none   "
                          "empty map: no evidence")  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height", "shown"),
    [(800, 400, (448, 224)), (300, 600, (224, 448)), (96, 96, (448, 448)), (9000, 64, (448, 32))],
)
def test_image_and_overlay_stand_side_by_side_in_the_file_s_proportions(width, height, shown):
    image = explained(width=width, height=height)
    sheet = overlay_sheet(image)
    assert sheet.dtype == np.uint8
    columns, rows = shown
    grey = np.array(Image.fromarray(image.grey).resize(shown, Image.Resampling.BICUBIC))
    left = sheet[38 : 38 + rows, 16 : 16 + columns]
    np.testing.assert_array_equal(left, np.repeat(grey[:, :, None], 3, axis=2))
    right = sheet[38 : 38 + rows, 32 + columns : 32 + 2 * columns]
    np.testing.assert_array_equal(right, overlay_map(grey, image.cam))
    assert (left != right).any()
    frame = sheet.copy()
    frame[2:-2, 2:-2] = 255
    assert (frame == 255).all(), "something is cut off at the edge"
    words = sheet[:36, :, 0] < 128
    assert words.any()
    assert (sheet[38 + rows + 10 :, :, 0] < 128).any(), "the notice is missing"


def test_the_bar_runs_from_tissue_to_the_full_colour() -> None:
    sheet = overlay_sheet(explained())
    bar = sheet[38 : 38 + 224, 48 + 2 * 448 + 4]
    assert bar[-1].tolist() == [128, 128, 128]
    assert bar[0].tolist() == [209, 195, 68]  # 128 x 0.35 + (253, 231, 36) x 0.65
    empty = overlay_sheet(explained(cam=np.zeros((7, 7), np.float32)))
    assert (empty[38 : 38 + 224, 40 + 2 * 448 :] == 255).all(), "no evidence, no bar"


# The command.

app = typer.Typer()
app.command()(command)


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_writes_one_png(store, study, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    image_id = image_tested_in(store, study, {0, 1})
    line = said(image_id[:8], "--study", study, "--store", store.url)
    file = Path(f"{image_id[:12]}-alexnet.png")
    assert line.startswith(f"{file}: {image_id[:12]}   alexnet   split 0   Grad-CAM for malignant")
    image = explained_image(store, MapRequest(study, image_id, 1), tmp_path)
    np.testing.assert_array_equal(
        np.array(Image.open(io.BytesIO(file.read_bytes()))), overlay_sheet(image)
    )
    first = file.read_bytes()
    said(image_id, "--study", study, "--store", store.url)
    assert file.read_bytes() == first
    options = ["--target", "benign", "--architecture", "inception_v3", "--split", "1"]
    line = said(image_id, "--study", study, "--store", store.url, *options, "--output", "x.png")
    assert line.startswith("x.png: ")
    assert "inception_v3   split 1   Grad-CAM for benign" in line
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [file.name, "x.png"]


def test_the_program_loads_no_torch_and_fails_in_one_sentence(store, study, tmp_path) -> None:
    image_id = image_tested_in(store, study, {0, 1})
    script = (
        "import sys; from flows.cli.main import main; sys.argv[0] = 'thyro'\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'torchvision', 'ray', 'prefect'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n    assert 'matplotlib.pyplot' not in sys.modules\n"
    )

    def run(image: str) -> subprocess.CompletedProcess[str]:
        arguments = ["overlay", image, "--study", study, "--store", store.url]
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=tmp_path, capture_output=True, text=True,
            env={"PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path), "PATH": "/usr/bin"},
        )  # fmt: skip

    done = run(image_id)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / f"{image_id[:12]}-alexnet.png").is_file()
    done = run("zz")
    assert done.returncode == 2
    assert done.stderr.startswith("thyro: image zz: expected the beginning of one image_id")
    assert done.stderr.count("\n") == 1


def test_it_reads_a_store_on_s3(s3_server, monkeypatch, tmp_path) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    forget_clients()
    monkeypatch.setenv("THYRO_SCRATCH", str(tmp_path / "scratch"))
    store = open_store(f"s3://{BUCKET}/{uuid4().hex}")
    study = build(tmp_path, store)
    image_id = image_tested_in(store, study, {0, 1})
    file = tmp_path / "o.png"
    said(image_id, "--study", study, "--store", store.url, "--output", str(file))
    image = explained_image(store, MapRequest(study, image_id, 1), tmp_path / "scratch")
    assert file.read_bytes() == png_bytes(overlay_sheet(image))
    forget_clients()
