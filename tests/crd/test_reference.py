"""The reference pages say what the product goes by, and have words for all of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crd.reference.__main__ import DIRECTORY, PAGES
from crd.reference.tables import kind, table
from crd.reference.values import CHART, Value, read


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_what_the_generator_makes(name: str) -> None:
    assert (DIRECTORY / name).read_text(encoding="utf-8") == PAGES[name](), "run make docs"


def test_no_row_lacks_words() -> None:
    texts = [(DIRECTORY / name).read_text(encoding="utf-8") for name in PAGES]
    rows = [line for text in texts for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_value_of_the_chart_has_a_comment() -> None:
    def flat(values: list[Value]) -> Iterator[Value]:
        for value in values:
            yield value
            yield from flat(value.inside)

    values = list(flat(read((CHART / "values.yaml").read_text(encoding="utf-8"))))
    assert [value.path for value in values if not value.words] == []


def test_a_comment_belongs_to_the_key_below_it() -> None:
    (outer,) = read("# Of the whole.\na:\n  # Two\n  # lines.\n  b: 1\n\n  # Apart.\n\n  c: []\n")
    assert outer.words == "Of the whole."
    assert [(each.path, each.words, each.default) for each in outer.inside] == [
        ("a.b", "Two lines.", 1),
        ("a.c", "", []),
    ]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 65535}, "integer, at least 1, at most 65,535"),
        ({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "integer, at least 0"),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1}, "number, above 0, at most 1"),
        ({"type": "number", "exclusiveMinimum": 0}, "number, above 0"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string"),
        ({"type": "array", "items": {"$ref": "#/$defs/name"}}, "list of string"),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
        ({"type": ["integer", "string"]}, "integer or string"),
    ],
)
def test_types_in_words(schema: dict[str, object], words: str) -> None:
    assert kind(schema, {"name": {"type": "string"}}) == words


def test_what_would_break_a_table_is_escaped() -> None:
    assert table(["a"], [["x|y\nz"]]).splitlines()[-2] == "| x\\|y z |"
