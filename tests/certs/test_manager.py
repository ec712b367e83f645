"""Secret, caBundle and TLS context together, on a real API server."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import structlog

from app.kube import paths
from app.kube.errors import ApiError, ApiUnreachable
from app.model.meta import NamespacedName
from app.obs import metrics
from certs import manager as module
from certs.agreement import CHANGE_INTERVAL, CHECK_INTERVAL, CertificateError
from certs.authority import KeyPair, issue_authority, issue_leaf
from certs.material import Material, blocks, expiry, fault, fingerprint, issued_by
from certs.names import serving_names
from certs.replicas import SECRET_LABEL
from certs.rotation import Phase, issue
from certs.store import CERT_MANAGER_ANNOTATION, ISSUED_BY_ANNOTATION
from tests.certs.handshake import presented
from tests.certs.world import Bench, Replica

TIMEOUT = 20.0


def issued(bench: Bench, *, age: timedelta) -> Material:
    names = serving_names(bench.settings.service, namespace=bench.secret.namespace, in_cluster=True)
    return issue(None, "everything", names=names, now=datetime.now(UTC) - age)


async def test_the_charts_empty_secret_is_filled_served_and_published(bench: Bench) -> None:
    await bench.create_secret()
    replica = await bench.replica()
    assert replica.manager.problem
    await replica.manager.ensure()
    assert replica.manager.ready
    content = await bench.content()
    assert set(content) == {"tls.crt", "tls.key", "ca.crt", "ca.key"}
    assert await bench.published() == [content["ca.crt"]] * 4
    assert presented(replica.manager.context, bundle=content["ca.crt"], name=bench.name) == content["tls.crt"]
    assert (await bench.stored())["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "Helm"}


async def test_a_missing_secret_is_created(bench: Bench) -> None:
    await (await bench.replica()).manager.ensure()
    assert (await bench.stored())["metadata"]["annotations"] == {ISSUED_BY_ANNOTATION: "velda-apiserver"}


@pytest.mark.parametrize("exists", [True, False])
async def test_replicas_that_start_together_agree(bench: Bench, exists: bool) -> None:
    if exists:
        await bench.create_secret()
    replicas = [await bench.replica(leading=False) for _ in range(5)]
    await asyncio.gather(*(bench.published() for _ in replicas))  # connections for all: none has a head start
    await asyncio.gather(*(replica.manager.ensure() for replica in replicas))
    content = await bench.content()
    for replica in replicas:
        assert presented(replica.manager.context, bundle=content["ca.crt"], name=bench.name) == content["tls.crt"]
    assert set(await bench.published()) == {content["ca.crt"]}


async def test_a_restart_changes_nothing(bench: Bench) -> None:
    await (await bench.replica()).manager.ensure()
    before = await bench.stored()
    await (await bench.replica()).manager.ensure()
    assert await bench.stored() == before


async def test_a_leaf_is_renewed_and_other_replicas_follow(bench: Bench) -> None:
    first, second = await bench.replica(), await bench.replica(leading=False)
    await bench.create_ours(issued(bench, age=timedelta(days=61)))
    await second.manager.ensure()
    old = await bench.content()
    await first.manager.ensure()
    await second.manager.ensure()
    new = await bench.content()
    assert new["ca.crt"] == old["ca.crt"]
    assert new["tls.crt"] != old["tls.crt"]
    for replica in (first, second):
        assert presented(replica.manager.context, bundle=old["ca.crt"], name=bench.name) == new["tls.crt"]


@pytest.mark.parametrize(
    ("spoiled", "same_authority"), [({"tls_crt": b"x"}, True), ({"tls_key": b"x"}, True), ({"ca_key": b"x"}, False)]
)
async def test_a_corrupt_secret_is_issued_anew_and_said_so(
    bench: Bench, spoiled: dict[str, bytes], same_authority: bool
) -> None:
    replica = await bench.replica()
    await replica.manager.ensure()
    old = await bench.content()
    await bench.overwrite(**spoiled)
    with structlog.testing.capture_logs() as logs:
        await replica.manager.ensure()
    content = await bench.content()
    assert (content["ca.crt"] == old["ca.crt"]) is same_authority
    assert presented(replica.manager.context, bundle=content["ca.crt"], name=bench.name) == content["tls.crt"]
    assert set(await bench.published()) == {content["ca.crt"]}
    assert (logs[0]["log_level"], logs[0]["event"]) == ("warning", "certificates issued")
    assert next(iter(spoiled)).replace("_", ".") in logs[0]["reason"]
    assert "PRIVATE" not in str(logs)


async def test_a_users_secret_is_served_and_never_touched(bench: Bench) -> None:
    now = datetime.now(UTC)
    authority = issue_authority(now=now)
    leaf = issue_leaf(authority, names=[bench.name], now=now - timedelta(days=80))  # ours would be renewed
    await bench.create_secret(tls_crt=leaf.certificate, tls_key=leaf.key, ca_crt=authority.certificate)
    before = await bench.stored()
    replica = await bench.replica()
    await replica.manager.ensure()
    assert await bench.stored() == before
    assert set(await bench.published()) == {authority.certificate}
    assert presented(replica.manager.context, bundle=authority.certificate, name=bench.name) == leaf.certificate


async def test_a_users_secret_that_cannot_be_used_is_not_touched_either(bench: Bench) -> None:
    await bench.create_secret(tls_crt=b"mine", tls_key=b"mine")
    before = await bench.stored()
    replica = await bench.replica()
    with pytest.raises(CertificateError, match=r"not ours to mend.*not a PEM certificate"):
        await replica.manager.ensure()
    assert not replica.manager.ready
    assert await bench.stored() == before


async def test_a_users_secret_without_a_ca_is_no_caBundle(bench: Bench) -> None:  # noqa: N802
    now = datetime.now(UTC)
    leaf = issue_leaf(issue_authority(now=now), names=[bench.name], now=now)
    await bench.create_secret(tls_crt=leaf.certificate, tls_key=leaf.key)
    with pytest.raises(CertificateError, match=r"has no ca\.crt"):
        await (await bench.replica()).manager.ensure()


async def test_a_wiped_bundle_is_published_again(bench: Bench) -> None:
    replica = await bench.replica()
    await replica.manager.ensure()
    await bench.wipe()
    assert b"" in await bench.published()
    await replica.manager.ensure()
    assert set(await bench.published()) == {(await bench.content())["ca.crt"]}


async def test_clients_find_the_ca_in_a_config_map_also_after_somebody_wiped_it(bench: Bench) -> None:
    path = paths.config_map(bench.authority)
    rendered = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": bench.authority.name}}
    await bench.client.create(paths.config_maps(bench.authority.namespace), rendered)
    replica = await bench.replica()
    for _ in range(2):
        await replica.manager.ensure()
        published = msgspec.json.decode(await bench.client.get(path))
        assert published["data"] == {"ca.crt": (await bench.content())["ca.crt"].decode()}
        await bench.client.merge_patch(path, {"data": None})
    await bench.client.delete(path)
    await replica.manager.ensure()
    before = await bench.client.get(path)
    await replica.manager.ensure()
    assert await bench.client.get(path) == before


async def test_webhooks_are_served_where_clients_cannot_be_told_the_ca(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"ca_config_map": "No.Name!"})
    replica = await bench.replica()
    with structlog.testing.capture_logs() as logs:
        await replica.manager.ensure()
    assert replica.manager.ready
    (warning,) = (log for log in logs if log["log_level"] == "warning")
    assert warning["event"] == "CA not published to clients"
    assert warning["config_map"].endswith("/No.Name!")


async def test_a_configuration_that_is_gone_is_not_created(bench: Bench) -> None:
    await bench.delete_configurations()
    replica = await bench.replica()
    with pytest.raises(ApiError) as error:
        await replica.manager.ensure()
    assert error.value.not_found
    assert not replica.manager.ready


async def test_run_tries_until_all_is_in_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST", 0.01)
    monkeypatch.setattr(module, "PAUSE", 0.01)
    await bench.delete_configurations()
    replica = await bench.replica()
    running = asyncio.create_task(replica.manager.run())
    await _until(lambda: "not found" in (replica.manager.problem or ""))
    await bench.create_configurations()
    await _until(lambda: replica.manager.ready)
    running.cancel()
    assert set(await bench.published()) == {(await bench.content())["ca.crt"]}


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not holds():  # noqa: ASYNC110  readiness is polled, as the kubelet does
            await asyncio.sleep(0.01)


async def test_who_begins_to_lead_looks_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the leader may do was due already: without ``look`` it would be done at the next check."""
    monkeypatch.setattr(module, "PAUSE", 0.01)
    replica = await bench.replica(leading=False)
    await bench.create_ours(issued(bench, age=timedelta(days=61)))
    running = asyncio.create_task(replica.manager.run())
    await _until(lambda: replica.manager.ready)
    old = await bench.content()
    replica.leading = True
    replica.manager.look()
    async with asyncio.timeout(TIMEOUT):
        while (await bench.content())["tls.crt"] == old["tls.crt"]:  # noqa: ASYNC110  somebody else's writes
            await asyncio.sleep(0.05)
    running.cancel()


