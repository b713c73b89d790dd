"""A promoted model as files that run without Thyro."""
