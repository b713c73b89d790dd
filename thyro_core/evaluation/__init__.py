"""Metrics, their uncertainty, calibration and thresholds."""
