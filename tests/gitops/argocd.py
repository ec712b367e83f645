"""What Argo CD does with manifests: it applies them with its tracking id, and compares them with what is live.

The comparison is made by Argo CD's own library (tests/support/tools/gitops), in every way that it has: the three-way
merge, its choice for most; structured merge, for ServerSideApply=true; and server-side diff, with and without what
webhooks change.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster
from tests.support.tools import tool

Manifest = dict[str, Any]
MANAGER = "argocd-controller"
WITHIN = 30.0
"""Seconds in which the API server tells the types of a new CRD, and has written what it writes into new objects."""


def tracked(manifests: Iterable[Manifest], *, application: str) -> list[Manifest]:
    """As Argo CD applies them: no hook of helm, and each with its tracking id."""
    return [_tracked(item, application) for item in manifests if "helm.sh/hook" not in _annotations(item)]


def _tracked(item: Manifest, application: str) -> Manifest:
    metadata = item["metadata"]
    group = item["apiVersion"].rpartition("/")[0]
    tracking = f"{application}:{group}/{item['kind']}:{metadata.get('namespace', '')}/{metadata['name']}"
    annotations = {**_annotations(item), "argocd.argoproj.io/tracking-id": tracking}
    return {**item, "metadata": {**metadata, "annotations": annotations}}


def _version(item: Manifest) -> str:
    found: str = item["metadata"]["resourceVersion"]
    return found


def _annotations(item: Manifest) -> dict[str, str]:
    found: dict[str, str] = item["metadata"].get("annotations") or {}
    return found


class ArgoCD:
    """Of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.kubectl = cluster.kubectl

    def sync(self, manifests: Sequence[Manifest], *, server_side: bool = False) -> str:
        """Apply; what kubectl says of each."""
        how = ("--server-side", f"--field-manager={MANAGER}", "--force-conflicts") if server_side else ()
        return self.kubectl("apply", *how, "--filename=-", input=whole(manifests)).stdout

    def differences(self, manifests: Sequence[Manifest]) -> dict[str, Any]:
        """Object → way of comparing → what is live and what Argo CD wants it to be; empty when all is in sync."""
        live, dry_run = self._compared(manifests)
        asked = [
            {"desired": one, "live": two, "dryRun": three}
            for one, two, three in zip(manifests, live, dry_run, strict=True)
        ]
        with tempfile.TemporaryDirectory() as directory:
            types = Path(directory) / "openapi.json"
            types.write_text(self._types({item["kind"] for item in manifests}))
            answers = ask("compare", types, objects=asked)
        named = [f"{item['kind']}/{item['metadata']['name']}" for item in manifests]
        return {name: answer for name, answer in zip(named, answers, strict=True) if answer}

    def _compared(self, manifests: Sequence[Manifest]) -> tuple[list[Manifest], list[Manifest]]:
        """What is live, and what a server-side apply would make of that very version."""
        deadline = time.monotonic() + WITHIN
        while True:
            live = self._items("get", manifests)
            dry_run = self._items("apply", manifests, "--server-side", "--dry-run=server", f"--field-manager={MANAGER}")
            if [_version(item) for item in live] == [_version(item) for item in dry_run]:
                return live, dry_run
            assert time.monotonic() < deadline, "somebody writes all the time"

    def _items(self, verb: str, manifests: Sequence[Manifest], *options: str) -> list[Manifest]:
        forced = ("--force-conflicts",) if verb == "apply" else ()
        output = ("--output=json", "--show-managed-fields", "--filename=-")
        text = self.kubectl(verb, *options, *forced, *output, input=whole(manifests)).stdout
        found = json.loads(text)
        items: list[Manifest] = found["items"] if found["kind"] == "List" else [found]
        return items

    def _types(self, kinds: set[str]) -> str:
        deadline = time.monotonic() + WITHIN
        while True:
            text = self.kubectl("get", "--raw=/openapi/v2").stdout
            known = {
                kind["kind"]
                for model in json.loads(text)["definitions"].values()
                for kind in model.get("x-kubernetes-group-version-kind", ())
            }
            if kinds <= known:
                return text
            assert time.monotonic() < deadline, f"no types of {kinds - known}"
            time.sleep(0.5)  # nothing tells when the document is renewed


def whole(manifests: Sequence[Manifest]) -> str:
    """As one file for kubectl."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


def ask(command: str, *arguments: str | Path, objects: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What tests/support/tools/gitops answers to each."""
    text = "\n".join(map(json.dumps, objects))
    words = [tool("velda-gitops"), command, *arguments]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
