"""A promoted model written into a folder: ONNX, torch's exported programs, plain PyTorch, card."""

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.errors import InputError
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.card_pages import card_markdown
from thyro_core.registry.ensemble import member_file
from thyro_core.registry.export.facts import CLEAN_NOTE, model_facts
from thyro_core.registry.export.networks import LOGIT_TOLERANCE, OPSET, NetworkFiles, export_network
from thyro_core.registry.unseen import image_table
from thyro_core.store.keys import card_key
from thyro_core.store.store import Store
from thyro_core.training.recipe import NetworkRecipe, network_input, network_recipe, plain_network

Format = Literal["onnx", "torch", "plain"]
"""A kind of files: ONNX, torch's exported programs, plain PyTorch with its script."""

FORMATS: tuple[Format, ...] = ("onnx", "torch", "plain")

CHECK_IMAGES = 4
"""Images that each file is checked on."""

_STANDING = "Exported; its standing is the registry's that it came from."


@dataclass(frozen=True)
class ModelExport:
    """What was written."""

    folder: Path
    members: int
    formats: tuple[Format, ...]
    gap: float | None
    """Largest difference of a logit between onnxruntime and torch; None: there is no ONNX."""
    checked_on: str
    """Which images that was found on."""


def export_model(
    store: Store,
    bundle: Bundle,
    folder: Path,
    formats: Collection[Format] = FORMATS,
    *,
    scratch: Path,
    progress: Callable[[int, int], None] = lambda _n_done, _total: None,
) -> ModelExport:
    """Write a promoted model as files that run without Thyro, each checked.

    Args:
        store: holds the model.
        bundle: the model.
        folder: where the files go; new or empty.
        formats: which kinds of files, at least one.
        scratch: node-local folder.
        progress: called with the number of members written and of all.

    Raises:
        InputError: the folder holds something already, the model is of an earlier version, or a
            file of it is gone or damaged.
        ThyroError: a file that was written gives other logits than the network.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        msg = f"{folder}: expected a new or empty folder, found files in it; name another one"
        raise InputError(msg)
    recipe = network_recipe(bundle.architecture, bundle.side)
    facts = model_facts(bundle, recipe)
    pixels, checked_on = _check_pixels(store, bundle, scratch)
    # Made whole beside it first: a run that dies leaves no half of an export under its name.
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in formats:
        (partial / name).mkdir(parents=True)
    gap = _write_members(store, bundle, partial, recipe=recipe, facts=facts,
                         check=(network_input(recipe, pixels), scratch, progress))  # fmt: skip
    _write_facts(partial, facts, store.read(card_key(bundle.model_id)))
    kinds = tuple(name for name in FORMATS if name in formats)
    result = ModelExport(folder, len(bundle.members), kinds, gap, checked_on)
    (partial / "card.md").write_text(card_markdown(bundle.card, _STANDING), encoding="utf-8")
    (partial / "README.md").write_text(_export_readme(facts, result), encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return result


def _write_members(
    store: Store,
    bundle: Bundle,
    folder: Path,
    *,
    recipe: NetworkRecipe,
    facts: dict[str, Any],
    check: tuple[Tensor, Path, Callable[[int, int], None]],
) -> float | None:
    from safetensors.torch import load_file

    images, scratch, progress = check
    gaps = []
    for place, key in enumerate(bundle.members):
        name = facts["members"][place]
        weights = member_file(bundle, key, store, scratch)
        if (folder / "plain").exists():
            # The very bytes, so that the card's SHA-256 is that of this file too.
            shutil.copyfile(weights, folder / "plain" / name)
        model = plain_network(recipe, load_file(weights))
        stem = name.removesuffix(".safetensors")
        places = folder / "onnx" / f"{stem}.onnx", folder / "torch" / f"{stem}.pt2"
        files = NetworkFiles(*(file if file.parent.exists() else None for file in places))
        if files != NetworkFiles(None, None):
            gaps.append(export_network(model, images, files, facts | {"member": name}))
        progress(place + 1, len(bundle.members))
    return max((gap for gap in gaps if gap is not None), default=None)


def _write_facts(folder: Path, facts: dict[str, Any], card: bytes) -> None:
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (folder / "model.json").write_text(text, encoding="utf-8")
    (folder / "card.json").write_bytes(card)
    if (folder / "plain").exists():
        (folder / "plain" / "model.json").write_text(text, encoding="utf-8")
        shutil.copyfile(Path(__file__).with_name("run.py"), folder / "plain" / "run.py")


def _check_pixels(store: Store, bundle: Bundle, scratch: Path) -> tuple[Tensor, str]:
    """Images to check on, uint8 (n, side, side), and which they are.

    Where the pack of the model's study is gone they are drawn.
    """
    manifest_id, side = bundle.card["data"]["manifest_id"], bundle.side
    images = image_table(store, manifest_id)
    if images is not None:
        try:
            pack = open_pack(store, manifest_id, side, scratch, len(pack_index(images)))
        except InputError:
            pass
        else:
            places = np.linspace(0, len(pack) - 1, CHECK_IMAGES).astype(np.int64)
            pixels = np.array(pack[places])
            return torch.from_numpy(pixels), f"{CHECK_IMAGES} images of its study"
    generator = torch.Generator().manual_seed(0)
    random_pixels = torch.randint(
        256, (CHECK_IMAGES, side, side), generator=generator, dtype=torch.uint8
    )
    return random_pixels, f"{CHECK_IMAGES} drawn images, for those of its study are gone"


def _plain_use(view: dict[str, Any]) -> str:
    """How `run.py` is called, or that it cannot be."""
    if view["clean"]:
        return f"it refuses pictures, which need {CLEAN_NOTE}."
    arguments = "IMAGE@LEFT,TOP,WIDTH,HEIGHT..." if view["region"] == "nodule" else "IMAGE..."
    return (
        f"`python plain/run.py {arguments}` prints each image's calibrated probability of "
        "malignant."
    )


def _export_readme(facts: dict[str, Any], result: ModelExport) -> str:
    words = {
        "plain": "weights as safetensors, and `run.py`, which needs torch, torchvision, "
        f"safetensors and\n  Pillow: {_plain_use(facts['input']['view'])}",
        "onnx": f"a network each (opset {OPSET}), `images` to `logits` (benign, malignant).",
        "torch": "a network each by `torch.export`: `torch.export.load(FILE).module()(images)`.",
    }
    kinds = "\n".join(f"- `{name}/`: {words[name]}" for name in result.formats)
    gap = ""
    if result.gap is not None:
        gap = (
            f"onnxruntime's logits differ from torch's by at most {result.gap:.2g} on "
            f"{result.checked_on}\n(allowed: {LOGIT_TOLERANCE:g}, relative to logits beyond 1).\n\n"
        )
    return f"""# Model {facts["model_id"]}, exported

**{facts["notice"]}**

Not intended: {facts["not_intended"]}

Licence: {facts["licence"]}

- `card.md`, `card.json`: what the model is, how well it did, and what it is not for.
- `model.json`: input, members, calibration, threshold, bands. The same stands in each ONNX file's
  metadata and in each `.pt2` file, where there are such.
{kinds}

Input: {facts["input"]["from_picture"]}.

From logits to the probability: {facts["ensemble"]}.

{gap}None of these files refuses an image: a screening's checks (greyscale, blur, distance from the
training images) are Thyro's, and a probability of what is no ultrasound of the model's kind means
nothing.
"""
