"""Markdown as HTML: what comes through, what is escaped, and what tables sort by."""

import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup
from PIL import Image

from bench.errors import UserError
from bench.reporting.html import Page, link, render_page, sort_key, template, to_body
from bench.reporting.markdown import FEW_MARK, escape
from bench.reporting.tables import Column, Table, to_markdown

HOSTILE = "<script>alert(1)</script>\"'&|`*"
PAGE = Page("demo/systems/README.md", "demo/html/systems.html", "Systems")
RUNS = Page("demo/runs/README.md", "demo/html/runs.html", "Runs")
RUN = Page("demo/runs/hrnet-0/README.md", "demo/html/runs/hrnet-0.html", "hrnet-0", in_menu=False)
PAGES = [PAGE, RUNS, RUN]


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(str(html))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


def body(text: str, root: Path = Path(), page: Page = PAGE, **inserts: Markup) -> Elements:
    return Elements(to_body(root, PAGES, page, text, inserts).html)


def test_a_hostile_name_is_text_wherever_it_stands(tmp_path: Path) -> None:
    table = Table("t", HOSTILE, [Column("system", HOSTILE)], [{"system": HOSTILE}])
    page = f"# {escape(HOSTILE)}\n\n{to_markdown(table)}\n\n- {escape(HOSTILE)}\n"
    html = render_page(tmp_path, [PAGE._replace(label=HOSTILE), *PAGES], PAGE, page, {})
    found = Elements(html)
    assert [attrs.get("src") for attrs in found.of("script")] == ["../../assets/site.js"]
    assert found.text.count(HOSTILE) == 7  # title, menu, contents below, caption, header, cell, list
    assert found.of("div")[0]["aria-label"] == HOSTILE


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "<img src=x onerror=alert(1)>",
        "a <b onclick='x'>word</b>",
        "<details open ontoggle=alert(1)><summary>x</summary>",
        '<a id="x" onclick="alert(1)"></a>',
        '<a id="x"></a><script>alert(1)</script>',
        "<style>*{}</style>",
        "[x](javascript:alert(1))",
    ],
)
def test_html_that_nobody_escaped_is_shown_as_text(text: str) -> None:
    assert {tag for tag, _ in body(text).found} <= {"p", "code", "em"}


def test_what_our_pages_use_comes_through() -> None:
    text = '<details><summary>Numbers</summary>\n\n**bold**\n\n</details>\n\n<a id="here"></a>\n\n## A `code` heading\n'
    found = body(text, here=Markup("<section>inserted</section>"))
    assert [tag for tag, _ in found.found] == ["details", "summary", "p", "strong", "a", "section", "h2", "code"]
    assert found.of("a") == [{"id": "here"}]
    assert found.of("h2") == [{"id": "a-code-heading"}]


def test_headings_of_one_name_have_anchors_of_their_own() -> None:
    assert [attrs["id"] for attrs in body("## Same\n\n## Same\n\n### Same\n").of("h2")] == ["same", "same-1"]


def test_a_table_has_its_caption_its_box_and_its_keys() -> None:
    found = body("**Title, of a *table***\n\n| a | b |\n|:--|--:|\n| x_1 | 61.2 [58.6, 63.6] |\n| y | \N{EN DASH} |\n")
    assert [tag for tag, _ in found.found][:3] == ["div", "table", "caption"]
    assert found.of("div") == [
        {"class": "scroll", "role": "region", "tabindex": "0", "aria-label": "Title, of a table"}
    ]
    assert [attrs.get("data-key") for attrs in found.of("td")] == [None, "61.2", None, ""]
    assert all(attrs["scope"] == "col" for attrs in found.of("th"))


def test_numbers_on_few_keypoints_are_grey_and_still_sort() -> None:
    cells = body(f"| a | b |\n|--:|--:|\n| 61.2 [58.6, 63.6] {FEW_MARK} | 61.2 |\n").of("td")
    assert [cell.get("data-key") for cell in cells] == ["61.2", "61.2"]
    assert [cell.get("class") for cell in cells] == ["few", None]


def test_a_bold_line_that_is_no_title_stays() -> None:
    found = body("**bold** and more\n\n| a |\n|---|\n| 1 |\n")
    assert not found.of("caption")
    assert "bold and more" in found.text


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("61.2 [58.6, 63.6]", 61.2),
        ("-0.1 [-1.6, +1.1]", -0.1),
        ("+3.6 [+2.2, +5.1]", 3.6),
        ("1790", 1790.0),
        (" 1e-4 ", 1e-4),
        ("64 x 96", None),
        ("v = 2", None),
        ("", None),
        ("4 of 12", None),
    ],
)
def test_sort_keys(text: str, key: float | None) -> None:
    assert sort_key(text) == key


def test_the_key_of_what_is_undefined() -> None:
    assert math.isnan(sort_key("\N{EN DASH}") or 0.0)


def test_links_and_images_are_those_of_the_html(tmp_path: Path) -> None:
    folder = tmp_path / "demo/systems"
    folder.mkdir(parents=True)
    (folder / "a b.csv").write_text("")
    Image.new("RGB", (300, 150)).save(folder / "figure.png", dpi=(150, 150))
    text = (
        "[runs](../runs/README.md#x-y) [csv](a%20b.csv) [top](#top) [out](https://example.org/x)\n\n![It](figure.png)\n"
    )
    found = body(text, tmp_path)
    assert [attrs["href"] for attrs in found.of("a")] == [
        "runs.html#x-y", "../systems/a%20b.csv", "#top", "https://example.org/x", "../systems/figure.png",
    ]  # fmt: skip
    (image,) = found.of("img")
    assert image == {"src": "../systems/figure.png", "alt": "It", "width": "192", "height": "96", "loading": "lazy"}


def test_a_broken_link_or_image_is_named_with_its_page(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"demo/systems/README\.md: links to \.\./none\.csv, which is not there: run"):
        body("[x](../none.csv)", tmp_path)
    (tmp_path / "demo/systems").mkdir(parents=True)
    (tmp_path / "demo/systems/x.png").write_text("no image")
    with pytest.raises(UserError, match=r"x\.png: cannot be read as an image"):
        body("![x](x.png)", tmp_path)


def test_the_menu_marks_the_page_and_what_it_belongs_to(tmp_path: Path) -> None:
    marked = {
        page.label: [
            attrs
            for attrs in Elements(render_page(tmp_path, PAGES, page, "# x", {})).of("a")
            if "aria-current" in attrs
        ]
        for page in PAGES
    }
    assert marked["Systems"] == [{"href": "systems.html", "aria-current": "page"}]
    assert marked["hrnet-0"] == [{"href": "../runs.html", "aria-current": "true"}]


def test_links_between_pages_are_relative() -> None:
    assert link(RUN, "index.html") == "../../../index.html"
    assert link(Page("README.md", "index.html", ""), "demo/html/runs.html") == "demo/html/runs.html"


def test_data_in_a_script_cannot_end_it() -> None:
    explored = {"num_persons": 1, "sources": [{"label": f"</script>{HOSTILE}", "policies": {}}]}
    html = template(
        "explorer.html", explored=explored, policies={HOSTILE: HOSTILE}, policy=HOSTILE, keypoints=[HOSTILE],
        metrics={}, seed=0, figure="x.png", size=(1, 1),
    )  # fmt: skip
    found = Elements(html)
    assert found.of("script") == [{"type": "application/json", "id": "explorer-data"}]
    assert html.count("</script>") == 1
