"""The words of the pages follow from their rows."""

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from bench.reporting.markdown import (
    escape,
    fresh_folder,
    how_to_read,
    limits,
    mismatch_note,
    people_of,
    provenance,
    render,
)
from bench.reporting.rows import Row
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
    note = mismatch_note([with_protocol("a"), with_protocol("b", flip_test=False), with_protocol("c")])
    assert note.splitlines()[0].startswith("> **Not all rows")
    assert "> - protocol.flip_test: a, c: True; b: False" in note


def test_different_data_are_named_too() -> None:
    row = make_row("b")
    other = row.model_copy(update={"data": row.data.model_copy(update={"sha256": "e" * 64})})
    assert f"data.sha256: a: {'d' * 64}; b: {'e' * 64}" in mismatch_note([make_row("a"), other])


def test_provenance_says_a_shared_fact_once_and_names_who_differs() -> None:
    text = provenance([with_protocol("a", 0), with_protocol("a", 1, codec="other"), with_protocol("b", 0)])
    assert "- training seeds: 0, 1" in text
    assert f"- code sha256: {'c' * 64}" in text
    assert "a (seed 0), b: udp, sigma 4 input px; a (seed 1): other" in text


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
    assert "95 % intervals" in one
    assert "±" not in one
    assert "±" in two


def test_a_fresh_folder_drops_what_was_generated_and_no_more(tmp_path: Path) -> None:
    for name in ("old.md", "old.csv", "old.png", ".gitignore"):
        (tmp_path / name).touch()
    fresh_folder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [".gitignore"]
