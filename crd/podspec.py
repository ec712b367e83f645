"""The schema of a PodSpec, turned from Kubernetes' own OpenAPI document into what a CRD may say.

Without descriptions (a client-side apply must fit into an annotation), defaults (the stored object stays as written)
and enums (a newer cluster knows more values); with unknown fields kept at every level, for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

PREFIX = "#/components/schemas/"
POD_SPEC = "io.k8s.api.core.v1.PodSpec"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"

QUANTITY_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""Source: controller-gen's schema of resource.Quantity."""
KEPT = ("type", "format", "required", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type")
LEFT_OUT = {POD_SPEC: {"ephemeralContainers"}}
"""Fields that no pod may be created with."""


def pod_spec(document: Mapping[str, Any]) -> Schema:
    """The structural schema; ``document`` is what the API server serves at /openapi/v3/api/v1."""
    definitions = document["components"]["schemas"]
    return _expand(definitions, POD_SPEC)


def _expand(definitions: Mapping[str, Schema], name: str) -> Schema:
    if name == QUANTITY:
        # No type has both strings and all numbers, and `cpu: 0.5` is right in any Pod. The pattern is for strings.
        return {"pattern": QUANTITY_PATTERN, "x-kubernetes-preserve-unknown-fields": True}
    if name == INT_OR_STRING:
        return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    return _convert(definitions, definitions[name], left_out=LEFT_OUT.get(name, set()))


def _convert(
    definitions: Mapping[str, Schema], schema: Schema, *, left_out: set[str] | frozenset[str] = frozenset()
) -> Schema:
    if reference := _reference(schema):
        kept = {key: schema[key] for key in KEPT if key in schema and key.startswith("x-")}
        return {**_expand(definitions, reference.removeprefix(PREFIX)), **kept}
    converted: Schema = {key: schema[key] for key in KEPT if key in schema}
    if "properties" in schema:
        properties = {name: _convert(definitions, value) for name, value in sorted(schema["properties"].items())}
        converted["properties"] = {name: value for name, value in properties.items() if name not in left_out}
        converted["x-kubernetes-preserve-unknown-fields"] = True
    if "items" in schema:
        converted["items"] = _convert(definitions, schema["items"])
        _default_keys(converted, definitions, schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        converted["additionalProperties"] = _convert(definitions, schema["additionalProperties"])
    return converted


def _default_keys(array: Schema, definitions: Mapping[str, Schema], items: Schema) -> None:
    """A key of a list map must be required or have a default (the only defaults that we keep)."""
    reference = _reference(items)
    origin = definitions[reference.removeprefix(PREFIX)] if reference else items
    for key in array.get("x-kubernetes-list-map-keys", ()):
        if key not in origin.get("required", ()):
            array["items"]["properties"][key]["default"] = origin["properties"][key].get("default", "")


def _reference(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    parts = schema.get("allOf", ())
    return str(parts[0]["$ref"]) if len(parts) == 1 and "$ref" in parts[0] else ""
