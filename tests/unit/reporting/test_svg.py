import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from thyro_core.reporting.figures import svg
from thyro_core.reporting.figures.svg import DARK, LIGHT, AltText, as_svg, drawing, inline_svg

WORDS = AltText("A & B", "a < b")


def luminance(colour):
    """Relative luminance (WCAG 2.2)."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return sum(c * w for c, w in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def simple(name="figure", colour=svg.SERIES[0], **line):
    with drawing(name, 300, 200) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0.123456, 2], color=colour, marker="o", **line)
        axes.set_title("value 0.98765 <&>")
        return as_svg(figure, name, WORDS)


class TestColours:
    def test_the_measure(self):
        assert contrast("#000000", "#ffffff") == pytest.approx(21)
        assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)

    @pytest.mark.parametrize("page", [LIGHT, DARK])
    def test_stand_out_from_the_paper(self, page):
        assert contrast(page["ink"], page["paper"]) >= 7
        for name in page:
            if name.startswith("series-"):
                assert contrast(page[name], page["paper"]) >= 3, name

    def test_both_pages_name_the_same(self):
        assert list(LIGHT) == list(DARK)
        assert len({*LIGHT.values(), *DARK.values()}) == 2 * len(LIGHT)

    def test_the_style_sheet_declares_all(self):
        light, dark = svg.CSS_VARIABLES.split("@media(prefers-color-scheme:dark)")
        for text, page in ((light, LIGHT), (dark, DARK)):
            assert dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6});", text)) == dict(page)

    def test_stand_ins_are_seven_and_no_others(self):
        stand_ins = {svg.PAPER, svg.INK, svg.GRID, *svg.SERIES}
        assert len(stand_ins) == len(LIGHT)
        assert not stand_ins & {*LIGHT.values(), *DARK.values()}


class TestDrawing:
    def test_colours_become_the_pages(self):
        found = simple(markerfacecolor=svg.PAPER)
        assert "#0f" not in found
        assert set(re.findall(r"var\(--([\w-]+)\)", found)) == {"ink", "paper", "grid", "series-1"}

    def test_every_stand_in_has_its_variable(self):
        for place, colour in enumerate(svg.SERIES, start=1):
            assert f"var(--series-{place})" in simple(colour=colour)

    def test_text_stays_as_it_is(self):
        found = simple()
        assert "value 0.98765 &lt;&amp;&gt;" in found
        assert "font-family: " not in found

    def test_coordinates_are_rounded_and_idle_turns_gone(self):
        assert "rotate(-0 " not in simple()
        assert re.findall(r'[dxy]="[^"]*\.\d{3}', simple()) == []

    def test_ids_carry_the_figures_name(self):
        found = simple(gid="series-a")
        ids = re.findall(r' id="([^"]+)"', found)
        assert len(ids) == len(set(ids))
        assert all(name.startswith("figure-") for name in ids)
        assert "figure-series-a" in ids
        referred = re.findall(r'(?:href="#|url\(#)([^")]+)', found)
        assert referred
        assert set(referred) < set(ids)

    def test_two_figures_share_no_id(self):
        one, other = (set(re.findall(r' id="([^"]+)"', simple(name))) for name in ("a", "b"))
        assert one & other == set()

    def test_the_words_stand_in_it(self):
        root = ET.fromstring(simple())
        assert root.attrib["role"] == "img"
        told = {part.attrib["id"]: part.text for part in root if part.attrib.get("id")}
        named = root.attrib["aria-labelledby"].split()
        assert [told[name] for name in named] == list(WORDS)

    def test_no_global_state_is_left_changed(self):
        before = dict(mpl.rcParams)
        simple()
        assert dict(mpl.rcParams) == before

    def test_a_users_own_style_decides_nothing(self):
        expected = simple()
        with mpl.rc_context({"lines.linewidth": 9, "axes.grid": False, "svg.fonttype": "path"}):
            assert simple() == expected

    @pytest.mark.parametrize("name", ["", "1a", "a b", 'a"b', "a_b"])
    def test_a_name_is_an_id(self, name):
        with pytest.raises(ValueError, match="letters, digits and hyphens"):
            inline_svg("", name, WORDS, (1, 1))
