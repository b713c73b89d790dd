"""From an image set as found to a manifest, packs and splits without leakage."""
