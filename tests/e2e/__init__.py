"""Whole commands as their user runs them."""
