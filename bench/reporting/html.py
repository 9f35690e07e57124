"""HTML pages: the Markdown of the reports as one static site that needs neither a server nor a network.

Our own Markdown is the only source. Of HTML in it, just what our pages use comes through (`DETAILS`, and an
`ANCHOR` alone in its paragraph); all else is shown as text.
"""

import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token
from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from bench.errors import UserError
from bench.reporting.markdown import FEW_MARK, UNDEFINED

TEMPLATES = Path(__file__).parent / "site"
ASSETS = ("site.css", "site.js", "explorer.js")
ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    undefined=StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "allow_nan": False}

DETAILS = re.compile(r"<details><summary>[^<>]*</summary>|</details>")
ANCHOR = re.compile(r'<a id="([\w-]+)"></a>')
CSS_DPI = 96
DIGITS = re.compile(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: \[.*\])?")


class Page(NamedTuple):
    """One page, both files relative to the reports' folder, as POSIX paths."""

    source: str  # the Markdown; where its links start from
    target: str  # the HTML
    label: str  # in the navigation
    in_menu: bool = True


class Section(NamedTuple):
    """A heading that the page's own contents list."""

    anchor: str
    title: str


class Body(NamedTuple):
    """What Markdown became."""

    title: str
    html: Markup
    sections: list[Section]


def template(name: str, **values: Any) -> Markup:
    """A template of `bench/reporting/site`; values are escaped unless they are `Markup`."""
    return Markup(ENVIRONMENT.get_template(name).render(**values))


def render_page(root: Path, pages: Sequence[Page], page: Page, text: str, inserts: Mapping[str, Markup]) -> str:
    """The whole page. `inserts` maps anchors of the Markdown to what stands there in HTML alone.

    Raises:
        UserError: the Markdown links to a file, or shows an image, that is not there.
    """
    body = to_body(root, pages, page, text, inserts)
    menu = [(entry.label, link(page, entry.target), _current(entry, page)) for entry in pages if entry.in_menu]
    html = template(
        "layout.html",
        title=body.title,
        body=body.html,
        sections=body.sections,
        menu=menu,
        assets=link(page, "assets"),
        scripts=[name for name in ASSETS if name.endswith(".js")] if inserts else ["site.js"],
        source=link(page, page.source) if (root / page.source).is_file() else None,
    )
    return str(html)


def _current(entry: Page, page: Page) -> str:
    """The value of aria-current: this page, or one that belongs to it, as a run belongs to all runs."""
    if entry == page:
        return "page"
    return "true" if page.target.startswith(f"{entry.target.removesuffix('.html')}/") else ""


def link(page: Page, target: str) -> str:
    """From a page to a file of the reports' folder."""
    return posixpath.relpath(target, posixpath.dirname(page.target) or ".")


def to_body(root: Path, pages: Sequence[Page], page: Page, text: str, inserts: Mapping[str, Markup]) -> Body:
    """Markdown as HTML, with links and images as seen from the page's HTML.

    Raises:
        UserError: see `render_page`.
    """
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = parser.parse(text)
    _clean_html(tokens, inserts)
    targets = {entry.source: entry.target for entry in pages}
    for token in tokens:
        if token.children:
            token.children = _relinked(root, targets, page, token.children)
    sections = _anchor_headings(tokens)
    title = next((_plain(after) for token, after in pairwise(tokens) if token.tag == "h1"), "")
    html = parser.renderer.render(_boxed_tables(tokens), parser.options, {})
    return Body(title, Markup(html), sections)


def _clean_html(tokens: Sequence[Token], inserts: Mapping[str, Markup]) -> None:
    """Escape HTML of the Markdown unless it is known; put `inserts` behind their anchors."""
    for i, token in enumerate(tokens):
        if token.type == "html_block" and not DETAILS.fullmatch(token.content.strip()):
            token.content = f"<p>{escapeHtml(token.content)}</p>\n"
        elif token.type == "inline" and (anchor := ANCHOR.fullmatch(token.content)):
            html = token.content + str(inserts.get(anchor[1], ""))  # Markup would escape what it is added to
            token.children = [Token("html_inline", "", 0, content=html)]
            tokens[i - 1].hidden = tokens[i + 1].hidden = True  # the paragraph around it
        else:
            for child in token.children or ():
                if child.type == "html_inline":
                    child.content = escapeHtml(child.content)


def _plain(inline: Token) -> str:
    """The text of what stands in a line."""
    return "".join(child.content for child in inline.children or ())


