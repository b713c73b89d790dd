"""The decisions alone, on facts made up for the purpose."""

import hashlib
import random
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyro_core.config import IngestConfig
from thyro_core.datasets import eligibility
from thyro_core.datasets.eligibility import REASONS, Measures, SourceFile, judge
from thyro_core.datasets.layouts import Entry
from thyro_core.imaging.local_features import PATTERN, LocalFeatures
from thyro_core.imaging.near_duplicates import Fingerprint, NearDuplicate

RULES = IngestConfig(min_side=64, blur_bound=0.1, overlay_bound=0.02)
FLAT = (
    LocalFeatures(64, 64, np.empty((0, 3), np.int16), np.empty((0, PATTERN), np.int8)),
    np.zeros((64, 64), np.uint8),
)


def image_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def found(name="a.png", pixels=None, quality=None, failure=None, **entry) -> SourceFile:
    """A file with good measures unless told otherwise; flat fingerprints are never near."""
    plain = {"width": 100, "height": 80, "sharpness": 1.0, "overlay_share": 0.0}
    measures = Measures(
        **plain | (quality or {}),
        pixel_hash=pixels or f"pixels of {name}",
        mean=90.0,
        sd=30.0,
        fingerprint=Fingerprint("0" * 16, *FLAT),
    )
    whole = Entry(**{"name": name, "uri": f"memory://set/{name}", "label": 0} | entry)
    readable = whole.present and failure is None
    return SourceFile(
        whole, image_id(name) if whole.present else None, measures if readable else None, failure
    )


def reasons(items: list[SourceFile]) -> list[str | None]:
    return [fault and fault[0] for fault in judge(items, RULES).faults]


@pytest.fixture
def near(monkeypatch):
    """Declare which pixel sets are near-duplicates of each other, by their images' names."""

    def declare(*pairs: tuple[str, str], same_picture: bool = True) -> None:
        def pairs_of(shown: list[SourceFile], rules: IngestConfig) -> list[NearDuplicate]:
            names = [item.entry.name for item in shown]
            both = [pair for pair in pairs if set(pair) <= set(names)]
            places = sorted(tuple(sorted(names.index(name) for name in pair)) for pair in both)
            return [NearDuplicate(i, j, same_picture, 0.97, 30, 0) for i, j in places]

        monkeypatch.setattr(eligibility, "_near_pairs", pairs_of)

    return declare


OWN = {
    "missing": ({"present": False}, "no such file"),
    "not_listed": ({"is_listed": False, "label": None}, "not listed"),
    "label_conflict": ({"conflict": True}, "different labels"),
    "excluded_by_specialist": ({"exclusion_reason": "wrong organ"}, "wrong organ"),
    "undecodable": ({"failure": "12 frames, more than 1"}, "12 frames, more than 1"),
    "too_small": (
        {"quality": {"width": 63, "height": 900}},
        "63 x 900 pixels; .* at least min_side = 64",
    ),
    "artefact": (
        {"quality": {"overlay_share": 0.0213}},
        "2.13% of the tissue's .* at most overlay_bound = 2%",
    ),
    "blurred": ({"quality": {"sharpness": 0.0987}}, "sharpness 0.0987; at least blur_bound = 0.1"),
}


@pytest.mark.parametrize("reason", OWN)
def test_each_fault_of_a_file_by_itself(reason):

    (fault,) = judge([found(**OWN[reason][0])], RULES).faults
    assert fault[0] == reason
    assert re.search(OWN[reason][1], fault[1])


def test_bounds_include_their_value_and_zero_switches_blur_off():
    edge = {"width": 64, "height": 64, "sharpness": 0.1, "overlay_share": 0.02}
    assert reasons([found(quality=edge)]) == [None]
    unsharp = [found(quality={"sharpness": 0.0})]
    assert judge(unsharp, RULES.model_copy(update={"blur_bound": 0.0})).faults == [None]


def test_an_undefined_sharpness_is_not_sharp():
    assert reasons([found(quality={"sharpness": float("nan")})]) == ["blurred"]


def test_the_first_reason_in_the_declared_order_is_given():
    """Any two faults together give the earlier one."""
    for first, second in pairwise(name for name in REASONS if name in OWN):
        both = OWN[first][0] | OWN[second][0]
        both["quality"] = OWN[first][0].get("quality", {}) | OWN[second][0].get("quality", {})
        assert reasons([found(**both)]) == [first]


def test_of_exact_copies_the_smallest_image_id_is_kept():
    items = [found(name, pixels="same") for name in ("a", "b", "c", "d")]
    judgement = judge(items, RULES)
    smallest = min(image_id(name) for name in "abcd")
    kept = [item.image_id for item, fault in zip(items, judgement.faults, strict=True) if not fault]
    assert kept == [smallest]
    for fault in filter(None, judgement.faults):
        assert fault == ("duplicate", f"same pixels as image {smallest[:12]}")


