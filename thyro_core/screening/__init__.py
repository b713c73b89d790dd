"""Nightly screening: from the files of a batch to a ranked worklist."""
