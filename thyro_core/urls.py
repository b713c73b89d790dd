"""Addresses as they may be shown: without passwords and signatures."""

import re


def redact(text: str) -> str:
    """A text whose URLs have lost passwords, and queries with their signatures."""
    without_password = re.sub(r"(?<=://)[^/\s]+@", "", text)
    return re.sub(r"(://[^\s?#]+)[?#][^\s;,)]*", r"\1", without_password)
