"""YAML of people's making, read so that no text raises anything but YamlError, in bounded time and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import yaml

LIMIT = 1 << 20
"""Characters; a ConfigMap holds no more."""


class YamlError(Exception):
    """The text cannot be used: in ``line`` and ``column``, ``why``."""

    def __init__(self, line: int, why: str, *, column: int = 1) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.column = column
        self.why = why


class Place(NamedTuple):
    """A part of a text; lines and columns count from 1, and the end is behind the last character."""

    line: int
    column: int
    end_line: int
    end_column: int


def read(text: str) -> tuple[yaml.Node | None, Any]:
    """The document, as nodes that know their lines and as plain values. Raises YamlError.

    Aliases share what they name, so they cost nothing until somebody follows each of them.
    """
    with _explained(text):
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_duplicate_keys(node)
        return node, None if node is None else yaml.SafeLoader("").construct_document(node)


def read_all(text: str, *, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Iterator[tuple[yaml.Node, Any]]:
    """Each document of a stream, as ``read`` does it; raises YamlError when it comes to one that cannot be used."""
    with _explained(text):
        for node in yaml.compose_all(text, Loader=loader):
            _refuse_duplicate_keys(node)
            yield node, loader("").construct_document(node)


def place(root: yaml.Node | None, parts: Sequence[int | str], *, key_itself: bool = False) -> Place:
    """Where the value at ``parts`` (keys, and positions in lists) is: a scalar itself if it is on one line, else its
    key; always the key with ``key_itself``.

    Where there is no such value, its nearest parent's.
    """
    key, node = root, root
    for part in parts:
        found = _child(node, part)
        if found is None:
            break
        key, node = found
    else:
        if not key_itself and isinstance(node, yaml.ScalarNode) and node.start_mark.line == node.end_mark.line:
            key = node
    if key is None:
        return Place(1, 1, 1, 1)
    start = key.start_mark
    end = key.end_mark if key.end_mark.line == start.line else start
    return Place(start.line + 1, start.column + 1, end.line + 1, end.column + 1)


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


@contextlib.contextmanager
def _explained(text: str) -> Iterator[None]:
    if len(text) > LIMIT:
        raise YamlError(1, f"longer than {LIMIT} characters")
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise YamlError(line, f"not valid YAML: {error.problem}", column=column) from error
    except yaml.YAMLError as error:
        raise YamlError(1, f"not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise YamlError(1, "nested too deeply") from error
    except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
        # What int(), date() and the like say of a number, a date or a tag: PyYAML lets it through.
        raise YamlError(1, f"not valid YAML: {error}") from error


def _refuse_duplicate_keys(root: yaml.Node | None) -> None:
    """YAML takes the last of two equal keys without a word; a setting that is silently dropped is a mistake."""
    stack: list[Any] = [root]
    visited: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in visited:
            continue  # aliases make it part of others, or of itself
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                stack.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue
                mark = key.start_mark
                if key.value in seen:
                    raise YamlError(mark.line + 1, f"{key.value}: the key is there twice", column=mark.column + 1)
                seen.add(key.value)
