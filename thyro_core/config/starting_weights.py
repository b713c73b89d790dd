"""How a config says what the tensors of a file of starting weights are called."""

from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

_ARROW = "=>"


class PrefixRule(NamedTuple):
    """How names of tensors begin in a file, and how they begin in the network instead."""

    old: str
    new: str


def prefix_rule(text: str) -> PrefixRule:
    """A rule, as `weights_prefix` writes it: OLD=>NEW.

    Raises:
        ValueError: the text is of another form.
    """
    old, arrow, new = (part.strip() for part in text.partition(_ARROW))
    if not arrow or not old or _ARROW in new:
        msg = (
            "expected OLD=>NEW, how names begin in the file and in the network, such as "
            f"backbone.=> or encoder.0.=>conv1., found {text!r}"
        )
        raise ValueError(msg)
    return PrefixRule(old, new)


def _with_valid_rules(value: tuple[str, ...]) -> tuple[str, ...]:
    names = [prefix_rule(text).old for text in value]
    if len(set(names)) != len(names):
        msg = f"a beginning is named twice: {', '.join(names)}"
        raise ValueError(msg)
    return value


WeightsPrefix = Annotated[
    tuple[str, ...],
    AfterValidator(_with_valid_rules),
    Field(
        # Studies without it keep the ids that they had before there was such a key.
        exclude_if=lambda value: not value,
        description="How names of tensors begin in the file of starting weights and in the network "
        "instead: backbone.=> (leave it out), encoder.0.=>conv1.; the first one that fits counts. "
        "With it, what the file holds beyond the network is left out and named in the table runs.",
    ),
]
"""The config key `weights_prefix`."""
