"""A home in which Prefect has been started before: its database is there, and empty."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

FOLDER = ".prefect"
DATABASE = "prefect.db"


def prepare_home(home: Path) -> Path:
    """Put Prefect's empty database into a home that has none, and return the home.

    To make one takes a server a quarter of a minute of processor time, and dozens of tests start
    one in a home of their own. That a server makes it is seen where the README's commands run.
    """
    folder = home / FOLDER
    if not folder.exists():
        folder.mkdir(parents=True)
        shutil.copyfile(_database(), folder / DATABASE)
    return home


@cache
def _database() -> Path:
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "prefect-of-tests"
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
    subprocess.run(
        command, env=kept | {"PREFECT_HOME": str(folder)}, check=True, stdout=subprocess.DEVNULL
    )
    return folder / DATABASE
