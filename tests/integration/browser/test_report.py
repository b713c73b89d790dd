"""The report in a real Chromium: whole, quiet, alone, at every width, in both colours, on paper."""

from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import pytest

from tests.support.browser import Visit, visit
from thyro_core.store.keys import report_key

SHADES = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
SERIES = (
    "['grid', 'series-1', 'series-2', 'series-3', 'series-4']"
    ".map(n => getComputedStyle(document.documentElement).getPropertyValue('--' + n))"
)
PLOTS = (
    "[...document.querySelectorAll('svg.plot')]"
    ".map(s => { const b = s.getBoundingClientRect(); return [b.width, b.height]; })"
)
CONTRAST = """() => {
  const light = c => {
    const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (let n = e; n; n = n.parentElement) {
      const c = getComputedStyle(n).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(c)) return c;
    }
  };
  return [...document.querySelectorAll('p, li, td, th, a, figcaption, caption, summary, dd, dt')]
    .filter(e => e.innerText && e.checkVisibility())
    .map(e => {
      const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.innerText.slice(0, 40)];
    })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture(scope="module")
def file(full) -> Path:
    store, plan = full
    return Path(store.path(report_key(plan.study_id)))


@pytest.fixture(
    params=[(390, "light"), (390, "dark"), (1400, "light"), (1400, "dark")],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def seen(request, browser, file) -> Iterator[Visit]:
    width, scheme = request.param
    found = visit(browser, file, width, color_scheme=scheme)
    yield found
    found.page.context.close()


def open_all(found: Visit) -> None:
    found.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")


def test_it_is_quiet_alone_and_whole_at_every_width(seen, file) -> None:
    assert seen.complaints == []
    assert seen.requests == [file.resolve().as_uri()]
    assert seen.broken_images() == []
    assert seen.page.evaluate("document.images.length") >= 20
    assert not seen.overflows()
    sizes = seen.page.evaluate(PLOTS)
    assert len(sizes) >= 11
    assert all(width > 250 and height > 20 for width, height in sizes)
    open_all(seen)
    assert not seen.overflows()
    assert seen.page.evaluate(CONTRAST) == []
    assert len(seen.page.evaluate(CONTRAST.replace("4.5", "99"))) > 300, "nothing was measured"


def test_it_is_dark_where_the_reader_wants_it_dark(browser, file) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        found = visit(browser, file, color_scheme=scheme)
        shades[scheme] = found.page.evaluate(SHADES)
        found.page.context.close()
    assert shades["light"][0] == "rgb(255, 255, 255)"
    assert shades["dark"] != shades["light"]


def test_on_paper_it_is_light_open_and_whole(browser, file) -> None:
    found = visit(browser, file, color_scheme="light")
    light = found.page.evaluate(SHADES) + found.page.evaluate(SERIES)
    found.page.context.close()
    found = visit(browser, file, color_scheme="dark")
    assert found.page.evaluate(SHADES) + found.page.evaluate(SERIES) != light
    found.page.emulate_media(media="print")
    assert found.page.evaluate(SHADES) + found.page.evaluate(SERIES) == light
    closed = "[...document.querySelectorAll('details table')].filter(t => t.offsetHeight === 0)"
    assert found.page.evaluate(f"{closed}.length") == 0
    assert found.page.evaluate("document.querySelectorAll('details[open]').length") == 0
    data = found.page.pdf(format="A4", print_background=True)
    assert data.startswith(b"%PDF")
    assert 8 < data.count(b"/Type /Page\n") + data.count(b"/Type /Page/") < 60
    assert found.complaints == []
    found.page.context.close()


def test_the_first_page_on_paper_is_the_whole_summary_and_nothing_else(browser, file) -> None:
    found = visit(browser, file)
    document = pypdfium2.PdfDocument(found.page.pdf(prefer_css_page_size=True, format="A4"))
    first, second = (document[i].get_textpage().get_text_bounded() for i in range(2))
    document.close()
    brief = found.page.locator("#brief .verdicts li").all_inner_texts()
    found.page.context.close()
    assert "not a medical device" in first
    assert all("".join(text.split()) in "".join(first.split()) for text in brief)
    assert "What to read next" not in first + second
    assert second.lstrip().startswith("Notes of this study")


def test_the_contents_lead_to_their_sections(browser, file) -> None:
    found = visit(browser, file)
    page = found.page
    for link in page.locator("nav.toc a").all():
        link.click()
        anchor = str(link.get_attribute("href"))[1:]
        top = page.evaluate(f"document.getElementById('{anchor}').getBoundingClientRect().top")
        end = page.evaluate("innerHeight + scrollY >= document.body.scrollHeight - 2")
        assert -2 <= top < 120 or end, anchor
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1
    found.page.context.close()


def test_wide_tables_scroll_in_their_own_box(browser, file) -> None:
    found = visit(browser, file, 390)
    open_all(found)
    wide = found.page.evaluate(
        "[...document.querySelectorAll('.wide')].filter(w => w.scrollWidth > w.clientWidth).length"
    )
    assert wide > 3
    assert found.page.evaluate(
        "[...document.querySelectorAll('.wide')].every(w => w.tabIndex === 0 && w.ariaLabel)"
    )
    found.page.context.close()
