"""Grad-CAM maps: making them, measuring their regions, testing their faithfulness."""
