"""URL paths of what we read and write. ``namespace`` None means all namespaces."""

from __future__ import annotations

from app.model.meta import GROUP, PLURAL, VERSION, NamespacedName

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105  a path
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def agentpools(namespace: str | None) -> str:
    return _collection(f"/apis/{GROUP}/{VERSION}", namespace, PLURAL)


def agentpool(key: NamespacedName, subresource: str = "") -> str:
    path = f"{agentpools(key.namespace)}/{key.name}"
    return f"{path}/{subresource}" if subresource else path


def pods(namespace: str | None) -> str:
    return _collection("/api/v1", namespace, "pods")


def pod(key: NamespacedName) -> str:
    return f"{pods(key.namespace)}/{key.name}"


def namespace(name: str) -> str:
    return f"/api/v1/namespaces/{name}"


def config_maps(namespace: str | None) -> str:
    return _collection("/api/v1", namespace, "configmaps")


def config_map(key: NamespacedName) -> str:
    return f"{config_maps(key.namespace)}/{key.name}"


def secrets(namespace: str) -> str:
    return _collection("/api/v1", namespace, "secrets")


def secret(key: NamespacedName) -> str:
    return f"{secrets(key.namespace)}/{key.name}"


def events(namespace: str) -> str:
    return _collection("/api/v1", namespace, "events")


def event(key: NamespacedName) -> str:
    return f"{events(key.namespace)}/{key.name}"


def resource_quotas(namespace: str | None) -> str:
    return _collection("/api/v1", namespace, "resourcequotas")


def controller_revisions(namespace: str | None) -> str:
    return _collection("/apis/apps/v1", namespace, "controllerrevisions")


def controller_revision(key: NamespacedName) -> str:
    return f"{controller_revisions(key.namespace)}/{key.name}"


def leases(namespace: str) -> str:
    return _collection("/apis/coordination.k8s.io/v1", namespace, "leases")


def lease(key: NamespacedName) -> str:
    return f"{leases(key.namespace)}/{key.name}"


def validating_webhook(name: str) -> str:
    return f"{ADMISSION}/validatingwebhookconfigurations/{name}"


def mutating_webhook(name: str) -> str:
    return f"{ADMISSION}/mutatingwebhookconfigurations/{name}"


def crd(name: str) -> str:
    return f"{CRDS}/{name}"


def _collection(prefix: str, namespace: str | None, plural: str) -> str:
    return f"{prefix}/{plural}" if namespace is None else f"{prefix}/namespaces/{namespace}/{plural}"
