"""AgentPool's fields, from the CRD's schema."""

from __future__ import annotations

from collections.abc import Iterator

from crd.reference.tables import HEADER, Schema, code, kind, table
from crd.schema import COLUMNS, definition

POD = {"type": "object"}
"""In place of a pod's own schema, which Kubernetes documents."""


def page() -> str:
    """The page's text."""
    version = definition(POD)["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    columns = [[c["name"], "wide" if c.get("priority") else "always", c["description"]] for c in COLUMNS]
    return "".join(
        [
            HEADER,
            f"# AgentPool\n\n`velda.io/v1`, namespaced, short name `ap`. {root['description']}\n\n"
            "`kubectl explain agentpool.spec` prints the same words.\n\n",
            *(part for field in ("spec", "status") for part in _object(field, root["properties"][field])),
            "## Columns of kubectl get\n\n`kubectl get ap` prints those that are always there, `-o wide` all.\n\n",
            table(["Column", "Shown", "What it is"], columns),
        ]
    )


def _object(path: str, schema: Schema) -> Iterator[str]:
    """A section for the object, and one for each object in it."""
    properties: Schema = schema["properties"]
    yield f"{'#' * min(4, 2 + path.count('.'))} {path}\n\n{schema['description']}\n\n"
    rows = [[code(name), _kind(each), _default(name, schema), each["description"]] for name, each in properties.items()]
    yield table(["Field", "Type", "Default", "What it is"], rows)
    if rules := [rule for rule in schema.get("x-kubernetes-validations", ()) if "fieldPath" in rule]:
        yield "".join(f"- `{path}{rule['fieldPath']}` {rule['message']}\n" for rule in rules) + "\n"
    for name, field in properties.items():
        if field.get("properties"):
            yield from _object(f"{path}.{name}", field)
        elif (items := field.get("items", {})).get("properties"):
            yield from _object(f"{path}.{name}[]", items)


def _kind(field: Schema) -> str:
    if "x-kubernetes-int-or-string" in field:
        return "integer, or a share as `25%`"
    if field.get("items", {}).get("properties"):
        return f"list, at most {field['maxItems']}" if "maxItems" in field else "list"
    return "map of strings" if "additionalProperties" in field else kind(field, {})


def _default(name: str, schema: Schema) -> str:
    if name in schema.get("required", ()):
        return "required"
    field = schema["properties"][name]
    return code(field["default"]) if "default" in field else ""
