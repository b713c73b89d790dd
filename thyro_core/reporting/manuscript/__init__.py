"""A study for a paper: the report's figures and tables as files, methods and references."""
