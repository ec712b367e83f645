"""A good document, wrong in one to four places: values at the edges, of other types, too many, too deep, or gone."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]
Draw = st.DrawFn

DEEP = 10_000
NUMBERS = ("0", "-0", "-0.0", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "1E2", "0.5", "-1", "1.0", "2147483647")
BIG = ("2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 5000, "1e308")
NESTED = (
    "[" * DEEP + "]" * DEEP,
    '{"a":' * DEEP + "1" + "}" * DEEP,
    "[" * 900 + "]" * 900,
    '{"a":' * 600 + "1" + "}" * 600,
)
TEXTS = (
    '""',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\u0000"',
    '"\\u202ea.b"',
    '"\\ufeff"',
    '"é\U0001f600"',
    '"a\\nb"',
    '"1"',
)
OTHERS = (
    "null",
    "true",
    "[]",
    "{}",
    "[null]",
    '{"":null}',
    '{"a":1,"a":2}',
    '{"\\ud800":"\\ud800"}',
    '{"\\u0000":"a"}',
)
RAW = (*NUMBERS, *BIG, *NESTED, *TEXTS, *OTHERS, json.dumps("x" * 100_000), json.dumps("$(" * 1000))
"""JSON texts, and some that are none."""

VALUES = (
    st.sampled_from(RAW) | st.text(max_size=8).map(json.dumps) | st.integers().map(str) | st.floats().map(json.dumps)
)


@st.composite
def texts(draw: Draw, document: Any, *, keys: Sequence[str] = ()) -> str:
    """The JSON of the document after some changes. ``keys``: names that it knows beside those which it has."""
    document = copy.deepcopy(document)
    raw: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(list(paths(document))))
        change(draw, document, path, keys, raw)
    text = json.dumps(document)
    for mark, value in raw:
        text = text.replace(json.dumps(mark), value)
    return text


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Of all that there is below the root."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from paths(inner, (*at, key))


def change(draw: Draw, document: Any, path: Path, keys: Sequence[str], raw: list[tuple[str, str]]) -> None:
    """One change at the path; a mark in the document stands for each text of ``raw``."""
    parent: Any = at(document, path[:-1])
    key: Any = path[-1]
    mark = f"mark {len(raw)}."
    kind = draw(st.sampled_from(["value", "value", "value", "remove", "add", "swap"]))
    if kind == "remove":
        del parent[key]
    elif kind == "swap":
        everything = list(paths(document))
        parent[key] = copy.deepcopy(at(document, draw(st.sampled_from(everything)))) if everything else None
    elif kind == "add" and isinstance(parent, list):
        parent.extend(copy.deepcopy(parent[key]) for _ in range(draw(st.sampled_from([1, 1, 1000]))))
    else:
        raw.append((mark, draw(VALUES)))
        if kind == "value":
            parent[key] = mark
        else:
            parent[draw(st.sampled_from([*keys, "a", "\0", "x" * 300]) | st.text(max_size=5))] = mark


def at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value
