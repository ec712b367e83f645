"""The store tells each difference once, and knows objects by their uid."""

from __future__ import annotations

import structlog

from app.kube.store import Identity, Store
from app.model.meta import NamespacedName, ObjectMeta
from app.model.pod import Pod

Told = list[tuple[str | None, str | None]]


def pod(name: str, uid: str, version: int) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="ns", uid=uid, resource_version=str(version)))


def store() -> tuple[Store[Pod], Told]:
    told: Told = []

    def on_change(old: Pod | None, new: Pod | None) -> None:
        told.append((old.metadata.uid if old else None, new.metadata.uid if new else None))

    return Store(on_change, resource="pods"), told


def test_added_changed_removed() -> None:
    pods, told = store()
    pods.put(pod("a", "1", 1))
    pods.put(pod("a", "1", 2))
    pods.remove(pod("a", "1", 3).metadata)
    assert told == [(None, "1"), ("1", "1"), ("1", None)]
    assert not pods.objects


def test_what_is_known_is_not_told_again() -> None:
    pods, told = store()
    pods.put(pod("a", "1", 1))
    pods.put(pod("a", "1", 1))
    pods.remove(pod("b", "2", 2).metadata)
    assert told == [(None, "1")]


def test_another_object_of_the_name_is_a_deletion_and_an_addition() -> None:
    pods, told = store()
    pods.put(pod("a", "1", 1))
    pods.put(pod("a", "2", 5))
    pods.remove(pod("a", "1", 4).metadata)
    assert told == [(None, "1"), ("1", None), (None, "2")]
    assert pods.objects[NamespacedName("ns", "a")].metadata.uid == "2"


def test_only_what_a_list_names_is_kept() -> None:
    pods, told = store()
    for item in (pod("a", "1", 1), pod("b", "2", 2), pod("c", "3", 3)):
        pods.put(item)
    told.clear()
    pods.keep({NamespacedName("ns", "a"): "1", NamespacedName("ns", "b"): "another"})
    assert told == [("2", None), ("3", None)]
    assert list(pods.objects) == [NamespacedName("ns", "a")]


def test_an_object_known_by_its_identity_alone_can_go() -> None:
    pods, told = store()
    pods.put(pod("a", "1", 1))
    pods.drop_namesake(Identity(name="a", namespace="ns", uid="1"))
    pods.remove(Identity(name="a", namespace="ns", uid="1"))
    assert told == [(None, "1"), ("1", None)]


def test_a_listener_that_fails_is_logged_and_stops_nothing() -> None:
    def on_change(old: Pod | None, new: Pod | None) -> None:
        raise RuntimeError("no")

    pods: Store[Pod] = Store(on_change, resource="pods")
    with structlog.testing.capture_logs() as logs:
        pods.put(pod("a", "1", 1))
        pods.put(pod("b", "2", 2))
    assert [entry["object"] for entry in logs] == ["ns/a", "ns/b"]
    assert len(pods.objects) == 2
