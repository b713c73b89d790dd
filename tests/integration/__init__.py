"""Tests against a real Ray, Prefect, S3 server or browser."""