async def test_a_request_is_carried_through_all_phases(bench: Bench) -> None:
    leader, follower = await bench.replica(), await bench.replica(leading=False)
    for replica in (leader, follower):
        await replica.manager.ensure()
    old = await bench.content()
    await bench.annotate(rotate="ca")
    await follower.manager.ensure()
    assert await bench.content() == old, "it is the leader's to begin"
    await leader.manager.ensure()
    halfway = await bench.content()
    new, *rest = blocks(halfway["ca.crt"])
    assert rest == [old["ca.crt"]]
    assert issued_by(halfway["tls.crt"], new)
    assert set(await bench.published()) == {halfway["ca.crt"]}
    assert presented(follower.manager.context, bundle=halfway["ca.crt"], name=bench.name) == old["tls.crt"]
    assert await leader.manager.ensure() == CHANGE_INTERVAL, "the follower has not confirmed"
    assert await bench.content() == halfway
    await follower.manager.ensure()
    await leader.manager.ensure()
    assert await bench.content() == {**halfway, "ca.crt": new}
    assert set(await bench.published()) == {new}
    assert "velda.io/rotate" not in (await bench.stored())["metadata"]["annotations"]


async def test_a_new_ca_is_published_for_a_while_before_it_is_relied_on(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"ca_overlap_seconds": 3600})
    leader = await bench.replica()
    await leader.manager.ensure()
    old = await bench.content()
    await bench.annotate(rotate="ca")
    assert await leader.manager.ensure() == CHANGE_INTERVAL
    content = await bench.content()
    assert set(await bench.published()) == {content["ca.crt"]}
    assert len(blocks(content["ca.crt"])) == 2
    assert content["tls.crt"] == old["tls.crt"]


