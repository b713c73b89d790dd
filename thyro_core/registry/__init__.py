"""Promoted models: bundles, cards, the champion and the gate before it."""
