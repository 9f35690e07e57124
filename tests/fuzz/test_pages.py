"""Whatever a system, a file or a data set is called, a page shows it as text."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bench.reporting.html import render_page
from bench.reporting.markdown import escape
from bench.reporting.tables import Column, Table, to_markdown
from tests.fuzz.mutations import HOSTILE
from tests.reporting.test_html import PAGE, PAGES, Elements

PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from([text for text in HOSTILE if isinstance(text, str)]),
    st.sampled_from(
        ["`", "```", "|", "](javascript:alert(1))", "[x]", "<a id=", '"', "'>", "&lt;", "<!--", "\n\n", "#"]
    ),
)
NAMES = st.lists(PIECES, max_size=6).map(lambda pieces: f"a{''.join(pieces)}b")


def elements_of(name: str) -> list[tuple[str, list[str]]]:
    """Tags with the names of their attributes, of a page that has the name in every place."""
    table = Table("t", name, [Column("system", name)], [{"system": name}])
    page = f"# {escape(name)}\n\n{to_markdown(table)}\n\n- {escape(name)}\n"
    html = render_page(Path(), [PAGE._replace(label=name), *PAGES], PAGE, page, {})
    return [(tag, sorted(attributes)) for tag, attributes in Elements(html).found]


@given(name=NAMES)
def test_a_name_makes_no_element_and_no_attribute(name: str) -> None:
    assert elements_of(name) == elements_of("plain")
