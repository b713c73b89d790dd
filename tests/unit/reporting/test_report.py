"""The report: every number in it is derived again, by SQL, from the store's tables."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.support.html_page import Element, read_page
from tests.support.report_checks import check_shown, check_traces, numbers, untraced
from tests.support.report_store import NO_MASKS, fabricated, images
from thyro_core.config import StudyConfig
from thyro_core.errors import IncompleteStudyError, InputError
from thyro_core.evaluation.curves import decision_curve
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.evaluation.evidence import class_evidence
from thyro_core.evaluation.metrics import PAPER
from thyro_core.explain.statistics import shape_finding
from thyro_core.explain.tables import cam_checks_table
from thyro_core.explain.trust import deletion_failure, localisation_finding
from thyro_core.reporting.references import references
from thyro_core.reporting.report import CONTENTS, render_report, write_report
from thyro_core.reporting.sections.cohort import PAPER_TABLE
from thyro_core.reporting.sections.gallery import WORST, file_to_show
from thyro_core.store.keys import checklist_key, report_key, study_key, table_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.lifecycle import study_notes
from thyro_core.study.plan import StudyPlan
from thyro_core.study.summary import undefined_notes
from thyro_core.tables import schemas
from thyro_core.tables.cam_columns import CASCADE
from thyro_core.tables.io import read_table, write_table
from thyro_core.tables.query import run_query

NASTY = '<script>alert("x")</script>'


@pytest.fixture(scope="module")
def html(full) -> str:
    store, plan = full
    return store.read(report_key(plan.study_id)).decode()


@pytest.fixture(scope="module")
def page(html: str) -> Element:
    return read_page(html)


def test_every_number_of_a_full_report_is_derived_again_by_sql(full, page) -> None:
    found = check_traces(page, *full)
    assert found["sql"] > 1500
    assert found["config"] > 30
    assert found["source"] > 50


def test_the_public_query_gives_the_same_as_the_page(full, page) -> None:
    """`thyro query` with what stands in the page, for a few numbers of each section."""
    store, _ = full
    for section in page.find("section"):
        asked = [each for each in section.find("data") if "data-sql" in each.attributes]
        for element in asked[:: max(1, len(asked) // 2)]:
            rows = run_query(store.url, element.attributes["data-sql"]).to_pylist()
            (value,) = rows[0].values()
            if not hasattr(value, "strftime"):
                check_shown(element, value)


def test_no_digit_stands_in_the_text_without_an_origin(page) -> None:
    (body,) = page.find("body")
    assert list(untraced(body)) == []


def test_the_check_for_stray_digits_sees_them() -> None:
    stray = read_page("<p>an AUC of 0.9 in <b>3</b> splits, <data value='1'>1</data></p>")
    assert list(untraced(stray)) == ["<p> an AUC of 0.9 in", "<b> 3"]


def test_the_wrong_calls_are_listed_the_most_certain_first(full, page) -> None:
    store, plan = full
    (table,) = [
        each for each in page.find("table") if each.text.lstrip().startswith("Wrong calls,")
    ]
    rows = [
        [cell.text for name in ("th", "td") for cell in row.find(name)] for row in table.find("tr")
    ][1:]
    asked = run_query(
        store.url,
        f"""SELECT image_id[:12] AS name, any_value(label) AS label, avg(prob_malignant) AS p
        FROM predictions WHERE study_id = '{plan.study_id}' AND architecture = 'resnet18'
        GROUP BY image_id HAVING (p >= {plan.config.threshold}) != (any_value(label) = 1)
        ORDER BY abs(p - any_value(label)) DESC, name LIMIT {WORST}""",
    ).to_pylist()
    words = ["benign", "malignant"]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        (row["name"], words[row["label"]], f"{row['p']:.3f}") for row in asked
    ]
    files = dict(zip(*read_table(store, "images", manifest_id=plan.manifest_id)
        .select(["image_id", "uri"]).to_pydict().values(), strict=True))  # fmt: skip
    names = {image_id[:12]: str(uri).rsplit("/", 1)[1] for image_id, uri in files.items()}
    assert [row[1] for row in rows] == [names[row[0]] for row in rows]


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("file:///set/benign (3).png", "benign (3).png"),
        ("file:///set/Doe_Jane.png", ""),
        ("file:///Doe_Jane/3.png", "3.png"),
        ("file:///set/19490503.png", ""),
        ("file:///set/MRN123456.png", ""),
        ("a1b2c3", ""),
        (None, ""),
    ],
)
def test_a_files_name_is_shown_unless_it_may_tell_of_a_person(uri: str | None, file: str) -> None:
    assert file_to_show(uri) == file


def test_a_wrong_number_is_found(full, html) -> None:
    store, plan = full
    auc = next(
        each
        for each in numbers(read_page(html))
        if "metric = 'auc'" in each.attributes.get("data-sql", "")
    )
    forged = html.replace(f'value="{auc.attributes["value"]}"', 'value="0.999"', 1)
    assert forged != html
    with pytest.raises(AssertionError):
        check_traces(read_page(forged), store, plan)


@pytest.mark.parametrize("commit", ["a" * 40, "a" * 40 + "-dirty", None])
def test_a_page_of_a_changed_program_says_so_and_names_no_folder(
    tmp_path, monkeypatch, commit
) -> None:
    """The folder of given weights may tell who ran the study."""
    monkeypatch.setattr("thyro_core.reporting.sections.provenance.git_commit", lambda: commit)
    config = SMALL | {"weights": "/home/a-name/weights/own.pth"}
    store, plan = fabricated(tmp_path, **config)
    runs = read_table(store, "runs", study_id=plan.study_id)
    place = runs.schema.get_field_index("git_commit")
    unchanged = pa.array(["b" * 40] * runs.num_rows, runs.schema.field(place).type)
    runs = runs.set_column(place, runs.schema.field(place), unchanged)
    write_table(store, "runs", runs, study_id=plan.study_id)
    page = rendered(store, plan, tmp_path)
    shown = [each for each in page.walk() if "data-dirty" in each.attributes]
    assert len(shown) == (commit is not None and commit.endswith("-dirty"))
    assert "a-name" not in page.text
    (own,) = [each for each in page.walk() if each.attributes.get("data-config") == "weights"]
    assert own.text == own.attributes["value"] == "own.pth"


def test_the_brief_says_that_the_organ_is_not_known(page) -> None:
    """No image tells it: the comparison with a thyroid paper has that condition beside it."""
    text = page.by_id("brief").text
    condition = text.index("cannot tell whether these are thyroid nodules")
    assert condition < text.index("The paper that this study repeats reports")


def test_what_is_marked_as_an_id_is_no_measured_number(page) -> None:
    """Nothing hides behind `data-id`: names, hashes, citations, words of the config."""
    allowed = re.compile(
        r"[sm][0-9a-f]{16}|[0-9a-f]{12}|[0-9a-f]{16}|[0-9a-f]{40}(-dirty)?|"
        r"ResNet18|VGG16|Inception v3|AlexNet|"
        r"fp32|bf16|F1|F1 score|SHA-256|TN5000|Fig\. 2|Table 1|torchvision: IMAGENET1K_V1|"
        r"[A-Z][\w ,.]+ (19|20)\d\d|ITU-R BT\.601|Thyro \d+\.\d+\.\d+|\d+\.png|\D*"
    )
    words = {field.description for field in StudyConfig.model_fields.values()}
    words |= {layer for stages in CASCADE.values() for layer in stages}
    # Compared with the lists themselves by tests of their own.
    items = {id(each) for row in page.by_id("checklist").find("th") for each in row.find("span")}
    items |= {id(each) for each in page.by_id("references").walk()}
    marked = [
        each.text for each in page.walk() if "data-id" in each.attributes and id(each) not in items
    ]
    assert [text for text in marked if not allowed.fullmatch(text) and text not in words] == []


def test_the_reference_list_has_what_the_page_cites_and_the_study_s_networks(full, page) -> None:
    _, plan = full
    listed = page.by_id("references")
    entries = references(plan.config.architectures)
    assert [each.text for each in listed.find("cite")] == [each.citation for each in entries]
    assert len({each.citation for each in entries}) == len(entries)
    texts = [each.text for each in listed.find("li")]
    for entry, text in zip(entries, texts, strict=True):
        assert entry.text in text
        assert entry.identifier in text
    cited = {each.text for each in page.find("cite")}
    assert cited <= {each.citation for each in entries}
    assert len(references(("vgg16",))) == len(entries) - 3


def test_notes_and_findings_are_those_of_the_tables(full, page) -> None:
    store, plan = full
    metrics = read_table(store, "metrics", study_id=plan.study_id)
    notes = [each.text for each in page.walk() if "data-note" in each.attributes]
    assert sorted(notes) == sorted((*study_notes(store, plan), *undefined_notes(metrics)))
    assert "60 masks left out: no images" in notes
    tests = read_table(store, "cam_tests", study_id=plan.study_id)
    findings = findings_of(page)
    assert list(findings) == [
        name for name in plan.config.architectures if evidence_of(metrics, name) == "apart"
    ]
    assert findings
    for name, finding in findings.items():
        rows = tests.filter(pc.field("architecture") == name).to_pylist()
        assert finding == shape_finding(rows)


def test_the_nodule_s_finding_is_that_of_the_table(full, page) -> None:
    store, plan = full
    checks = read_table(store, "cam_checks", study_id=plan.study_id)
    shown = [e for e in page.by_id("trust").walk() if "data-finding" in e.attributes]
    names = []
    for each in shown:
        name = each.attributes["data-finding"].removesuffix("-nodule")
        rows = checks.filter(pc.field("architecture") == name).to_pylist()
        if name != each.attributes["data-finding"]:
            assert each.text == localisation_finding(rows)
            names.append(name)
        else:
            name = name.removesuffix("-deletion")
            own = checks.filter(pc.field("architecture") == name).to_pylist()
            assert each.text == deletion_failure(own) != ""
    assert names == list(findings_of(page))


def findings_of(page: Element) -> dict[str, str]:
    return {
        each.attributes["data-finding"]: each.text
        for each in page.by_id("features").walk()
        if "data-finding" in each.attributes
    }


def evidence_of(metrics: pa.Table, architecture: str) -> str:
    row = metrics.filter(
        (pc.field("architecture") == architecture)
        & (pc.field("metric") == "auc")
        & pc.field("split").is_null()
    ).to_pylist()[0]
    return class_evidence(row["ci_low"], row["ci_high"])


WITH_NUMBERS = (
    "performance", "curves", "calibration", "decision", "confusion", "ppv", "comparisons",
    "gallery", "features", "trust",
)  # fmt: skip
"""Sections that show figures of networks, and so need to say where there is no finding."""


def test_a_network_at_chance_has_no_finding_anywhere(tmp_path) -> None:
    store, plan = fabricated(tmp_path, skill=0.0, **SMALL | {"splits": 5})
    metrics = read_table(store, "metrics", study_id=plan.study_id)
    assert evidence_of(metrics, "resnet18") == "none"
    page = rendered(store, plan, tmp_path)
    brief = page.by_id("brief")
    (lead,) = [each for each in brief.find("p") if "data-evidence" in each.attributes]
    assert lead.text.startswith(
        "There is no evidence that ResNet18 tells malignant from benign nodules: the 95"
    )
    assert "told images labelled malignant" not in page.text
    assert "the network is not shown to tell the classes apart" in maps_of(page)
    assert benefit_sentence(page, "resnet18") == expected_benefit(store, plan, "resnet18")
    assert "lies below that of calling every image malignant" in benefit_sentence(page, "resnet18")
    assert "agrees with it" not in brief.text
    assert "compatible with it" not in brief.text
    assert "Here the network is not shown to tell the classes apart" in brief.text
    for section in WITH_NUMBERS:
        assert "No finding: ResNet18 is not shown" in page.by_id(section).text, section
    assert [each for each in page.walk() if "data-finding" in each.attributes] == []
    assert [e for e in page.walk() if e.attributes.get("id") == "figure-effects"] == []
    assert "these still differ" not in page.by_id("features").text


def maps_of(page: Element) -> str:
    """What the brief says of maps."""
    (own,) = [each for each in page.by_id("brief").walk() if "data-maps" in each.attributes]
    return own.text


def benefit_sentence(page: Element, architecture: str) -> str:
    (own,) = [e for e in page.walk() if e.attributes.get("data-below-all") == architecture]
    return " ".join(own.text.split())


def expected_benefit(store: Store, plan: StudyPlan, architecture: str) -> str:
    """The sentence, from the curve itself."""
    rows = read_table(store, "predictions", study_id=plan.study_id).to_pandas()
    own = rows[rows["architecture"] == architecture]
    parts = [
        (part["label"].to_numpy(), part["prob_malignant"].to_numpy())
        for _, part in own.groupby("split")
    ]
    line = decision_curve(parts, 0.4)
    places = np.flatnonzero(line.model.mean < line.treat_all - 1e-9) + 1
    name = ARCHITECTURE_NAMES[architecture]
    harmful = np.flatnonzero(line.model.mean < -1e-9) + 1
    last_words = (
        "These are means: the band below is of the curve, not of its distance from calling all or "
        "none."
    )
    end = f"It lies below that of calling none at no threshold. {last_words}"
    if harmful.size:
        first, last = harmful.min() / 100, harmful.max() / 100
        end = (
            f"It lies below that of calling none at {harmful.size} thresholds from {first:.2f} to "
            f"{last:.2f}: there acting on these probabilities did more harm than good, on average "
            f"over the splits; where the band below holds 0, harm is not shown. {last_words}"
        )
    if not places.size:
        return (
            f"At no threshold from 0.01 to 0.99 does the mean net benefit of {name} lie below that "
            f"of calling every image malignant. {end}"
        )
    last = places.max()
    start = f"Up to a threshold of {last / 100:.2f}"
    if places.size < last:
        start = f"At {places.size} of the {last} thresholds up to {last / 100:.2f}"
    return (
        f"{start} the mean net benefit of {name} lies below that of calling every image malignant: "
        "whoever would act from such a probability on was better off on average, on these images, "
        "calling all malignant than with this network\N{RIGHT SINGLE QUOTATION MARK}s "
        f"probabilities as they are. {end}"
    )


def test_it_says_up_to_where_a_network_is_of_less_use_than_calling_all(full, page) -> None:
    store, plan = full
    for name in plan.config.architectures:
        assert benefit_sentence(page, name) == expected_benefit(store, plan, name)


def test_the_brief_says_what_this_study_s_maps_show(full, page) -> None:
    store, plan = full
    checks = read_table(store, "cam_checks", study_id=plan.study_id)
    own = checks.filter(pc.field("architecture") == "resnet18").to_pylist()
    assert localisation_finding(own) in maps_of(page)


def test_a_network_with_evidence_needs_no_caution(full, page) -> None:
    store, plan = full
    metrics = read_table(store, "metrics", study_id=plan.study_id)
    assert evidence_of(metrics, "resnet18") == "apart"
    assert (
        "told images labelled malignant from those labelled benign with a mean AUC"
        in page.by_id("brief").text
    )
    cautions = {each.text for each in page.walk() if "data-no-finding" in each.attributes}
    names = [n for n in plan.config.architectures if evidence_of(metrics, n) != "apart"]
    assert bool(cautions) == bool(names)
    assert not any("ResNet18" in text for text in cautions)


def test_it_says_that_it_is_internal_validation(page) -> None:
    for tag in ("title", "h1"):
        assert "internal validation" in page.find(tag)[0].text


def test_empty_maps_are_counted_by_class(full, page) -> None:
    store, plan = full
    trust = read_table(store, "cam_trust", study_id=plan.study_id).to_pandas()
    (table,) = [t for t in page.by_id("features").find("table") if "by class." in t.text[:40]]
    rows = [[c.text for c in row.find("td")] for row in table.find("tbody")[0].find("tr")]
    own = trust[trust["architecture"] == "resnet18"]
    for label, name in enumerate(("benign", "malignant")):
        part = own[own["label"] == label]
        always = part.groupby("image_id")["is_empty"].all()
        expected = [len(part), part["is_empty"].sum(), len(always), always.sum()]
        shown = rows[label]
        assert shown[0] == name
        assert [int(shown[i]) for i in (1, 2, 4, 5)] == expected


def test_nodules_stand_beside_regions_in_the_proportions_of_their_images(full, page) -> None:
    store, plan = full
    study = {"study_id": plan.study_id}
    trust, regions = (
        read_table(store, name, **study).to_pandas() for name in ("cam_trust", "cam_features")
    )
    (table,) = [t for t in page.by_id("features").find("table") if "Taller than wide?" in t.text]
    rows = [[c.text for c in row.find("td")] for row in table.find("tbody")[0].find("tr")]
    regions = regions[regions["threshold"] == plan.config.cam_share]
    both = trust.merge(regions, on=["split", "architecture", "image_id"], suffixes=("", "_region"))
    both = both[(both["architecture"] == "resnet18") & both["nodule_aspect"].notna()]
    images = both.groupby("image_id").agg(
        label=("label", "first"), nodule=("nodule_aspect", "first"),
        tallest=("nodule_tallest", "first"), region=("aspect_ratio", "mean"),
    )  # fmt: skip
    assert len(rows) == 2
    assert (images["tallest"] > 1).sum() > (images["nodule"] > 1).sum()
    for label, shown in enumerate(rows):
        own = images[images["label"] == label]
        tall = own["nodule"] > 1
        assert int(shown[0]) == len(own) > 0
        assert shown[1] == f"{own['nodule'].median():.2f}"
        agree = tall == (own["region"] > 1)
        any_tall = own["tallest"] > 1
        wide = own["region"] > 1
        chance = tall.mean() * wide.mean() + (1 - tall.mean()) * (1 - wide.mean())
        shares = (tall.mean(), any_tall.mean(), wide.mean(), agree.mean(), chance)
        for place, share in zip((2, 3, 5, 6, 7), shares, strict=True):
            text = shown[place].rstrip("\N{NO-BREAK SPACE}%")
            assert float(text) == pytest.approx(100 * share, abs=0.06)
        assert shown[4] == f"{own['region'].median():.2f}"
    others = (images["tallest"] > images["nodule"]).groupby(images["label"]).sum()
    caption = " ".join(table.find("caption")[0].text.split())
    assert f"in {others[0]} benign and {others[1]} malignant images another outline" in caption


def test_the_papers_figures_are_the_papers(page) -> None:
    shown = [e.text for e in numbers(page) if e.attributes.get("data-source") == "paper"]
    assert {f"{value:.3f}" for value in PAPER.values()} <= set(shown)
    assert {str(count) for row in PAPER_TABLE.values() for count in row} <= set(shown)
    for part in ("train", "test"):
        benign, malignant, total = PAPER_TABLE[part]
        assert benign + malignant == total
    assert [sum(x) for x in zip(PAPER_TABLE["train"], PAPER_TABLE["test"], strict=True)] == list(
        PAPER_TABLE["all"]
    )


def test_the_sections_stand_in_the_order_asked_for(page) -> None:
    sections = [each.attributes["id"] for each in page.find("section")]
    assert sections == [anchor for anchor, _ in CONTENTS]
    links = [each.attributes["href"] for each in page.by_id("brief").parent.parent.find("a")]
    (contents,) = page.find("nav")
    assert [a.attributes["href"][1:] for a in contents.find("a")] == sections
    ids = [each.attributes["id"] for each in page.walk() if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_it_is_one_file_that_asks_for_nothing(html, page) -> None:
    assert page.find("script") == []
    for element in page.walk():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), name
            if name in {"src", "href", "srcset", "poster", "action"}:
                assert value.startswith(("#", "data:")), value
    policy = [e for e in page.find("meta") if "http-equiv" in e.attributes]
    assert policy[0].attributes["content"].startswith("default-src 'none'; img-src data:;")
    (style,) = page.find("style")
    css = "".join(child for child in style.children if isinstance(child, str))
    assert "url(" not in css
    assert "@import" not in css
    assert len(html.encode()) < 8e6
    assert "mathdefault" not in html, "a tick in TeX's language"


def test_it_says_what_it_is_not(page) -> None:
    said = [each.text for each in page.walk() if each.attributes.get("role") == "note"]
    assert sum("Research use only" in text for text in said) >= 2
    (footer,) = page.find("footer")
    assert "not a medical device" in footer.text


def test_tables_are_tables_to_a_screen_reader(page) -> None:
    for table in page.find("table"):
        (caption,) = table.find("caption")
        assert caption.text
        assert table.find("th")
        assert all("scope" in th.attributes for th in table.find("th"))
        for row in table.find("tr"):
            cells = [c for c in row.children if isinstance(c, Element)]
            assert cells
    for image in page.find("img"):
        assert len(image.attributes["alt"]) > 20
        assert image.attributes["width"] == image.attributes["height"]
    for svg in page.find("svg"):
        assert svg.attributes["role"] == "img"
        (named, *_) = svg.attributes["aria-labelledby"].split()
        assert page.by_id(named)


def test_a_caption_ends_its_figure(page) -> None:
    for figure in page.find("figure"):
        inside = [child.tag for child in figure.children if isinstance(child, Element)]
        assert inside.count("figcaption") == 1
        assert inside[-1] == "figcaption"


def test_every_row_of_a_table_has_as_many_cells(page) -> None:
    for table in page.find("table"):
        widths = {
            sum(int(cell.attributes.get("colspan", 1)) for cell in row.children if is_cell(cell))
            for row in table.find("tr")
        }
        assert len(widths) == 1, table.find("caption")[0].text


def is_cell(child: object) -> bool:
    return isinstance(child, Element) and child.tag in {"td", "th"}


def test_bold_is_what_a_family_rejects_and_a_share_of_the_area_has_no_test(page) -> None:
    n_bold = 0
    for section in ("trust", "features", "comparisons"):
        for cell in page.by_id(section).find("td"):
            values = [e for e in cell.find("data") if e.attributes["data-form"] == "p"]
            if not values or "adjusted" not in values[0].attributes["data-sql"]:
                assert "bold" not in cell.attributes.get("class", "") or not values
                continue
            adjusted = values[0].attributes["value"]
            rejects = adjusted not in ("", "nan") and float(adjusted) < 0.05
            assert ("bold" in cell.attributes.get("class", "")) == rejects, cell.text
            n_bold += rejects
    assert n_bold > 0, "the case is not there"
    rows = [r for r in page.by_id("trust").find("tr") if "share of the area" in r.text]
    rows = [r for r in rows if r.find("td")]
    assert rows
    for row in rows:
        assert "no test" in row.text
        assert not [e for e in row.find("data") if e.attributes["data-form"] == "p"]


def test_every_figure_s_caption_says_its_units_and_what_its_interval_is(page) -> None:
    bands = {"roc", "pr", "decision", "ppv", "metrics", "calibration", "fit", "benefit", "forest"}
    without = {"scores", "learning", "effects", "flow"}
    for figure in page.find("figure"):
        anchor = figure.parent.attributes.get("id") or ""
        if not anchor.startswith("figure-"):
            continue
        name = anchor.removeprefix("figure-")
        assert name in bands | without | {"subgroups"}, name
        caption = " ".join(figure.find("figcaption")[0].text.split())
        assert "image" in caption, name
        if name in bands:
            assert "95" in caption, name
            assert "interval" in caption or "band" in caption, name
        elif name != "flow":
            assert "no interval" in caption, name


def test_the_same_tables_elsewhere_give_the_same_bytes_beside_the_study(full, html, tmp_path):
    store, plan = full
    shutil.copytree(store.root, tmp_path / "elsewhere")
    copy = open_store(str(tmp_path / "elsewhere"))
    url = write_report(copy, plan.study_id, tmp_path)
    assert url == f"{copy.url}/studies/{plan.study_id}/report.html"
    assert copy.read(report_key(plan.study_id)).decode() == html


def rendered(store: Store, plan: StudyPlan, folder: Path) -> Element:
    """A report whose numbers, digits and nesting have been checked."""
    write_report(store, plan.study_id, folder)
    page = read_page(store.read(report_key(plan.study_id)).decode())
    check_traces(page, store, plan)
    (body,) = page.find("body")
    assert list(untraced(body)) == []
    return page


SMALL = {"architectures": ("resnet18",), "splits": 2}


def test_one_architecture_and_no_patients_are_said_where_it_matters(tmp_path) -> None:
    page = rendered(*fabricated(tmp_path, images(patients=False), **SMALL), tmp_path)
    assert "No patient ids were given" in page.by_id("brief").text
    assert "No patient ids were given" in page.by_id("cohort").text
    assert "Without patient ids" in page.by_id("limits").text
    assert "one architecture; there is nothing to compare" in page.by_id("comparisons").text
    assert "Against" not in page.by_id("brief").text
    assert len(page.by_id("gallery").find("img")) >= 8


def test_nothing_of_the_set_can_become_markup(tmp_path) -> None:
    """A reason, a note and a device with a script in them; a file name does not appear at all."""
    rows = images().to_pylist()
    for row in rows:
        row["uri"] = f"file:///{NASTY}/jane-doe.png"
        row["reason"] = None if row["included"] else f"'{NASTY}"
    table = schemas.rows_to_table("images", rows)
    store, plan = fabricated(tmp_path, table, notes=[NASTY], **SMALL)
    runs = read_table(store, "runs", study_id=plan.study_id).to_pylist()
    runs = [row | {"device": NASTY, "git_commit": NASTY} for row in runs]
    write_table(store, "runs", schemas.rows_to_table("runs", runs), study_id=plan.study_id)
    page = rendered(store, plan, tmp_path)
    html = store.read(report_key(plan.study_id)).decode()
    assert "<script" not in html
    assert "jane-doe" not in html
    for section in ("brief", "cohort", "provenance"):
        assert NASTY in page.by_id(section).text


@pytest.mark.filterwarnings("ignore::thyro_core.evaluation.metrics.UndefinedMetricWarning")
def test_an_undefined_metric_is_called_so(tmp_path) -> None:
    """At this threshold nothing is called malignant, so that precision divides by zero."""
    store, plan = fabricated(tmp_path, threshold=0.9999, skill=0.1, **SMALL)
    page = rendered(store, plan, tmp_path)
    rows = [row for row in page.by_id("performance").find("tr") if "Precision (PPV)" in row.text]
    texts = [cell.text for cell in rows[0].find("td")]
    assert texts == ["undefinedof 0 splits", "0.939"]
    assert "undefined in some splits" in page.by_id("brief").text
    assert "there is nothing to show" in page.by_id("gallery").text
    assert "nan" not in page.by_id("performance").text.lower().split()


def test_without_masks_the_checks_of_nodules_are_not_computed(tmp_path) -> None:
    store, plan = fabricated(tmp_path, **SMALL)
    for split in (0, 1):
        keys = {"study_id": plan.study_id, "split": split, "architecture": "resnet18"}
        rows = read_table(store, "cam_trust", **keys).to_pylist()
        rows = [row | dict.fromkeys(NO_MASKS) for row in rows]
        write_table(store, "cam_trust", schemas.rows_to_table("cam_trust", rows), **keys)
    study = {"study_id": plan.study_id}
    trust, splits = (read_table(store, name, **study) for name in ("cam_trust", "splits"))
    checks = cam_checks_table(plan.study_id, trust, splits, plan.config)
    write_table(store, "cam_checks", checks, **study)
    text = rendered(store, plan, tmp_path).by_id("trust").text
    assert text.count("no outlines of nodules came with the images") == 3
    assert "Weight randomisation" in text
    assert text.count("Not computed") == 3


def test_without_tables_on_maps_pack_and_weights_it_says_what_that_means(tmp_path) -> None:
    store, plan = fabricated(tmp_path, **SMALL)
    for key in [*store.keys("tables"), *store.keys("packs")]:
        if key.startswith(("tables/cam_", "packs/")):
            store.delete(key)
    key = study_key(plan.study_id)
    plain = json.loads(store.read(key))
    plain["weights"]["resnet18"] |= {"origin": "none", "sha256": None}
    store.write(key, json.dumps(plain).encode())
    page = rendered(store, plan, tmp_path)
    for section in ("features", "trust"):
        assert "Not computed: the study has no rows" in page.by_id(section).text
        assert "start the same thyro study command again" in page.by_id(section).text
    assert "Not shown: the packed images are not in the store" in page.by_id("gallery").text
    assert "started from random weights" in page.by_id("brief").text


def test_an_auc_that_is_too_good_comes_with_what_to_check(tmp_path) -> None:
    page = rendered(*fabricated(tmp_path, skill=9.0, **SMALL), tmp_path)
    doubt = page.by_id("doubt")
    assert "Better than the literature makes plausible" in doubt.text
    assert "ResNet18 has an AUC of 1.000, over the bound of 0.97" in doubt.text
    assert len(doubt.find("li")) >= 5
    assert "better than plausible" in page.by_id("brief").text
    assert benefit_sentence(page, "resnet18").startswith("At no threshold from 0.01 to 0.99")


def test_a_plausible_auc_raises_no_doubt(page) -> None:
    assert [e for e in page.walk() if e.attributes.get("id") == "doubt"] == []
    assert "Better than the literature" not in page.by_id("brief").text


def test_that_nothing_leaks_is_proved_by_counts(page) -> None:
    assert shared(page) == ["0", "0", "0", "0"]
    assert "stands on both sides of any split" in page.by_id("brief").text


def test_leakage_is_found_if_it_is_there(tmp_path) -> None:
    store, plan = fabricated(tmp_path, **SMALL)
    rows = read_table(store, "splits", study_id=plan.study_id).to_pylist()
    test = next(row for row in rows if row["role"] == "test" and row["split"] == 0)
    kin = next(
        row
        for row in rows
        if (row["split"], row["patient_id"]) == (0, test["patient_id"])
        and row["image_id"] != test["image_id"]
    )
    kin["role"] = "train"
    write_table(store, "splits", schemas.rows_to_table("splits", rows), study_id=plan.study_id)
    page = read_page(render_report(store, plan.study_id, tmp_path)[0])
    assert shared(page) == ["0", "0", "1", "1"]
    assert "the figures are not to be used" in page.by_id("brief").text


def shared(page: Element) -> list[str]:
    (table,) = page.by_id("leakage").find("table")
    return [row.find("td")[-1].text for row in table.find("tbody")[0].find("tr")]


@pytest.mark.parametrize("lacking", ["predictions", "metrics"])
def test_an_unfinished_study_says_what_is_missing(tmp_path, lacking) -> None:
    store, plan = fabricated(tmp_path, **SMALL)
    store.delete(
        table_key("metrics", study_id=plan.study_id)
        if lacking == "metrics"
        else table_key("predictions", study_id=plan.study_id, split=1, architecture="resnet18")
    )
    said = "no metrics yet" if lacking == "metrics" else r"1 runs to go \(split 1 resnet18\)"
    with pytest.raises(IncompleteStudyError, match=said):
        write_report(store, plan.study_id, tmp_path)
    assert not store.exists(report_key(plan.study_id))


def test_an_unknown_study_is_a_mistake_of_the_one_who_asks(full, tmp_path) -> None:
    store, plan = full
    with pytest.raises(InputError, match=f"expected a study s0, found {plan.study_id}"):
        render_report(store, "s0", tmp_path)


def test_the_flow_diagram_says_the_counts_of_the_tables(full, page) -> None:
    store, plan = full
    found = read_table(store, "images", manifest_id=plan.manifest_id)
    included = found.filter(found["included"])
    svg = next(each for each in page.find("svg") if "plot-flow-title" in str(each.attributes))
    texts = {each.text for each in svg.find("text")}
    labels = pc.value_counts(included["label"]).to_pylist()
    counts = {row["values"]: row["counts"] for row in labels}
    assert any(each.startswith(f"Image files found: {found.num_rows}") for each in texts)
    assert any(each.startswith(f"Excluded: {found.num_rows - included.num_rows}") for each in texts)
    people = pc.count_distinct(included["patient_id"]).as_py()
    assert f"Included: {included.num_rows} ({people} patients)" in texts
    patients = {
        label: pc.count_distinct(included.filter(pc.field("label") == label)["patient_id"]).as_py()
        for label in (0, 1)
    }
    assert {
        f"benign: {counts[0]} ({patients[0]} patients)",
        f"malignant: {counts[1]} ({patients[1]} patients)",
    } <= texts
    reasons = pc.value_counts(found.filter(pc.invert(found["included"]))["reason"]).to_pylist()
    assert reasons
    words = " ".join(each.text.strip() for each in svg.find("text"))
    for row in reasons:
        assert f"{row['values'].replace('_', ' ')}: {row['counts']}" in words
    assert f"Included: {included.num_rows}" in svg.find("desc")[0].text
    splits = read_table(store, "splits", study_id=plan.study_id).to_pandas()
    tested = splits[splits["role"] == "test"].groupby("split")["patient_id"].nunique()
    ends = [f"{n:,}" for n in sorted({tested.min(), tested.max()})]
    assert f"({' to '.join(ends)} patients)" in " ".join(words.split())


def test_what_the_checklists_claim_stands_in_the_section_they_name(full, page) -> None:
    store, plan = full
    rows = list(csv.DictReader(io.StringIO(store.read(checklist_key(plan.study_id)).decode())))
    shown = [
        (cells[0].text, row.attributes["data-status"])
        for row in page.by_id("checklist").find("tr")
        if "data-status" in row.attributes and (cells := row.find("th"))
    ]
    assert shown == [(row["item"], row["status"]) for row in rows]
    for anchor in {row["section"].removeprefix("report.html#") for row in rows} - {""}:
        text = page.by_id(anchor).text
        assert text
        assert not re.search(r"Not computed: the study|Not shown:|could not be compared", text)
    sections = {row["item"]: row["section"] for row in rows if row["standard"] == "CLAIM 2024"}
    assert "last epoch" in page.by_id("provenance").text
    assert sections["31"] == "report.html#trust"
