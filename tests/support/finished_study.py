"""A small finished study in a store, trained in this process: what promotion starts from."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.imagesets import write_image_set
from thyro_core.config import StudyConfig
from thyro_core.store.store import Store, open_store
from thyro_core.study.job import SplitJob
from thyro_core.study.lifecycle import conclude_study, ingest_for_study, prepare_study
from thyro_core.study.plan import StudyPlan

SMALL = {
    "architectures": ("resnet18",), "splits": 3, "epochs": 2, "image_size": 64, "batch_size": 8,
    "learning_rate": 3e-4, "resamples": 100, "blur_bound": 0, "trust_images": 1,
}  # fmt: skip


def starting_weights(folder: Path) -> str:
    """A folder with weights to start from: drawn, but a file, as what is promoted has to have."""
    from safetensors.torch import save_file

    from thyro_core.training.models import build

    file = folder / "resnet18.safetensors"
    if not file.exists():
        folder.mkdir(parents=True)
        state = build("resnet18", 64, 7).state_dict()
        save_file({name: tensor for name, tensor in state.items() if "fc." not in name}, file)
    return str(folder)


def finished_study(
    folder: Path, store: str | None = None, *, keep_models: bool = True, **config: object
) -> tuple[Store, StudyPlan]:
    """A study of 28 images in `folder`, run to its end; `store` defaults to a folder there.

    Torch's global settings are put back.
    """
    import torch

    from thyro_core.study.split import run_split

    config = {"weights": starting_weights(folder / "start")} | config
    source = folder / "set"
    if not source.exists():
        write_image_set(source)
    opened = open_store(store or str(folder / "store"))
    study = StudyConfig.model_validate(SMALL | config)
    manifest = ingest_for_study(str(source), study, opened)
    plan = prepare_study(manifest, study, "fp32", opened, scratch=folder / "scratch")
    threads = torch.get_num_threads()
    try:
        for split in range(study.splits):
            job = SplitJob(
                opened.url, plan.study_id, split, str(folder / "scratch"), keep_models=keep_models
            )
            assert not run_split(job).failed
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    conclude_study(opened, plan)
    return opened, plan


def copy_of(store: Store, folder: Path) -> Store:
    """A local store's copy, to be damaged: what is written takes a file's place, not its bytes."""
    shutil.copytree(store.root, folder, copy_function=os.link)
    return open_store(str(folder))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, StudyPlan]:
    """One small finished study for the whole session; copy the store before changing it."""
    folder = tmp_path_factory.mktemp("finished") / "a [1] *"
    folder.mkdir()
    return finished_study(folder)
