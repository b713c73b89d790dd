"""The report's references as BibTeX."""

import re
from collections.abc import Sequence

from thyro_core.reporting.network_references import Reference

_PUBLICATION_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_ESCAPES = str.maketrans({"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_"})


def bibtex(references: Sequence[Reference]) -> str:
    """One entry a reference, keyed by first author and year.

    Authors beyond those that the report cites stand as "others"; the DOI leads to the whole list.
    """
    return "\n".join(_bibtex_entry(reference) for reference in references)


def _bibtex_entry(reference: Reference) -> str:
    kind, _, number = reference.identifier.partition(":")
    year = _PUBLICATION_YEAR.search(f"{reference.citation} {reference.source}")
    fields = {
        "author": _authors(reference),
        # In braces, so that no style changes its capitals.
        "title": f"{{{reference.title.translate(_ESCAPES)}}}",
        "year": year[0] if year else "",
        "howpublished": reference.source.rstrip(".").translate(_ESCAPES),
        "doi": number if kind == "doi" else "",
        "eprint": number if kind == "arXiv" else "",
        "archiveprefix": "arXiv" if kind == "arXiv" else "",
    }
    lines = [f"  {name} = {{{text}}}," for name, text in fields.items() if text]
    return "\n".join((f"@misc{{{citation_key(reference)},", *lines, "}", ""))


def citation_key(reference: Reference) -> str:
    """By which a text cites it: `nadeauandbengio2003`."""
    return "".join(re.findall(r"[A-Za-z0-9]+", reference.citation.replace("et al.", ""))).lower()


def _authors(reference: Reference) -> str:
    names = reference.authors or _PUBLICATION_YEAR.sub("", reference.citation)
    return names.strip().replace("et al.", "and others")
