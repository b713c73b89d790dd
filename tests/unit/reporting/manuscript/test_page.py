"""What is read from a report's page: its figures, tables and cases, cell by cell."""

from tests.support.html_page import read_page as read_elements
from thyro_core.reporting.manuscript.page import read_page
from thyro_core.store.keys import report_key


def test_a_table_is_read_cell_by_cell() -> None:
    html = (
        '<section id="cohort"><table><caption><b>Sizes,</b> by part.</caption>'
        '<thead><tr><th>Part</th><th class="num" colspan="2">Images</th></tr></thead>'
        '<tbody><tr><th>A</th><td class="num">1<br>(0&nbsp;to 2)</td><td class="num">3</td></tr>'
        "<tr><th>all</th></tr></tbody></table></section>"
    )
    (table,) = read_page(html).tables
    assert (table.section, table.title, table.caption) == ("cohort", "Sizes", "Sizes, by part.")
    assert table.header == (("Part", "Images", ""),)
    assert table.body == (("A", "1 (0 to 2)", "3"), ("all", "", ""))
    assert table.numeric == (False, True, True)


def test_every_figure_table_and_case_of_a_report_is_read(full) -> None:
    store, plan = full
    html = store.read(report_key(plan.study_id)).decode()
    page, elements = read_page(html), read_elements(html)
    assert len(page.tables) == len(list(elements.find("table"))) > 20
    assert len(page.figures) == len(list(elements.find("svg"))) > 10
    assert len(page.cases) == html.count('<figure class="case">') > 4
    assert all(figure.caption for figure in page.figures)
    assert all(case.kind and case.caption for case in page.cases)
    assert all(len(row) == len(t.numeric) for t in page.tables for row in (*t.header, *t.body))
