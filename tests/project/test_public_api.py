"""The notebook interface: lazy, complete, typed, and the same from a wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import thyro_core
from tests.support.places import REPOSITORY

NAMES = {
    "NOTICE", "StudyConfig", "__version__", "bootstrap_intervals", "check_leakage", "delong",
    "ingest", "load_model", "load_study", "make_splits", "metric_intervals", "metrics",
    "nadeau_bengio", "open_results", "open_store",
}  # fmt: skip


def run(code: str, cwd: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_name_is_there_and_documented() -> None:
    assert set(thyro_core.__all__) == NAMES
    assert set(dir(thyro_core)) >= NAMES
    for name in NAMES:
        value = getattr(thyro_core, name)
        assert isinstance(value, str) or value.__doc__, name
    with pytest.raises(AttributeError, match="'thyro_core' has no attribute 'open_result'"):
        _ = thyro_core.open_result


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import sys, importlib, typing; before = set(sys.modules); import thyro_core; "
        "print(sorted(set(sys.modules) - before))"
    )
    assert run(code, REPOSITORY).strip() == "['thyro_core']"


@pytest.mark.parametrize("name", sorted(NAMES - {"load_model", "load_study"}))
def test_torch_is_imported_for_models_alone(name: str) -> None:
    code = f"import sys, thyro_core; thyro_core.{name}; print('torch' in sys.modules)"
    assert run(code, REPOSITORY).strip() == "False"


@pytest.mark.slow
def test_a_wheel_holds_all_and_works_in_another_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if name.startswith(("deployments/", "flows/", "thyro_core/")) or "/" not in name:
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((REPOSITORY / name).read_bytes())
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    run(build, source)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in ("deployments", "flows", "thyro_core"):
        files = {str(p.relative_to(source)) for p in (source / package).rglob("*") if p.is_file()}
        assert files <= inside, files - inside
    assert "thyro_core/py.typed" in inside
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r}); import thyro_core; "
        "print(thyro_core.__file__); thyro_core.StudyConfig(); thyro_core.open_results('.').close()"
    )
    assert run(code, elsewhere).startswith(str(wheel))
