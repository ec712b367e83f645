"""``python -m crd.rbac``: renders crd/velda-rbac.yaml from the chart, for those who install without helm.

``--check`` writes nothing and fails when the file is stale.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from crd.written import write
from tests.support.tools import tool

HERE = Path(__file__).parent
TARGET = HERE / "velda-rbac.yaml"
HEADER = """\
# Made by `make rbac` from chart/; do not edit. What velda-apiserver may do as the service account velda-apiserver in
# the namespace velda, which must exist; and the Secret and the ConfigMap that it fills but may not create.
"""
TEMPLATES = ("serviceaccount", "rbac", "clients", "state")
HELMS_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m crd.rbac", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the file is as it should be")
    options = parser.parse_args()
    return write({TARGET: render()}, check=options.check, command="make rbac")


def render() -> str:
    """The manifests' text, without what only helm understands."""
    shown = [f"--show-only=templates/{name}.yaml" for name in TEMPLATES]
    command = [str(tool("helm")), "template", "velda", str(HERE.parent / "chart"), "--namespace=velda", *shown]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    manifests = list(yaml.safe_load_all(rendered))
    for manifest in manifests:
        for label in HELMS_LABELS:
            manifest["metadata"]["labels"].pop(label, None)
    return HEADER + yaml.safe_dump_all(manifests, sort_keys=False, width=110)


if __name__ == "__main__":
    sys.exit(main())
