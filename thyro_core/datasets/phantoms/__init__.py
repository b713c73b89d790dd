"""Synthetic thyroid ultrasound."""