@pytest.mark.parametrize("labelled", ["a", "b"])
def test_a_labelled_copy_is_kept_before_an_unlabelled_one(labelled):
    items = [found(name, pixels="same", label=1 if name == labelled else None) for name in "ab"]
    assert reasons(items) == [None if name == labelled else "duplicate" for name in "ab"]


def test_a_copy_with_a_patient_is_kept_before_one_without():
    for known in "ab":
        items = [found(n, pixels="same", patient="x" if n == known else None) for n in "ab"]
        assert reasons(items) == [None if n == known else "duplicate" for n in "ab"]


def test_a_faulty_copy_does_not_take_the_place_of_a_good_one():
    for refused in "ab":
        items = [
            found(n, pixels="same", exclusion_reason="no" if n == refused else None) for n in "ab"
        ]
        assert reasons(items) == ["excluded_by_specialist" if n == refused else None for n in "ab"]


def test_copies_with_contradicting_labels_are_all_refused():
    labels = {"a": 0, "b": 1, "c": None, "d": 1}
    items = [found(name, pixels="same", label=label) for name, label in labels.items()]
    judgement = judge([*items, found("e", label=1)], RULES)
    told = ("label_conflict", "exact copies are labelled benign 1, malignant 2")
    assert judgement.faults == [told] * 4 + [None]


def test_a_copy_of_an_image_listed_with_two_labels_is_refused():
    items = [found("a", pixels="same", conflict=True), found("b", pixels="same", label=1)]
    assert reasons(items) == ["label_conflict"] * 2


def test_the_specialist_settles_a_contradiction():
    items = [found("a", "same", label=0, exclusion_reason="wrong"), found("b", "same", label=1)]
    assert reasons(items) == ["excluded_by_specialist", None]


def test_near_duplicates_with_different_labels_are_both_refused(near):
    near(("a", "b"))
    faults = judge([found("a", label=0), found("b", label=1)], RULES).faults
    assert faults == [
        (
            "near_duplicate_conflict",
            f"near-duplicate of image {image_id('b')[:12]}, which is labelled malignant",
        ),
        (
            "near_duplicate_conflict",
            f"near-duplicate of image {image_id('a')[:12]}, which is labelled benign",
        ),
    ]


def test_only_the_pair_contradicts_not_the_group(near):
    near(("a", "b"), ("b", "c"))
    items = [found("a", label=0), found("b", label=None), found("c", label=1)]
    judgement = judge(items, RULES)
    assert judgement.faults == [None] * 3
    assert len(set(judgement.group_ids)) == 1
    assert judgement.near_duplicates == [3]


def test_images_excluded_for_their_labels_are_not_counted_as_kept_together(near):
    """Of four that hang together two contradict each other; one link of the others is broken."""
    near(("a", "b"), ("b", "c"), ("c", "d"))
    items = [found("a", label=0), found("b", label=1), found("c", label=1), found("d", label=1)]
    judgement = judge(items, RULES)
    assert [fault is None for fault in judgement.faults] == [False, False, True, True]
    assert len(set(judgement.group_ids)) == 1
    assert (judgement.near_duplicates, judgement.copies, judgement.similar) == ([2], 1, 0)


def test_every_reason_has_a_meaning_for_the_reader():
    assert all(len(meaning) > 15 for meaning in eligibility.REASON_MEANINGS.values())


def test_similar_images_stay_together_contradict_nothing_and_are_counted_apart(near):
    near(("a", "b"), same_picture=False)
    judgement = judge([found("a", label=0), found("b", label=1)], RULES)
    assert judgement.faults == [None] * 2
    assert len(set(judgement.group_ids)) == 1
    assert (judgement.near_duplicates, judgement.copies, judgement.similar) == ([2], 0, 1)


def test_copies_share_the_fate_of_a_near_duplicate(near):
    first = min("ax", key=image_id)
    near((first, "b"))
    items = [found("a", "same", label=0), found("x", "same", label=0), found("b", label=1)]
    assert reasons(items) == ["near_duplicate_conflict"] * 3


def test_near_duplicates_are_sought_in_an_order_that_names_do_not_change(monkeypatch):
    """Sums of floats depend on their order: files renamed must not change a verdict."""
    orders = []
    monkeypatch.setattr(
        eligibility, "near_duplicates", lambda prints, *_: orders.append(prints) or []
    )
    items = [found(name) for name in "abcdef"]
    judge(items, RULES)
    judge(items[::-1], RULES)
    by_id = sorted(items, key=lambda item: item.image_id)
    expected = [id(item.measures.fingerprint) for item in by_id]
    assert [[id(one) for one in prints] for prints in orders] == [expected] * 2


def test_an_image_with_another_fault_contradicts_no_near_duplicate(near):
    near(("a", "b"))
    items = [found("a", label=0, exclusion_reason="wrong label"), found("b", label=1)]
    assert reasons(items) == ["excluded_by_specialist", None]


