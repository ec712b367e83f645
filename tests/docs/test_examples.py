"""The documentation's YAML is what the product takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from app.core.validation import validate
from app.model.agentpool import PoolSpec
from app.settings import parse
from tests.docs.blocks import examples, pages
from tests.support.running import CHECKOUT

EXAMPLES = [(page, text) for page, content in pages().items() for text in examples(content)]
SCHEMA = json.loads((CHECKOUT / "chart" / "values.schema.json").read_text(encoding="utf-8"))


def _documents() -> Iterator[tuple[str, str, Any]]:
    for page, text in EXAMPLES:
        for document in yaml.safe_load_all(text):
            yield page, text, document


def test_each_example_is_yaml() -> None:
    assert len(list(_documents())) > 4


@pytest.mark.parametrize("page", sorted({page for page, _ in EXAMPLES}))
def test_it_is_what_the_product_takes(page: str) -> None:
    for where, text, document in _documents():
        if where != page:
            continue
        if document.get("kind") == "AgentPool":
            assert isinstance(validate(document["metadata"]["name"], document["spec"]), PoolSpec), text
        elif "provisioners" in document:
            parse(text, page)
        elif text.startswith("# values.yaml"):
            jsonschema.validate(document, SCHEMA)
