"""The flow diagram: every count is in a box, boxes stand apart and within the picture."""

import re
from itertools import combinations

import pytest

from tests.support.html_page import read_page
from thyro_core.reporting.figures.flow import FlowStep, flow_diagram

REASONS = ("Excluded: 9", "near duplicate of an image of quite another patient's: 4", "blurred: 5")
PARTS = [("Training", "images: 7"), ("Validation", "images: 1"), ("Test", "images: 3")]


def steps(reasons: tuple[str, ...] = REASONS) -> list[FlowStep]:
    return [
        FlowStep(("Found: 20",), reasons),
        FlowStep(("Included: 11", "benign: 8", "malignant: 3")),
        FlowStep(("In each of 2 splits", "images: 11")),
    ]


@pytest.mark.parametrize("reasons", [(), REASONS, REASONS * 5])
@pytest.mark.parametrize("parts", [PARTS[:1], PARTS[1:], PARTS])
def test_boxes_stand_apart_and_within_the_picture(reasons, parts) -> None:
    svg = flow_diagram("flow", steps(reasons), parts)
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    boxes = [
        tuple(float(re.search(rf' {name}="([\d.]+)"', rect)[1]) for name in
              ("x", "y", "width", "height"))
        for rect in re.findall(r"<rect[^>]*>", svg)
    ]  # fmt: skip
    assert len(boxes) == 3 + bool(reasons) + len(parts)
    for x, y, w, h in boxes:
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    for (x, y, w, h), (x2, y2, w2, h2) in combinations(boxes, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    for text in re.findall(r'<text x="[\d.]+" y="([\d.]+)"', svg):
        assert sum(y < float(text) < y + h for _, y, _, h in boxes) >= 1


def test_its_text_alternative_says_what_the_picture_says() -> None:
    page = read_page(flow_diagram("flow", steps(), PARTS))
    (svg,), (words,) = page.find("svg"), page.find("desc")
    assert svg.attributes["role"] == "img"
    for line in (*REASONS, "Included: 11", "malignant: 3", "Test: images: 3"):
        assert line in words.text
    shown = " ".join(" ".join(each.text.split()) for each in page.find("text"))
    for line in (*REASONS, "Found: 20", "benign: 8"):
        assert line in shown


def test_nothing_in_it_is_markup_or_comes_from_elsewhere() -> None:
    svg = flow_diagram("flow", [FlowStep(("<b>1</b>",), ('<script>"x"</script>',))], [])
    assert "<b>" not in svg
    assert "<script" not in svg
    assert not re.search(r"(href|src)=|url\((?!#)", svg)
