from __future__ import annotations

from app.kube import paths
from app.model.meta import NamespacedName

KEY = NamespacedName("velda", "shell")


def test_one_namespace_or_all() -> None:
    assert paths.pods("velda") == "/api/v1/namespaces/velda/pods"
    assert paths.pods(None) == "/api/v1/pods"
    assert paths.agentpools(None) == "/apis/velda.io/v1/agentpools"


def test_an_object_and_its_subresource() -> None:
    assert paths.agentpool(KEY) == "/apis/velda.io/v1/namespaces/velda/agentpools/shell"
    assert paths.agentpool(KEY, "status").endswith("/agentpools/shell/status")
    assert paths.lease(KEY) == "/apis/coordination.k8s.io/v1/namespaces/velda/leases/shell"
