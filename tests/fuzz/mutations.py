"""What can be wrong with a file: random changes of one that is right."""

import copy
import json
from typing import Any

from hypothesis import strategies as st

HOSTILE = (
    "<script>alert(1)</script>", "../../outside", "/etc/passwd", "a\nb", "\x00", "\u202egnp", "\U0001d542", "a" * 9999,
    "", 2**63, -(2**63), 10**400, -1, 0, 1e308, float("nan"), float("inf"), [], {}, [[]], None, True,
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(HOSTILE),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(-9, 9), max_size=60),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
Path = tuple[Any, ...]


def places(tree: Any, path: Path = ()) -> list[Path]:
    """Of everything in a tree of mappings and lists, itself included."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def parent_of(tree: Any, path: Path) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


@st.composite
def changed_trees(draw: st.DrawFn, tree: Any) -> Any:
    """One to three values replaced, left out or repeated, or keys renamed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(tree)))
        if not path:
            tree = draw(st.one_of(VALUES, st.just(tree)))
            continue
        parent, key = parent_of(tree, path), path[-1]
        change = draw(st.sampled_from(["replace", "remove", "repeat", "add"]))
        if change == "replace":
            parent[key] = draw(VALUES)
        elif change == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]) if change == "repeat" else draw(VALUES))
        else:
            parent[draw(st.text(max_size=9))] = parent.pop(key) if change == "repeat" else draw(VALUES)
    return tree


def changed_json(tree: Any) -> st.SearchStrategy[bytes]:
    """As text, whose own bytes are changed too at times."""
    texts = changed_trees(tree).map(lambda changed: json.dumps(changed).encode())
    return st.one_of(texts, texts, changed_bytes(json.dumps(tree).encode()))


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Some bytes overwritten, put in or cut away, at the beginning more often, where formats keep their sizes."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        last = draw(st.sampled_from([64, 1024, len(changed)]))
        place = draw(st.integers(0, max(0, min(last, len(changed)) - 1)))
        piece = draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8])))
        change = draw(st.sampled_from(["overwrite", "insert", "remove", "cut"]))
        if change == "overwrite":
            changed[place : place + len(piece)] = piece
        elif change == "insert":
            changed[place:place] = piece
        elif change == "remove":
            del changed[place : place + len(piece)]
        else:
            del changed[place:]
    return bytes(changed)
