"""``python -m crd.generate``: writes crd/agentpools.velda.io.yaml, the chart's copy of it, and the schema for editors.

``--refresh`` first renews crd/podspec.json from the API server of the current kubectl context; ``--check`` writes
nothing and fails when a file is stale.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from crd.editor import editor_schema
from crd.podspec import pod_spec
from crd.schema import definition
from crd.written import write

HERE = Path(__file__).parent
SNAPSHOT = HERE / "podspec.json"
"""The schema of a PodSpec, as Kubernetes v1.36.3 describes it."""
TARGETS = (HERE / "agentpools.velda.io.yaml", HERE.parent / "chart" / "files" / "agentpools.velda.io.yaml")
EDITOR = HERE / "agentpool.schema.json"
LIMIT = 262_144
"""Bytes that an annotation may have; a client-side apply keeps the manifest in one."""
HEADER = "# Made by `make crd` from crd/schema.py and crd/podspec.json; do not edit.\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m crd.generate", description=__doc__)
    parser.add_argument("--refresh", action="store_true", help="renew the snapshot of the pod's schema first")
    parser.add_argument("--check", action="store_true", help="only say whether the files are as they should be")
    options = parser.parse_args()
    if options.refresh:
        SNAPSHOT.write_text(json.dumps(_fetch(), separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    texts = {**dict.fromkeys(TARGETS, render()), EDITOR: render_editor()}
    return write(texts, check=options.check, command="make crd")


def render() -> str:
    """The manifest's text."""
    text = HEADER + yaml.dump(_manifest(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    if len(text.encode()) >= LIMIT:
        raise SystemExit(f"the manifest has {len(text.encode())} bytes, kubectl apply takes less than {LIMIT}")
    return text


def render_editor() -> str:
    """The text of crd/agentpool.schema.json."""
    return json.dumps(editor_schema(_manifest()), separators=(",", ":")) + "\n"


def _manifest() -> dict[str, Any]:
    return definition(json.loads(SNAPSHOT.read_text(encoding="utf-8")))


def _fetch() -> dict[str, Any]:
    command = ["kubectl", "get", "--raw", "/openapi/v3/api/v1"]
    return pod_spec(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


class _Dumper(yaml.SafeDumper):
    """Writes shared parts out instead of naming them by anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    sys.exit(main())
