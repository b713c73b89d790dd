"""Objects at keys: the store, its keys, locks, compare-and-swap, retries; it knows no table."""
