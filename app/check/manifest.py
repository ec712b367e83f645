"""The AgentPools of a text of YAML or JSON, as kubectl would send them: what is wrong with each, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import yaml

from app.check import schema
from app.core.fields import invalid
from app.core.syntax import is_dns_name, is_label_value
from app.core.validation import validate, warnings
from app.core.yamltext import Place, YamlError, place, read_all
from app.model.agentpool import FieldError, PoolSpec
from app.model.meta import GROUP, KIND

SYNTAX = "YamlSyntax"
ADVICE = "Advice"
MOST_VALUES = 100_000
"""In one pool, aliases followed."""
DEEPEST = 100
"""Levels of a pool; validation takes fewer of a template."""

Severity = Literal["error", "warning"]
Path = tuple[int | str, ...]

_PART = re.compile(r"\[(\d+)\]|\[([^\]]*)\]|([^.\[\]]+)")


class Problem(NamedTuple):
    """``pool`` is NAME or NAMESPACE/NAME, ``field`` a path as kubectl prints it; both are empty for a text that is no
    YAML.
    """

    place: Place
    severity: Severity
    rule: str
    pool: str
    field: str
    message: str


class Found(NamedTuple):
    """What a text holds: so many AgentPools, and their problems in the order of lines."""

    pools: int
    problems: list[Problem]


class _Loader(yaml.SafeLoader):
    """Takes dates and numbers to the base of 60 for strings, as kubectl does."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag = str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]
        sexagesimal = kind is yaml.ScalarNode and ":" in value and tag.endswith((":int", ":float"))
        return "tag:yaml.org,2002:str" if sexagesimal or tag.endswith(":timestamp") else tag


def check(text: str) -> Found:
    """Judge all AgentPools of the text's documents, also those in Lists. Raises nothing."""
    pools = 0
    problems: list[Problem] = []
    if text.lstrip().startswith("{"):
        text = text.replace("\t", " ")  # JSON, in which a tab is a space; in YAML it is a mistake
    try:
        for node, document in read_all(text, loader=_Loader):
            for path, value in _pools(document):
                pools += 1
                problems += _judge(node, path, value)
    except YamlError as error:
        where = Place(error.line, error.column, error.line, error.column)
        problems.append(Problem(where, "error", SYNTAX, "", "", error.why))
    return Found(pools, sorted(problems))


def _pools(document: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind in ("List", f"{KIND}List"):
        items = document.get("items")
        for i, item in enumerate(items if isinstance(items, list) else ()):
            if _is_pool(item):
                yield ("items", i), item
    elif _is_pool(document):
        yield (), document


def _is_pool(value: Any) -> bool:
    """Of any version, so that a wrong one is told."""
    if not isinstance(value, dict) or value.get("kind") != KIND:
        return False
    return str(value.get("apiVersion", GROUP)).partition("/")[0] == GROUP


def _judge(node: yaml.Node, path: Path, value: dict[str, Any]) -> Iterator[Problem]:
    try:
        pool = _plain(value)
    except YamlError as error:
        yield Problem(place(node, path), "error", SYNTAX, "", "", error.why)
        return
    meta = pool.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    shown = "/".join(str(meta[key]) for key in ("namespace", "name") if meta.get(key))
    for severity, found in _mistakes(pool, meta):
        where = place(node, (*path, *parts(found.field)), key_itself=found.reason == schema.UNKNOWN)
        yield Problem(where, severity, found.reason, shown, found.field, found.message)


def _mistakes(pool: dict[str, Any], meta: dict[str, Any]) -> Iterator[tuple[Severity, FieldError]]:
    """What validation says first, since it has the better words; then what only the schema knows."""
    name, generated = meta.get("name"), meta.get("generateName")
    if not name and isinstance(generated, str) and generated:
        name = f"{generated}xxxxx"
    result = validate(str(name or ""), pool.get("spec"))
    errors = [] if isinstance(result, PoolSpec) else result
    if isinstance(name, str) and is_label_value(name) and name and not is_dns_name(name):
        errors.append(invalid("metadata.name", name, "must be a DNS name: lower-case letters, digits, '-' or '.'"))
    told = {parts(error.field) for error in errors}
    yield from (("error", error) for error in errors)
    for severity, error in schema.mistakes(pool):
        if parts(error.field) not in told:
            yield severity, error
    if isinstance(result, PoolSpec):
        for text in warnings(result):
            field, _, message = text.partition(": ")
            yield "warning", FieldError(field, ADVICE, message)


def parts(field: str) -> Path:
    """The keys and positions of a path as kubectl prints it."""
    return tuple(int(index) if index else key or word for index, key, word in _PART.findall(field))


def _plain(pool: dict[str, Any]) -> dict[str, Any]:
    """The pool as JSON has it, with what aliases name written out. Raises YamlError where that is too much."""
    left = MOST_VALUES

    def copy(value: Any, level: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or level > DEEPEST:
            raise YamlError(1, f"more than {MOST_VALUES} values, or more than {DEEPEST} levels deep")
        if isinstance(value, dict):
            return {_key(key): copy(item, level + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [copy(item, level + 1) for item in value]
        if value is not None and not isinstance(value, str | int | float):
            raise YamlError(1, f"has a value that JSON cannot have, a {type(value).__name__}")
        return value

    plain: dict[str, Any] = copy(pool, 0)
    return plain


def _key(key: Any) -> str:
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    return str(key)
