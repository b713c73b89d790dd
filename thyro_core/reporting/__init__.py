"""Pages for people: the report of a study, drift, overlays."""
