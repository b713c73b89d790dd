"""Starting weights of phantoms: whole networks, of other images than a study's, made once."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from flows.cli.main import app
from thyro_core.datasets.phantoms import weights
from thyro_core.datasets.phantoms.weights import (
    PHANTOM_NETWORKS,
    SEED,
    check_seed,
    write_starting_weights,
)
from thyro_core.errors import InputError
from thyro_core.training.models import build, load_starting_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_starting_weights(str(folder), side=64, images=8)
    return folder


def test_each_network_of_the_demo_finds_all_its_layers(folder: Path) -> None:
    assert sorted(path.stem for path in folder.glob("*.safetensors")) == sorted(PHANTOM_NETWORKS)
    assert set(PHANTOM_NETWORKS) == {"resnet18", "alexnet"}
    for name in PHANTOM_NETWORKS:
        network = build(name, 96, 0)
        tensors = load_file(folder / f"{name}.safetensors")
        assert load_starting_weights(network, tensors, name) == ()


def test_networks_have_learnt_and_are_no_longer_as_they_were_made(folder: Path) -> None:
    network = build("resnet18", 64, SEED).state_dict()
    tensors = load_file(folder / "resnet18.safetensors")
    assert not (tensors["conv1.weight"].float() - network["conv1.weight"]).abs().max() < 1e-4


def test_what_is_there_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "ProcessPoolExecutor", None)
    write_starting_weights(str(folder), side=64, images=8)


def test_their_phantoms_are_no_set_that_is_studied(tmp_path: Path) -> None:
    check_seed(0)
    with pytest.raises(InputError, match="of which starting weights are made"):
        check_seed(SEED)
    result = CliRunner().invoke(app, ["phantom", str(tmp_path / "p"), "--seed", str(SEED)])
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "p").exists()
