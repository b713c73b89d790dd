"""The device that made an image, as a coarse category: a maker, and a family of models of its own.

Makers write their names in many ways, and hospitals write what they like: only words of a closed
list leave this module.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

OTHER = "other"
"""A device that is none of the list."""

_SHORT_NAME = 3

_MAKERS: Mapping[str, str] = MappingProxyType(
    {
        "GE": r"\bge(ms)?\b|general electric",
        "Philips": r"philips|\batl\b|advanced technology laboratories",
        "Siemens": r"siemens|acuson",
        "Samsung": r"samsung|medison",
        "Canon": r"canon|toshiba",
        "Fujifilm": r"fuji|hitachi|aloka|sonosite",
        "Mindray": r"mindray",
        "Esaote": r"esaote",
        "SuperSonic": r"supersonic|hologic",
        "SonoScape": r"sonoscape",
        "Alpinion": r"alpinion",
        "BK": r"\bb-?k medical|analogic",
        "Butterfly": r"butterfly",
        "Clarius": r"clarius",
    }
)
_MODEL_FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "GE": ("LOGIQ", "Voluson", "Vivid", "Venue", "Vscan"),
        "Philips": (
            "EPIQ",
            "Affiniti",
            "iU22",
            "HD11",
            "HD15",
            "HDI",
            "ClearVue",
            "Lumify",
            "CX50",
        ),
        "Siemens": ("S1000", "S2000", "S3000", "Sequoia", "Redwood", "Juniper", "Antares", "X300"),
        "Samsung": ("RS80", "RS85", "HS40", "HS60", "HS70", "WS80", "Accuvix", "V8"),
        "Canon": ("Aplio", "Xario", "Nemio", "Viamo"),
        "Fujifilm": ("Arietta", "Ascendus", "Preirus", "Avius", "EUB", "ProSound", "SSD"),
        "Mindray": ("Resona", "DC", "M9", "TE7", "Z6"),
        "Esaote": ("MyLab", "Technos"),
        "SuperSonic": ("Aixplorer", "Mach"),
    }
)


def device_category(maker: str | None, model: str | None) -> str | None:
    """A device in words of a closed list, such as `GE LOGIQ`, `Philips` or `other`.

    Args:
        maker: DICOM's Manufacturer, as the device writes it.
        model: DICOM's ManufacturerModelName.

    Returns:
        None: the file names neither.
    """
    if not (maker or "").strip() and not (model or "").strip():
        return None
    for name, form in _MAKERS.items():
        if re.search(form, maker or "", re.IGNORECASE):
            return " ".join((name, *_family(name, model)))
    if (maker or "").strip():
        return OTHER
    # Some name the family alone.
    families = [(name, family) for name in _MODEL_FAMILIES for family in _family(name, model)]
    return " ".join(families[0]) if len(families) == 1 else OTHER


def _family(maker: str, model: str | None) -> tuple[str, ...]:
    for family in _MODEL_FAMILIES.get(maker, ()):
        end = "(?![a-z])" if len(family) <= _SHORT_NAME else ""
        if re.search(rf"(?<![a-z]){re.escape(family)}{end}", model or "", re.IGNORECASE):
            return (family,)
    return ()
