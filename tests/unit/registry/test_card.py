"""A card is sealed: what was changed, by whom and how ever, is no card any more."""

import json
import math

import pytest
from pydantic import ValidationError

from tests.support.cards import FIGURE, a_card, a_card_of_version_1
from thyro_core import NOTICE
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS
from thyro_core.registry.card import CardError, card_bytes, parse_card
from thyro_core.registry.card_pages import card_markdown, card_rows, cell

CARD = a_card(1)


def test_a_card_comes_back_the_same_and_is_written_one_way() -> None:
    data = card_bytes(CARD)
    assert parse_card(data, CARD.model_id) == CARD
    assert card_bytes(parse_card(data, CARD.model_id)) == data
    assert json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode() == data


def changed(**changes: object) -> bytes:
    return json.dumps(json.loads(card_bytes(CARD)) | changes).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"{}", "card_version: Unable to extract tag"),
        (card_bytes(CARD)[:-9], "no JSON object"),
        (changed(licence="free for all"), "other contents than it was sealed with"),
        (changed(seal=None), "other contents"),
        (changed(card_version=3), "card_version: Input tag '3'"),
        (changed(card_version=1), "calibration.temperature: Field required"),
        (changed(side="large"), "side: Input should be a valid integer"),
        (changed(extra=1), "extra: Extra inputs are not permitted"),
        (card_bytes(a_card(2)), "the card of b0000000000000002 with 1 members"),
        (card_bytes(a_card(1, members=("split=0.safetensors", "x"))), "with 2 members"),
    ],
)
def test_what_is_no_whole_card_is_said(data: bytes, message: str) -> None:
    with pytest.raises(CardError, match=message):
        parse_card(data, CARD.model_id)


def test_a_card_of_version_1_is_read_as_it_was_sealed_and_its_rows_say_whose_figures_they_are() -> (
    None
):
    card = a_card_of_version_1(1)
    data = card_bytes(card)
    assert parse_card(data, card.model_id) == card
    assert card_bytes(parse_card(data, card.model_id)) == data
    moved = json.loads(data)
    moved["operating_point"]["threshold"] = 0.9
    with pytest.raises(CardError, match="sealed"):
        parse_card(json.dumps(moved).encode(), card.model_id)
    plain = card.model_dump(mode="json")
    rows = dict(card_rows(plain))
    assert rows["one member: sensitivity, mean over splits"] == "0.900 (0.85-0.95)"
    assert rows["threshold"] == "0.25 (one member's, 0.95)"
    assert rows["ensemble"] == FIGURES_OF_MEMBERS
    assert FIGURES_OF_MEMBERS in card_markdown(plain, "Champion.")


def test_a_threshold_that_was_moved_is_noticed() -> None:
    plain = json.loads(card_bytes(CARD))
    plain["operating_point"]["threshold"] = 0.9
    with pytest.raises(CardError, match="sealed"):
        parse_card(json.dumps(plain).encode(), CARD.model_id)


def test_an_undefined_figure_is_null_and_never_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        card_bytes(a_card(metrics={"auc": FIGURE | {"value": math.nan}}))
    assert b'"value":null' in card_bytes(a_card(metrics={"auc": FIGURE | {"value": None}}))


@pytest.mark.parametrize(
    "wrong", [{"members": ()}, {"files": {"a": "short"}}, {"model_id": "b1"}, {"other": 1}]
)
def test_a_card_that_makes_no_sense_is_not_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        a_card(**wrong)


def test_a_figure_as_text() -> None:
    assert cell(FIGURE) == "0.900 (0.85-0.95)"
    assert cell({"value": 1.0, "low": -0.2, "high": 1.4}) == "1.000 (0.00-1.00)"
    assert cell({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert cell({"value": None, "low": None, "high": None}) == "undefined"


CHOICE = (
    "| what this store could choose from | 1 network, finished studies that share half of "
    "these images or more: 1; runs of this network with these settings, whatever their seed: 1 |"
)


def test_the_page_has_the_figures_the_notice_and_what_it_is_not_for() -> None:
    plain = a_card(1, warnings=("few images",)).model_dump(mode="json")
    page = card_markdown(plain, "Champion, the first one.")
    assert page.startswith("# Model b0000000000000001\n")
    for line in (
        f"**{NOTICE}**", "Champion, the first one.",
        "| threshold | 0.25 (calibrated, for sensitivity 0.95: shown) |",
        "| ensemble: specificity, by patient or group | 0.900 (0.85-0.95) |",
        "| its lower bound (the figure to rely on), 95 % confidence | 0.951 |",
        "| ensemble: scored by the members whose split tested it | 3.0 of 10 members an image |",
        "| procedure: auc, one network, mean over splits | 0.900 (0.85-0.95) |",
        "| calibration | log odds x 1.500 -0.500, at a prevalence of 0.250 |",
        "| calibration slope (1 fits), calibrated | 0.900 (0.85 to 0.95) |",
        CHOICE,
        "Not intended: diagnosis",
        "Licence: none", "- few images", "| images | 20, 5 malignant |",
    ):  # fmt: skip
        assert line in page.splitlines()
    assert len(dict(card_rows(plain))) == len(card_rows(plain))