def _anchor_headings(tokens: Sequence[Token]) -> list[Section]:
    """Give every heading the id that forges give it; the second level is what the page's contents list."""
    sections, seen = [], dict[str, int]()
    for token, after in pairwise(tokens):
        if token.type != "heading_open" or token.tag == "h1":
            continue
        title = _plain(after)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
        anchor = f"{slug}-{seen[slug]}" if seen[slug] else slug
        token.attrSet("id", anchor)
        if token.tag == "h2":
            sections.append(Section(anchor, title))
    return sections


def _relinked(root: Path, targets: Mapping[str, str], page: Page, tokens: Sequence[Token]) -> list[Token]:
    """Links and images as seen from the page's HTML; an image is a link to itself, to be looked at in full size."""
    found: list[Token] = []
    for token in tokens:
        if token.type == "link_open":
            token.attrSet("href", _href(root, targets, page, str(token.attrGet("href"))))
        if token.type != "image":
            found.append(token)
            continue
        source = _href(root, targets, page, str(token.attrGet("src")))
        width, height = css_size(root / _resolve(page, str(token.attrGet("src"))))
        token.attrs |= {"src": source, "width": width, "height": height, "loading": "lazy"}
        found += [Token("link_open", "a", 1, attrs={"href": source, "class": "figure"}), token]
        found.append(Token("link_close", "a", -1))
    return found


def _resolve(page: Page, href: str) -> str:
    """The file that a link of the Markdown leads to, relative to the reports' folder."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page.source), unquote(urlsplit(href).path)))


def _href(root: Path, targets: Mapping[str, str], page: Page, href: str) -> str:
    parts = urlsplit(href)
    if parts.scheme or not parts.path:
        return href
    file = _resolve(page, href)
    if file not in targets and not (root / file).exists():
        raise UserError(f"{root / page.source}: links to {href}, which is not there: run `dvc repro`")
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return quote(link(page, targets.get(file, file))) + fragment


def css_size(file: Path) -> tuple[int, int]:
    """Width and height that an image is meant to have on a page.

    Raises:
        UserError: it is no image.
    """
    try:
        with Image.open(file) as image:
            dpi = image.info.get("dpi", (CSS_DPI, CSS_DPI))
            width, height = (
                round(pixels * CSS_DPI / per_inch) for pixels, per_inch in zip(image.size, dpi, strict=True)
            )
            return width, height
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{file}: cannot be read as an image, wanted a figure: run `dvc repro`") from error


def _boxed_tables(tokens: Sequence[Token]) -> list[Token]:
    """Every table in a box that scrolls, its title (a bold line above it) its caption, with keys to sort by."""
    found: list[Token] = []
    for i, token in enumerate(tokens):
        if token.type == "table_open":
            title = _take_title(found)
            found += _open_box(title, token)
        elif token.type == "table_close":
            found += [token, Token("html_box_close", "div", -1, block=True)]
        else:
            if token.type == "th_open":
                token.attrSet("scope", "col")
            elif token.type == "td_open":
                _annotate_cell(token, _plain(tokens[i + 1]))
            found.append(token)
    return found


def _annotate_cell(cell: Token, text: str) -> None:
    """By what it is sorted, and whether it stands on too little."""
    if (key := sort_key(text.removesuffix(FEW_MARK))) is not None:
        cell.attrSet("data-key", str(key) if math.isfinite(key) else "")
    if text.endswith(FEW_MARK):
        cell.attrSet("class", "few")


def _take_title(tokens: list[Token]) -> Token | None:
    """The bold line at the end of `tokens`, which it leaves; None where there is none."""
    if len(tokens) < 3 or tokens[-1].type != "paragraph_close" or tokens[-3].type != "paragraph_open":
        return None
    parts = [child.type for child in tokens[-2].children or () if child.content or child.type != "text"]
    if parts[:1] != ["strong_open"] or parts[-1] != "strong_close" or parts.count("strong_open") > 1:
        return None
    title = tokens[-2]
    del tokens[-3:]
    return title


def _open_box(title: Token | None, table: Token) -> list[Token]:
    label = _plain(title) if title else "Table"
    box: dict[str, str | int | float] = {"class": "scroll", "role": "region", "tabindex": "0", "aria-label": label}
    opened = [Token("html_box_open", "div", 1, attrs=box, block=True), table]
    if title:
        opened += [
            Token("caption_open", "caption", 1, block=True),
            title,
            Token("caption_close", "caption", -1, block=True),
        ]
    return opened


def sort_key(text: str) -> float | None:
    """What a cell of a table is sorted by: `61.2 [58.6, 63.6]` by 61.2; text has none, an undefined number NaN."""
    if text.strip() == UNDEFINED:
        return math.nan
    number = DIGITS.fullmatch(text.strip())
    return float(number[1]) if number else None


def write_assets(folder: Path) -> None:
    """Style and scripts, which all pages share."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        (folder / name).write_bytes((TEMPLATES / name).read_bytes())
