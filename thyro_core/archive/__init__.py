"""DICOM over a network: what an archive sends, and what it is sent."""
