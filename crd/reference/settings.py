"""velda-config.yaml's keys, from the models that read it and the words under their fields."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import app.settings
from app.settings import Settings
from crd.reference.tables import HEADER, Schema, code, kind, table

INTRODUCTION = """\
# Settings

What `velda-apiserver serve --config velda-config.yaml` reads. The chart writes this file from [its values](values.md);
without it, write it yourself. A mistake stops the start and names file, line and key. The least that is needed:

```yaml
provisioners:
  - kubernetes:
      namespace: velda
```

"""
ENVIRONMENT = """\
## Environment

| Variable | What it is |
| --- | --- |
| `POD_NAME`, `POD_NAMESPACE` | Who this process is in its cluster; the chart sets both. |
| `KUBECONFIG` | Outside a cluster: the file of the kubectl context that is used. |
"""
Words = dict[str, dict[str, str]]
"""Of each class, the words under its fields."""


def page() -> str:
    """The page's text."""
    schema, words = Settings.model_json_schema(), _words(Path(app.settings.__file__).read_text(encoding="utf-8"))
    return "".join([HEADER, INTRODUCTION, *_sections("", schema, schema["$defs"], words), ENVIRONMENT])


def _sections(path: str, schema: Schema, definitions: Schema, words: Words) -> Iterator[str]:
    """A section for each object below ``schema``, depth first."""
    for key, field in schema["properties"].items():
        if named := _model(field):
            inside = definitions[named]
            title = f"{path}{key}" + ("[]" if field.get("type") == "array" else "")
            leaves = {name: each for name, each in inside["properties"].items() if not _model(each)}
            yield f"## {title}\n\n{' '.join(inside['description'].split())}\n\n"
            if leaves:
                yield table(["Key", "Type", "Default", "What it is"], _rows(leaves, inside, definitions, words[named]))
            yield from _sections(f"{title}.", inside, definitions, words)


def _rows(leaves: Schema, model: Schema, definitions: Schema, words: dict[str, str]) -> Iterator[list[str]]:
    for name, field in leaves.items():
        required = name in model.get("required", ())
        default = "required" if required else "" if field["default"] is None else code(field["default"])
        yield [code(name), kind(field, definitions), default, words[name]]


def _model(field: Schema) -> str:
    """The name of the model that a field, or each item of it, is of; empty for a plain one."""
    places = [field, field.get("items", {}), *field.get("anyOf", ())]
    return next((place["$ref"].rpartition("/")[2] for place in places if "$ref" in place), "")


def _words(source: str) -> Words:
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return {node.name: dict(_under_fields(node)) for node in classes}


def _under_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, under in zip(node.body, node.body[1:], strict=False):
        match field, under:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, text
