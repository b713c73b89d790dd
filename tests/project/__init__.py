"""Tests of the project itself: its style, public surface, README, infra and security."""
