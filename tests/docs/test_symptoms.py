"""The troubleshooting page quotes messages: each is one that the product says."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from tests.docs.blocks import DOCS
from tests.support.running import CHECKOUT

HEADINGS = re.findall(r"^### (.+)$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
QUOTED = [heading.strip("`") for heading in HEADINGS if heading.startswith("`") and heading.endswith("`")]
OTHERS = {"x509: certificate signed by unknown authority", "failed calling webhook", "Unschedulable"}
"""What the API server says, and what stands in a pod's own status."""


@functools.cache
def said() -> str:
    """Every text in the sources, with a hole where something is filled in."""
    files = [path for package in ("app", "certs", "crd") for path in (CHECKOUT / package).rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    return "\n".join(_texts(tree) for tree in trees)


def _texts(tree: ast.AST) -> str:
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(texts)


@pytest.mark.parametrize("heading", sorted(set(QUOTED) - OTHERS))
def test_the_product_says_so(heading: str) -> None:
    pieces = [piece.strip() for piece in re.split(r"\b[A-Z]{2,}\b", heading)]
    pieces = [piece for piece in pieces if len(piece) > 2]
    assert pieces
    assert [piece for piece in pieces if piece not in said()] == []


def test_most_headings_are_quotations() -> None:
    assert len(QUOTED) > 25
    assert set(QUOTED) >= OTHERS
