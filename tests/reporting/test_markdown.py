"""The words of the pages follow from their rows."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from bench.reporting.markdown import (
    empty_class_note,
    escape,
    fresh_folder,
    how_to_read,
    how_to_read_differences,
    limits,
    mismatch_note,
    no_threshold_note,
    notes,
    one_line,
    people_of,
    provenance,
    render,
)
from bench.reporting.rows import Protocol, Row
from tests.reporting.fake_runs import make_row


def with_protocol(name: str, seed: int = 0, **changes: object) -> Row:
    row = make_row(name, seed)
    return row.model_copy(update={"protocol": row.protocol.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("vitpose_presence", "vitpose_presence"),
        ("a|b", r"a\|b"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("*x* _y_ [z](u)", r"\*x\* \_y\_ \[z\](u)"),
        ("two\nlines", "two lines"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_a_page_without_its_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("{{ nothing }}")


def test_equal_protocols_need_no_note() -> None:
    assert mismatch_note([with_protocol("a"), with_protocol("b")]) == ""


def test_different_protocols_are_named_above_the_table() -> None:
    note = mismatch_note([with_protocol("a"), with_protocol("b", flip_test="none"), with_protocol("c")])
    assert note.splitlines()[0].startswith("> **Not all rows")
    assert "> - protocol.flip_test: a, c: mirrored; b: none" in note
    assert len(note.splitlines()) == 3


@pytest.mark.parametrize("key", list(Protocol.model_fields))
def test_every_part_of_the_protocol_must_agree(key: str) -> None:
    assert f"> - protocol.{key}: " in mismatch_note([with_protocol("a"), with_protocol("b", **{key: "other"})])


def test_different_data_are_named_too() -> None:
    row = make_row("b")
    other = row.model_copy(update={"data": row.data.model_copy(update={"sha256": "e" * 64})})
    assert f"data.sha256: a: {'d' * 64}; b: {'e' * 64}" in mismatch_note([make_row("a"), other])


def test_provenance_says_a_shared_fact_once_and_names_who_differs() -> None:
    text = provenance([with_protocol("a", 0), with_protocol("a", 1, codec="other"), with_protocol("b", 0)])
    assert "- training seeds: 0, 1" in text
    assert f"- code sha256: {'c' * 64}" in text
    assert "a (seed 0), b: udp, sigma 4 input px; a (seed 1): other" in text
    assert "- protocol, oks_nms: none" in text
    assert "- protocol, intervals: percentile, 60 resamples of the images, seed 0" in text


def test_pages_do_not_say_when_they_were_made() -> None:
    """They must come out the same whenever that is; the row keeps it."""
    row = make_row("a")
    later = row.model_copy(
        update={
            "provenance": row.provenance.model_copy(
                update={"evaluated_at": "2027-02-03T04:05:06+00:00", "code_revision": "9" * 40, "trained_seconds": 1.25}
            )
        }
    )
    assert provenance([later]) == provenance([row])
    assert mismatch_note([row, later]) == ""


def test_the_facts_of_a_page_on_one_line() -> None:
    rows = [make_row(name, seed) for name in ("a", "b") for seed in (0, 1)]
    assert one_line(rows) == (
        "2 systems, training seeds 0, 1, tested on drawn people: 12 persons in 29 images, 170 keypoints present and 34 "
        "absent (policy labelled)."
    )
    assert one_line(rows[:1]).startswith("1 system, training seed 0, tested on")


def test_limits_follow_from_the_rows() -> None:
    drawn = limits([with_protocol("a", init="warmstart")])
    assert "drawn by a program" in drawn
    assert "models/warmstart/" in drawn
    row = make_row("a", num_parameters=90_000_000)
    coco = row.model_copy(update={"data": row.data.model_copy(update={"source": "coco", "name": "COCO 2017"})})
    published = coco.model_copy(update={"protocol": row.protocol.model_copy(update={"init": "random"})})
    text = limits([published])
    assert not any(word in text for word in ("drawn", "warmstart", "models are small"))
    assert people_of([published]) == "photographed people"


def test_reading_help_names_what_the_cells_hold() -> None:
    one, two = how_to_read([make_row("a")]), how_to_read([make_row("a"), make_row("a", 1)])
    assert "Brackets are **95 % intervals**" in one
    assert "(percentile, 60 resamples of the images, seed 0)" in one
    assert "They know nothing of another training seed." in one
    assert "Numbers are means over training seeds. Brackets are **95 % intervals** of a hierarchical bootstrap" in two
    assert "know nothing" not in two
    assert "±" not in one + two  # no cell holds a spread any more


def test_reading_help_for_differences_names_tests_and_family() -> None:
    text = how_to_read_differences(1000, "one table")
    assert "by coin, 1000 times" in text
    assert "corrects for all lines of one table" in text
    assert "{" not in text


def test_limits_name_a_single_seed_and_given_boxes() -> None:
    one, two = limits([make_row("a")]), limits([make_row("a"), make_row("a", 1)])
    assert "There is one training seed" in one
    assert "There is one training seed" not in two
    assert one.endswith("Boxes are given, not detected.")
    assert "Boxes are given" not in limits([with_protocol("a", boxes="detected")])


def test_a_fresh_folder_drops_what_was_generated_and_no_more(tmp_path: Path) -> None:
    for name in ("old.md", "old.csv", "old.png", ".gitignore"):
        (tmp_path / name).touch()
    fresh_folder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".gitignore"]


def with_data(name: str, **changes: object) -> Row:
    row = make_row(name)
    return row.model_copy(update={"data": row.data.model_copy(update=changes)})


def test_both_classes_need_no_note() -> None:
    assert empty_class_note([make_row("a")]) == no_threshold_note([make_row("a")]) == notes([make_row("a")]) == ""


@pytest.mark.parametrize(
    ("num_present", "num_absent", "lacking"),
    [(204, 0, "no absent"), (0, 204, "no present"), (0, 0, "no present and no absent")],
)
def test_an_empty_class_is_said_once(num_present: int, num_absent: int, lacking: str) -> None:
    rows = [with_data(name, num_present=num_present, num_absent=num_absent) for name in ("a", "b")]
    note = empty_class_note(rows)
    assert note.startswith(f"> **val has {lacking} keypoint under policy labelled**, so nothing there tells present")
    assert note.count("val has") == 1
    assert note.endswith("An en dash (\N{EN DASH}) stands for what is undefined.")
    assert no_threshold_note(rows) == ""


def test_keypoints_of_one_class_are_named() -> None:
    prevalence = [*make_row("a").data.prevalence[:15], 0.0, 1.0]
    note = empty_class_note([with_data("a", prevalence=prevalence)])
    assert "of these keypoints under policy labelled: left ankle, right ankle**" in note


def test_a_missing_threshold_has_its_reason() -> None:
    row = make_row("a")
    without = row.model_copy(update={"thresholds": dict.fromkeys(row.thresholds)})
    assert "**calibration has no present keypoint under policy labelled**" in no_threshold_note([row, without])
    assert notes([without]) == empty_class_note([without]) == no_threshold_note([without])
