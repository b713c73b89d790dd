"""A model on images of elsewhere: scored, set against its own figures, and nothing fitted."""
