"""Devices in words of a closed list, whatever a file calls them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.imaging.devices import _MAKERS, _MODEL_FAMILIES, OTHER, device_category

WORDS = {
    OTHER,
    *_MAKERS,
    *(f"{maker} {each}" for maker in _MODEL_FAMILIES for each in _MODEL_FAMILIES[maker]),
}


@pytest.mark.parametrize(
    ("maker", "model", "category"),
    [
        ("GE Healthcare", "LOGIQ E9", "GE LOGIQ"),
        ("GEMS", "LOGIQ 7", "GE LOGIQ"),
        ("Philips Medical Systems", "EPIQ 5G", "Philips EPIQ"),
        ("Philips Medical Systems", "room of Dr Lis", "Philips"),
        ("TOSHIBA_MEC_US", "TUS-A500 Aplio", "Canon Aplio"),
        ("SIEMENS", "ACUSON S2000", "Siemens S2000"),
        ("Hitachi Aloka Medical,Ltd.", "ARIETTA 70", "Fujifilm Arietta"),
        ("SAMSUNG MEDISON CO., LTD.", "RS80A", "Samsung RS80"),
        ("", "MyLabSix", "Esaote MyLab"),
        ("Nowak's workshop", "Zofia", "other"),
        ("ImageGear", "a large DC", "other"),
        ("", " ", None),
        (None, None, None),
    ],
)
def test_a_device_is_named_by_maker_and_family(
    maker: str | None, model: str | None, category: str | None
) -> None:
    assert device_category(maker, model) == category


@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_but_words_of_the_list_comes_out(maker: str, model: str) -> None:
    assert device_category(maker, model) in {*WORDS, None}
