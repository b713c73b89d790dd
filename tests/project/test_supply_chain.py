"""What Thyro is installed with: licences that bind, and pins with the hashes of their files."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from importlib.util import find_spec

import pytest
from packaging.requirements import Requirement

from tests.support.places import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


# What a package needs stands in its metadata, which is there only where it is installed:
# `make test` installs no cluster's parts, `make test-all` does.
EXTRAS = (
    ("excel", "cluster") if find_spec("virtualenv") and find_spec("aiohttp_cors") else ("excel",)
)


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


def imported_modules() -> dict[str, str]:
    """Each module of others that Thyro's own code imports, and a file that does."""
    files = [file for room in ("thyro_core", "flows") for file in (REPOSITORY / room).rglob("*.py")]
    places: dict[str, str] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                places[name.partition(".")[0]] = file.name
    own = {"thyro_core", "flows"} | sys.stdlib_module_names
    return {name: place for name, place in places.items() if name not in own}


def test_what_is_imported_is_declared() -> None:
    """What stands in the environment for another package's sake may leave with it."""
    optional = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(text for extra in optional for text in extra)]
    # pydantic declares its core itself, to the exact version.
    declared_names = {name_of(Requirement(text).name) for text in texts} | {"pydantic-core"}
    packages = importlib.metadata.packages_distributions()
    undeclared = {
        module: place
        for module, place in imported_modules().items()
        if not declared_names & {name_of(name) for name in packages.get(module, [module])}
    }
    assert not undeclared, "declare these in pyproject.toml"
    assert "numpy" in imported_modules()


LOCKS = ("requirements.lock", "requirements-test.lock")


def lock(file: str = LOCKS[0]) -> dict[str, tuple[str, set[str]]]:
    """Version and SHA-256 hashes of each package of a lock."""
    text = (REPOSITORY / "infra" / file).read_text().replace("\\\n", " ")
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
    more = installed_with("archive", "excel", "export", "paper") - installed_with()
    assert locked.keys() >= more, "archives push there, workbooks are read, and studies exported"
    tools = extra & locked.keys() - needed - more
    assert not tools, "the image holds no test tools"


def test_the_tests_lock_holds_the_pinned_versions_of_what_they_need_besides() -> None:
    needed = installed_with("test") - installed_with()
    image, tests = lock(), lock(LOCKS[1])
    assert needed - tests.keys() == set()
    assert {name: version for name, (version, _) in tests.items()} == {
        name: pins().get(name) for name in tests
    }
    # pip takes a package that both name only if their hashes agree.
    shared = image.keys() & tests.keys()
    assert {name: image[name] for name in shared} == {name: tests[name] for name in shared}


def test_every_environment_on_linux_is_installed_by_hashes_first() -> None:
    """What a recipe installs by version afterwards is what the locks do not hold."""
    makefile = (REPOSITORY / "Makefile").read_text()
    recipes = re.findall(r"^\$\(VENV\)/\.installed.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert len(recipes) == 3
    for recipe in recipes:
        by_hash, by_version, _ = recipe.splitlines()
        assert by_hash.startswith("\t$(call install_locked,-r $(LOCK)")
        assert by_hash.endswith(" -r $(TEST_LOCK))") == ("test]" in by_version)
        # Thyro is built by the setuptools that is there, and not by one that is fetched unseen.
        assert by_version.startswith("\t$(PIP) --no-build-isolation -c constraints.txt -e ")
    assert "= Linux ]; then $(PIP) --no-deps --require-hashes $(1);" in makefile
    assert [
        re.search(rf"^{name} := infra/{file}$", makefile, re.MULTILINE) is not None
        for name, file in zip(("LOCK", "TEST_LOCK"), LOCKS, strict=True)
    ] == [True, True]


@pytest.mark.parametrize("file", LOCKS)
def test_every_file_of_a_lock_has_its_hash(file: str) -> None:
    for name, (_, hashes) in lock(file).items():
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
