"""Folders that cannot be listed, whoever runs the tests: root may list any."""

import os

import pytest


def refuse_folder(
    patch: pytest.MonkeyPatch, name: str, error: type[OSError] = PermissionError
) -> None:
    """Let listing a folder of this name fail; all others are listed."""
    real = os.scandir

    def scandir(path):
        if str(path).endswith(name):
            raise error(13, os.strerror(13), str(path))
        return real(path)

    patch.setattr(os, "scandir", scandir)
