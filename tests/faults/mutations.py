"""Valid inputs with a few things wrong: bytes changed in places, settings changed in places."""

import copy
from typing import Any

from hypothesis import strategies as st

PIECES = [
    b"",
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\t",
    b'"',
    b",",
    b"\\",
    b"{",
    b"}",
    b"[" * 200,
    b"\x80\x04",
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PAR1",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xa3",
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 5000,
]
"""What a change puts in: what the formats give a meaning, and sizes that no file has."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "all-linear", "lora", "imported", "5e-5", "(", "(?i)a", "a{9999999999}"]),
    st.sampled_from(
        [0, -1, 10**400, 2**63, float("nan"), float("inf"), "x" * 5000, "a\0b", "\u202e"]
    ),
)
KEYS = st.integers() | st.booleans() | st.sampled_from(["lora", "r", "methods", "<<", "a.b"])
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Return `content` with up to four stretches left out, replaced or put in."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([0, 1, 1, 2, 4, 8, 100, len(content)]))
        piece = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=8))
        content = content[:start] + piece + content[start + length :]
    return content


@st.composite
def changed_tree(draw: st.DrawFn, tree: Any) -> Any:
    """Return a copy of nested dicts and lists with up to four values or keys changed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(tree))
        holder, key = draw(st.sampled_from(places))
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "remove":
            del holder[key]
        elif action == "replace" or not isinstance(holder, dict):
            holder[key] = draw(TREES)
        else:
            holder[draw(st.text(max_size=8))] = draw(TREES)
        if not tree:
            break
    return tree


def _places(tree: Any) -> Any:
    """Yield every holder and key below `tree`."""
    pairs = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    for key, value in pairs:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
