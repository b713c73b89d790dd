"""A model's evaluation on another image set, against the bare forward passes of its members.

    python tests/bench/evaluate.py [--images 2000] [--members 10] [--side 224] [--laps 3]

A small study of ResNet18 is trained; the networks of its splits are the model. The evaluation looks
for images that the model was trained on, scores, works out every figure with its interval, and
writes tables and page; the image set was ingested before. The bare passes are the members alone on
the same images in memory, on the same threads, in batches of 32.
"""

import argparse
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from laps import header, measure, ratios, row, spread

from thyro_core.config import IngestConfig
from thyro_core.datasets.manifest import ingest
from thyro_core.datasets.packs import open_pack
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.registry.ensemble import load_members
from thyro_core.reporting.evaluation import write_evaluation_page
from thyro_core.store.keys import evaluation_folder
from thyro_core.training.batches import normalise
from thyro_core.validation.config import EvaluationConfig, ModelChoice
from thyro_core.validation.evaluate import EvaluationTask, run_evaluation
from thyro_core.validation.model import find_model

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.support.finished_study import finished_study

_TOGETHER = 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--laps", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    with TemporaryDirectory() as name:
        folder = Path(name)
        store, plan = finished_study(
            folder, splits=options.members, epochs=1, image_size=options.side, trust_images=0
        )
        bundle = find_model(store, ModelChoice(model=plan.study_id), folder / "scratch")
        source = folder / "elsewhere"
        write_phantoms(str(source), images=options.images, malignant=options.images // 4)
        manifest = ingest(str(source), IngestConfig(blur_bound=0), store, [bundle.side])
        task = EvaluationTask(bundle, manifest, str(source), EvaluationConfig())
        pixels = open_pack(
            store, manifest.manifest_id, bundle.side, folder / "scratch", options.images
        )
        grey = torch.tensor(pixels[:]).unsqueeze(1)
        members = [member.eval() for member in load_members(bundle, store, folder / "scratch")]

        def evaluate() -> None:
            shutil.rmtree(store.path(evaluation_folder(task.evaluation_id)), ignore_errors=True)
            record = run_evaluation(store, task, folder / "scratch")
            write_evaluation_page(store, record.evaluation_id)

        def bare() -> None:
            with torch.inference_mode():
                for part in grey.split(_TOGETHER):
                    batch = normalise(part.float() / 255)
                    for member in members:
                        member(batch)

        seconds = measure({"evaluate": evaluate, "bare": bare}, options.laps)
        print(header("images", "members", "evaluation, s", "bare passes, s", "ratio"))
        print(
            row(
                options.images,
                options.members,
                spread(seconds["evaluate"]),
                spread(seconds["bare"]),
                spread(ratios(seconds["evaluate"], seconds["bare"]), 2),
            )
        )


if __name__ == "__main__":
    main()