@pytest.mark.parametrize("gone", [True, False])
async def test_the_old_ca_stays_until_every_live_replica_has_left_it(bench: Bench, gone: bool) -> None:
    leader = await bench.replica()
    await leader.manager.ensure()
    other = await bench.create_other_replica(fingerprint((await bench.content())["tls.crt"]))
    await bench.annotate(rotate="ca")
    await leader.manager.ensure()
    assert await leader.manager.ensure() == CHANGE_INTERVAL
    content = await bench.content()
    assert len(blocks(content["ca.crt"])) == 2
    if gone:
        pod = paths.pod(NamespacedName(bench.secret.namespace, other))
        await bench.client.delete(pod, grace_seconds=0)
    else:
        await bench.tell(other, fingerprint(content["tls.crt"]))
    assert await leader.manager.ensure() == CHECK_INTERVAL
    assert len(blocks((await bench.content())["ca.crt"])) == 1


async def test_what_an_earlier_process_in_the_pod_served_counts_no_more(bench: Bench) -> None:
    leader, follower = await bench.replica(), await bench.replica(leading=False)
    await leader.manager.ensure()
    await bench.tell(follower.name, fingerprint((await bench.content())["tls.crt"]))
    await bench.client.delete(bench.configurations[1])
    with pytest.raises(ApiError):
        await follower.manager.ensure()
    pod = msgspec.json.decode(await bench.client.get(paths.pod(NamespacedName(bench.secret.namespace, follower.name))))
    assert pod["metadata"]["labels"] == {SECRET_LABEL: bench.secret.name}
    assert "annotations" not in pod["metadata"]