def test_pseudonyms_are_made_of_the_patients_smallest_image():
    items = [found(name, patient="Jane" if name in "abc" else None) for name in "abcd"]
    pseudonym = "p" + min(image_id(name) for name in "abc")[:12]
    assert judge(items, RULES).patient_ids == [pseudonym] * 3 + [None]


def test_a_patient_without_a_readable_file_has_no_pseudonym():
    judgement = judge([found("a", patient="x", present=False), found("b", patient="x y")], RULES)
    assert judgement.patient_ids == [None, "p" + image_id("b")[:12]]
    assert judgement.group_ids == [None, "g" + image_id("b")[:12]]


def test_groups_hang_together_by_patient_pixels_bytes_and_near_duplicates(near):
    near(("e", "f"))
    items = [
        found("a", patient="1"),
        found("b", patient="1"),
        found("b2", pixels="pixels of b", patient="2"),
        found("c", patient="2"),
        found("d", patient="3"),
        found("e", patient="3"),
        found("f"),
        found("g"),
    ]
    one = "g" + min(image_id(name) for name in ("a", "b", "b2", "c"))[:12]
    two = "g" + min(image_id(name) for name in "def")[:12]
    alone = "g" + image_id("g")[:12]
    assert judge(items, RULES).group_ids == [one] * 4 + [two] * 3 + [alone]


def test_patients_who_share_the_bytes_of_an_undecodable_file_are_one_group():
    broken = [found(patient=patient, failure="damaged") for patient in ("1", "2")]
    items = [*broken, found("b", patient="1"), found("c", patient="2")]
    assert len(set(judge(items, RULES).group_ids)) == 1


files = st.builds(
    found,
    name=st.text("abcdefgh", min_size=1, max_size=3),
    pixels=st.sampled_from(["p", "q", "r", None]),
    failure=st.sampled_from([None, None, None, "damaged"]),
    quality=st.sampled_from([None, None, {"width": 9}, {"sharpness": 0.0}, {"overlay_share": 1.0}]),
    label=st.sampled_from([0, 1, None]),
    patient=st.sampled_from([None, "1", "2", "3"]),
    exclusion_reason=st.sampled_from([None, None, "no"]),
    conflict=st.sampled_from([False, False, False, True]),
    present=st.sampled_from([True, True, False]),
    is_listed=st.sampled_from([True, True, False]),
)
sets = st.lists(files, min_size=1, max_size=12, unique_by=lambda item: item.entry.name)


@settings(max_examples=150, deadline=None)
@given(sets)
def test_every_file_has_one_state_and_no_pixels_are_included_twice(items):
    judgement = judge(items, RULES)
    assert len(judgement.faults) == len(items)
    included = []
    for item, fault in zip(items, judgement.faults, strict=True):
        assert fault is None or (fault[0] in REASONS and fault[1])
        own = min(
            (REASONS.index(name) for name, _ in eligibility._own_faults(item, RULES)), default=99
        )
        assert fault is not None if own < 99 else True
        assert fault is None or REASONS.index(fault[0]) <= own
        if fault is None:
            included.append(item)
    assert len({item.measures.pixel_hash for item in included}) == len(included)


@settings(max_examples=100, deadline=None)
@given(sets)
def test_an_excluded_copy_was_excluded_for_a_kept_one(items):
    """No picture vanishes: `duplicate` is given only where another copy is included."""
    judged = list(zip(items, judge(items, RULES).faults, strict=True))
    kept = {item.measures.pixel_hash for item, fault in judged if fault is None}
    for item, fault in judged:
        if fault is not None and fault[0] == "duplicate":
            assert item.measures.pixel_hash in kept


@settings(max_examples=100, deadline=None)
@given(sets, st.randoms(use_true_random=False))
def test_order_and_renamed_patients_change_nothing(items, rng: random.Random):

    before = judge(items, RULES)
    order = rng.sample(range(len(items)), len(items))
    renamed = [
        replace(
            item, entry=replace(item.entry, patient=item.entry.patient and f"~{item.entry.patient}")
        )
        for item in items
    ]
    after = judge([renamed[i] for i in order], RULES)
    for name in ("faults", "patient_ids", "group_ids"):
        assert getattr(after, name) == [getattr(before, name)[i] for i in order]


@settings(max_examples=100, deadline=None)
@given(sets)
def test_what_shares_a_patient_or_pixels_shares_its_group(items):
    judgement = judge(items, RULES)
    rows = list(zip(items, judgement.patient_ids, judgement.group_ids, strict=True))
    for left, left_patient, left_group in rows:
        assert (left_group is None) == (left.image_id is None)
        for right, right_patient, right_group in rows:
            same_patient = left_patient is not None and left_patient == right_patient
            same_pixels = left.measures and right.measures
            same_pixels = same_pixels and left.measures.pixel_hash == right.measures.pixel_hash
            if left_group and right_group and (same_patient or same_pixels):
                assert left_group == right_group
