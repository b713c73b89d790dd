"""The `thyro` command, one module a group of commands."""