async def test_an_unknown_request_is_told_and_left(bench: Bench) -> None:
    replica = await bench.replica()
    await replica.manager.ensure()
    await bench.annotate(rotate="all")
    before = await bench.stored()
    with structlog.testing.capture_logs() as logs:
        await replica.manager.ensure()
    assert [(log["event"], log["value"]) for log in logs] == [("unknown request", "all")]
    assert await bench.stored() == before


async def test_watches_tell_of_every_change_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    replica, follower = await bench.replica(), await bench.replica(leading=False)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one.manager.run()) for one in (replica, follower)]
        await _until(lambda: replica.manager.ready and follower.manager.ready)
        content = await bench.content()
        await bench.wipe()
        await _until_async(bench.published, [content["ca.crt"]] * 4)
        await bench.annotate(rotate="leaf")
        await _until(lambda: _served(bench, replica) == _served(bench, follower) != content["tls.crt"])
        renewed = _served(bench, replica)
        await bench.client.delete(paths.secret(bench.secret))
        await _until(lambda: _served(bench, replica) == _served(bench, follower) != renewed)
        for task in running:
            task.cancel()


def _served(bench: Bench, replica: Replica) -> bytes:
    return presented(replica.manager.context, bundle=replica.manager.bundle, name=bench.name)


async def _until_async(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(TIMEOUT):
        while await ask() != wanted:  # noqa: ASYNC110  the API server is asked
            await asyncio.sleep(0.01)


async def test_a_lost_secret_costs_nobody_a_handshake(bench: Bench) -> None:
    leader, follower = await bench.replica(), await bench.replica(leading=False)
    for replica in (leader, follower):
        await replica.manager.ensure()
    old = await bench.content()
    await bench.client.delete(paths.secret(bench.secret))
    await leader.manager.ensure()
    (bundle,) = set(await bench.published())
    assert blocks(bundle)[1:] == [old["ca.crt"]]
    assert presented(follower.manager.context, bundle=bundle, name=bench.name) == old["tls.crt"]
    await follower.manager.ensure()
    await leader.manager.ensure()
    assert await bench.published() == [blocks(bundle)[0]] * 4
    for replica in (leader, follower):
        assert replica.manager.ready
        assert _served(bench, replica) == (await bench.content())["tls.crt"]


@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(days=-100)])
async def test_the_api_servers_clock_counts(bench: Bench, ahead: timedelta) -> None:
    replica, other = await bench.replica(), await bench.replica()
    replica.now += ahead
    with structlog.testing.capture_logs() as logs:
        await replica.manager.ensure()
    assert replica.manager.ready
    assert "our clock is not the API server's" in [log["event"] for log in logs]
    content = await bench.content()
    await other.manager.ensure()
    assert await bench.content() == content, "nobody sees anything wrong with it"
    assert fault(KeyPair(content["tls.crt"], content["tls.key"]), now=datetime.now(UTC)) is None


