"""A study in the tracking server of a team."""
