"""Which files are checked: those named, and in directories those that kubectl would apply."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from app.core.yamltext import LIMIT
from app.model.meta import KIND

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
LEFT_OUT = ("node_modules", "__pycache__")


class Source(NamedTuple):
    """One text to check; or why it is not: ``skipped`` is as it should be, ``failed`` is not."""

    name: str
    text: str = ""
    skipped: str = ""
    failed: str = ""


def sources(names: Sequence[str]) -> list[str]:
    """The files that the arguments name, each once; ``-`` is standard input, a directory all manifests in it."""
    found: dict[str, None] = {}
    for name in names:
        path = Path(name)
        found |= dict.fromkeys(_inside(path) if name != STDIN and path.is_dir() else (name,))
    return list(found)


def _inside(directory: Path) -> Iterator[str]:
    found: list[Path] = []
    for where, inside, names in os.walk(directory):
        inside[:] = [name for name in inside if not name.startswith(".") and name not in LEFT_OUT]  # never entered
        found += [Path(where, name) for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]
    yield from (str(path) for path in sorted(found) if path.is_file())


def load(name: str) -> Source:
    """The text of a file; reading nothing that holds no AgentPool, and no more than may be one."""
    try:
        if name == STDIN:
            return Source("stdin", _cut(sys.stdin.buffer.read(4 * LIMIT + 1)))
        with Path(name).open("rb") as file:
            text = _cut(file.read(4 * LIMIT + 1))
    except (OSError, UnicodeDecodeError) as error:
        return Source(name, failed=f"cannot be read: {error}")
    path = Path(name)
    if KIND not in text:
        return Source(name)
    if path.name in KUSTOMIZATIONS:
        return Source(name, skipped="a kustomization; check what it makes: kubectl kustomize DIR | … check -")
    if _is_helm_template(path):
        return Source(name, skipped="a Helm template; check what it makes: helm template CHART | … check -")
    path = path.resolve()
    if patched := next((where for where in path.parents if path in _patches(where)), None):
        return Source(name, skipped=f"a patch of the kustomization in {patched}")
    return Source(name, text)


def _cut(body: bytes) -> str:
    """As much as is told to be too much."""
    return body[: 4 * LIMIT].decode("utf-8-sig") if len(body) <= 4 * LIMIT else " " * (LIMIT + 1) + KIND


def _is_helm_template(path: Path) -> bool:
    """It lies below templates/ of a chart: text with ``{{ }}`` in it, often no YAML."""
    where = path.absolute()
    return any(parent.name == "templates" and (parent.parent / "Chart.yaml").is_file() for parent in where.parents)


@functools.cache
def _patches(directory: Path) -> frozenset[Path]:
    """The files that a kustomization in the directory patches others with: parts of a pool, no pools."""
    for name in KUSTOMIZATIONS:
        try:
            document = yaml.safe_load((directory / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        return frozenset((directory / patch).resolve() for patch in _named(document) if "\n" not in patch)
    return frozenset()


def _named(kustomization: Any) -> Iterable[str]:
    given = kustomization if isinstance(kustomization, dict) else {}
    entries = [entry for key in ("patches", "patchesStrategicMerge") for entry in given.get(key) or ()]
    paths = [entry.get("path") if isinstance(entry, dict) else entry for entry in entries]
    return [path for path in paths if isinstance(path, str)]