async def test_not_ready_while_the_webhook_is_called_by_another_name(bench: Bench) -> None:
    now = datetime.now(UTC)
    authority = issue_authority(now=now)
    wrong, right = (issue_leaf(authority, names=[name], now=now) for name in ("other.svc", bench.name))
    await bench.create_secret(tls_crt=wrong.certificate, tls_key=wrong.key, ca_crt=authority.certificate)
    replica = await bench.replica()
    with pytest.raises(CertificateError, match=f"calls {bench.name} and trusts its caBundle: Hostname mismatch"):
        await replica.manager.ensure()
    assert not replica.manager.ready
    await bench.overwrite(tls_crt=right.certificate, tls_key=right.key)
    await replica.manager.ensure()
    assert replica.manager.ready


async def test_readiness_goes_with_what_made_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    now = datetime.now(UTC)
    authority = issue_authority(now=now)
    leaf = issue_leaf(authority, names=[bench.name], now=now)
    await bench.create_secret(tls_crt=leaf.certificate, tls_key=leaf.key, ca_crt=authority.certificate)
    replica = await bench.replica()
    running = asyncio.create_task(replica.manager.run())
    await _until(lambda: replica.manager.ready)
    failures = _metric("velda_certificate_failures_total")
    await bench.overwrite(tls_key=b"garbage")
    await _until(lambda: "not ours to mend" in (replica.manager.problem or ""))
    assert _metric("velda_certificate_failures_total") > failures
    running.cancel()


async def test_an_api_server_without_answers_makes_nothing_worse_until_it_expires(bench: Bench) -> None:
    replica = await bench.replica()
    await replica.manager.ensure()
    replica.manager._failed(ApiUnreachable("no answer"), retry_in=1)
    assert replica.manager.ready
    replica.now += timedelta(days=90)
    replica.manager._failed(ApiUnreachable("no answer"), retry_in=1)
    assert "no answer" in (replica.manager.problem or "")


async def test_metrics_tell_when_certificates_expire(bench: Bench) -> None:
    await (await bench.replica()).manager.ensure()
    content = await bench.content()
    for kind, key in (("leaf", "tls.crt"), ("ca", "ca.crt")):
        when = expiry(content[key]).timestamp()
        assert _metric("velda_certificate_expiry_timestamp_seconds", kind=kind) == when
    assert _metric("velda_certificate_rotation_phase") == Phase.STEADY


def _metric(name: str, **labels: str) -> float:
    value = metrics.REGISTRY.get_sample_value(name, labels)
    assert value is not None
    return value


@pytest.mark.parametrize("annotation", [CERT_MANAGER_ANNOTATION, None])
async def test_what_cert_manager_fills_is_read_only(bench: Bench, annotation: str | None) -> None:
    """The chart says so, or cert-manager's mark on a Secret that once was ours."""
    now = datetime.now(UTC)
    authority = issue_authority(now=now)
    leaf = issue_leaf(authority, names=[bench.name], now=now - timedelta(days=80))
    annotations = {annotation: "velda-apiserver", ISSUED_BY_ANNOTATION: "velda-apiserver"} if annotation else {}
    if annotation is None:
        bench.settings = bench.settings.model_copy(update={"certificates": "cert-manager"})
        with pytest.raises(CertificateError, match="cert-manager has to fill it"):
            await (await bench.replica()).manager.ensure()
    await bench.create_secret(
        annotations=annotations, tls_crt=leaf.certificate, tls_key=leaf.key, ca_crt=authority.certificate
    )
    before = await bench.stored()
    replica = await bench.replica()
    if annotation is None:
        with pytest.raises(CertificateError, match="there is no CA to trust"):
            await replica.manager.ensure()
        assert not any(await bench.published()), "that is cert-manager's"
        await bench.inject(authority.certificate)
    await replica.manager.ensure()
    assert replica.manager.ready
    assert replica.manager.authority is None
    assert await bench.stored() == before
    assert _served(bench, replica) == leaf.certificate


async def test_a_client_that_trusts_another_bundle_is_not_fooled(bench: Bench) -> None:
    replica = await bench.replica()
    await replica.manager.ensure()
    with pytest.raises(ssl.SSLCertVerificationError):
        presented(replica.manager.context, bundle=issue_authority(now=replica.now).certificate, name=bench.name)
