"""What Thyro is installed with: licences that bind, and pins with the hashes of their files."""

import importlib.metadata
import re
import tomllib
from importlib.util import find_spec

from packaging.requirements import Requirement

from tests.support.places import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


# What a package needs stands in its metadata, which is there only where it is installed:
# `make test` installs no cluster's parts, `make test-all` does.
EXTRAS = ("cluster",) if find_spec("virtualenv") and find_spec("aiohttp_cors") else ()


def name_of(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def installed_with(*extras: str) -> set[str]:
    """Names of all packages that Thyro and these extras of it need here."""
    optional = PROJECT["optional-dependencies"]
    waiting = [Requirement(text) for text in PROJECT["dependencies"]]
    waiting += [Requirement(text) for extra in extras for text in optional[extra]]
    met: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        for extra in requirement.extras | {""}:
            name = name_of(requirement.name)
            if (name, extra) in met:
                continue
            met.add((name, extra))
            for text in importlib.metadata.requires(name) or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in met}


def licences(package: str) -> str:
    found = importlib.metadata.metadata(package)
    texts = [found.get("License-Expression"), (found.get("License") or "")[:200]]
    return " ".join(text for text in (*texts, *(found.get_all("Classifier") or [])) if text)


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().split()
    return {name_of(name): version for name, version in (line.split("==") for line in lines)}


def lock() -> dict[str, tuple[str, set[str]]]:
    """Version and SHA-256 hashes of each package of the lock."""
    text = (REPOSITORY / "infra/requirements.lock").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            pin, *hashes = line.split()
            name, version = pin.split("==")
            found[name_of(name)] = version, set(hashes)
    return found


def test_the_lock_holds_the_pinned_versions_of_all_that_the_image_needs() -> None:
    """But torch, which comes from an index of its own. `make lock` makes it anew."""
    # A build of torch for GPUs brings its maker's packages, from where it comes from itself.
    of_gpus = ("torch", "torchvision", "nvidia-", "cuda-", "triton")
    needed = {name for name in installed_with(*EXTRAS) if not name.startswith(of_gpus)}
    locked = lock()
    # What another platform or Python needs besides, and what builds Thyro.
    assert needed - locked.keys() == set()
    assert "setuptools" in locked
    assert {name: version for name, (version, _) in locked.items()} == {
        name: pins().get(name) for name in locked
    }
    assert not any(name.startswith(("torch", "nvidia")) for name in locked)
    extra = {name_of(Requirement(text).name) for text in PROJECT["optional-dependencies"]["test"]}
    assert not extra & locked.keys() - needed, "the image holds no test tools"


def test_every_file_of_the_lock_has_its_hash() -> None:
    for name, (_, hashes) in lock().items():
        assert hashes, name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), name


def test_the_tools_of_a_release_are_pinned_once() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    dockerfile = (REPOSITORY / "infra/Dockerfile").read_text()
    (tool,) = re.findall(r"cyclonedx-bom==([\d.]+)", makefile)
    assert f"ARG CYCLONEDX={tool}\n" in dockerfile
    readme = (REPOSITORY / "infra/README.md").read_text()
    for target in ("audit", "lock", "sbom"):
        assert f"`make {target}`" in readme
        assert re.search(rf"^{target}: ", makefile, re.MULTILINE)


def test_a_licence_that_binds_who_passes_thyro_on_is_said() -> None:
    """text-unidecode offers the Artistic License instead."""
    binding = {
        name for name in installed_with(*EXTRAS)
        if re.search(r"(?<!L)GPL|General Public License", licences(name))
        and "Artistic" not in licences(name)
    }  # fmt: skip
    assert binding == {"pylibjpeg-libjpeg"}
    for document in ("README.md", "infra/README.md"):
        text = (REPOSITORY / document).read_text()
        assert "`pylibjpeg-libjpeg`" in text
        assert "GPL-3.0" in text
