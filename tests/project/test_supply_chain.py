"""What Thyro is installed with: licences that bind, and pins with the hashes of their files."""

import importlib.metadata
import re
import tomllib

from packaging.requirements import Requirement

from tests.support.places import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


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


def test_a_licence_that_binds_who_passes_thyro_on_is_said() -> None:
    """text-unidecode offers the Artistic License instead."""
    binding = {
        name for name in installed_with("cluster")
        if re.search(r"(?<!L)GPL|General Public License", licences(name))
        and "Artistic" not in licences(name)
    }  # fmt: skip
    assert binding == {"pylibjpeg-libjpeg"}
    for document in ("README.md", "infra/README.md"):
        text = (REPOSITORY / document).read_text()
        assert "`pylibjpeg-libjpeg`" in text
        assert "GPL-3.0" in text
