"""The JSON Schema of an AgentPool's manifest, for editors and for `velda-apiserver check`, made from the CRD's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.model.meta import API_VERSION, KIND

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
OPEN = "x-kubernetes-preserve-unknown-fields"
LEFT_OUT = ("x-kubernetes-validations", "x-kubernetes-int-or-string", "x-kubernetes-map-type")
"""CEL rules and what JSON Schema says in other words."""


def editor_schema(crd: Schema) -> Schema:
    """Of the manifest of the CustomResourceDefinition ``crd``. Fields that the CRD would prune are mistakes here."""
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = _convert(root["properties"]["spec"])
    strings = {"type": "object", "additionalProperties": {"type": "string"}}
    metadata = {
        "description": "The pool's name, namespace, labels and annotations.",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "generateName": {"type": "string"},
            "labels": strings,
            "annotations": strings,
        },
    }
    return {
        "$schema": DRAFT,
        "$comment": "Made by `make crd` from crd/schema.py and crd/podspec.json; do not edit.",
        "title": KIND,
        "description": root["description"],
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"description": "The version of AgentPool.", "type": "string", "enum": [API_VERSION]},
            "kind": {"description": "What the object is.", "type": "string", "enum": [KIND]},
            "metadata": metadata,
            "spec": spec,
            "status": {"description": root["properties"]["status"]["description"], "type": "object"},
        },
        "additionalProperties": False,
    }


def _convert(schema: Mapping[str, Any]) -> Schema:
    """One level of a structural schema (OpenAPI 3.0) as JSON Schema says it."""
    converted = {key: value for key, value in schema.items() if key not in LEFT_OUT}
    if converted.get("exclusiveMinimum") is True:
        converted["exclusiveMinimum"] = converted.pop("minimum")
    if converted.get("exclusiveMaximum") is True:
        converted["exclusiveMaximum"] = converted.pop("maximum")
    if "properties" in schema:
        converted["properties"] = {name: _convert(value) for name, value in schema["properties"].items()}
        if OPEN not in schema:
            converted["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            converted[key] = _convert(schema[key])
    return converted
