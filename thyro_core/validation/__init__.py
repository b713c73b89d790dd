"""External validation: a model scored on external images, beside its own figures."""
