"""Checks of a finished study against itself."""
