"""What clients get: sessions started, queued, found again, given up, killed; and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration

from app.broker.lifecycle import START_ATTEMPTS, START_TIMEOUT
from app.broker.refusal import Reason, RefusedError
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from tests.broker.world import CPU, Status, World


@pytest.fixture
def world() -> World:
    return World()


# Starting.


def test_a_session_runs_on_a_free_agent(world: World) -> None:
    agent = world.join("a")
    call = world.request("s", user="ada")
    assert agent.asked() == ["s"]
    assert not call.outcomes
    assert world.statuses() == {"s": "PENDING"}
    agent.starts("s")
    assert call.status.status == Status.STATUS_RUNNING
    assert call.status.ssh_connection.host == "ip of a"
    assert call.status.ssh_connection.port == 2222
    assert call.status.ssh_connection.host_key == b"key"
    assert call.status.started_at.seconds == 1000
    assert world.statuses() == {"s": "RUNNING"}


def test_the_server_info_comes_before_the_first_session(world: World) -> None:
    world.request("s")
    sent = world.join("a").received
    kinds = [field.name for message in sent for field, _ in message.ListFields()]
    assert kinds == ["server_info", "session_request"]


def test_a_session_without_an_id_gets_one(world: World) -> None:
    agent = world.join("a", slots=2)
    world.request()
    world.request()
    assert len(set(agent.asked())) == 2
    assert "" not in agent.asked()


def test_without_a_free_slot_it_waits_and_counts_as_pending(world: World) -> None:
    world.request("s")
    assert world.pending() == 1
    assert world.statuses() == {"s": "QUEUEING"}
    world.join("a")
    assert world.pending() == 0


def test_priority_then_arrival(world: World) -> None:
    for name, priority in [("first", 0), ("second", 0), ("urgent", 5)]:
        world.request(name, priority=priority)
    agent = world.join("a")
    for name in ["urgent", "first", "second"]:
        assert agent.asked()[-1] == name
        agent.starts(name)
        agent.ends(name)


def test_an_agent_with_slots_takes_that_many_at_once(world: World) -> None:
    agent = world.join("a", slots=3)
    for name in "stuv":
        world.request(name)
    assert agent.asked() == ["s", "t", "u"]
    assert (agent.view.slots, agent.view.sessions, world.pending()) == (3, 3, 1)
    agent.starts("t")
    agent.ends("t")
    assert agent.asked() == ["s", "t", "u", "v"]


def test_no_slots_reported_means_one(world: World) -> None:
    assert world.join("a", slots=0).view.slots == 1


def test_a_pool_does_not_serve_another(world: World) -> None:
    other = NamespacedName("default", "gpu")
    world = World(CPU, other)
    agent = world.join("a", pool=other)
    world.request("s")
    assert agent.asked() == []
    assert world.pending(CPU) == 1
    assert world.changed[-1] == CPU


def test_what_the_server_does_not_know_reaches_the_agent(world: World) -> None:
    agent = world.join("a")
    request = velda_pb2.SessionRequest.FromString(b"\xc2\x02\x03abc")
    request.pool = "cpu"
    world.registry.request(request, lambda _: None)
    assert b"\xc2\x02\x03abc" in agent.requests()[0].SerializeToString()
    assert request.session_id == ""


# Failed starts.


def test_an_agent_that_refuses_is_passed_over(world: World) -> None:
    bad, good = world.join("bad"), world.join("good", slots=2)
    call = world.request("s")
    assert bad.asked() == ["s"]
    bad.starts("s", success=False)
    assert good.asked() == ["s"]
    assert world.statuses() == {"s": "PENDING"}
    good.starts("s")
    assert call.status.status == Status.STATUS_RUNNING


def test_an_agent_that_does_not_answer_in_time_is_passed_over_and_a_late_success_is_ended(world: World) -> None:
    slow = world.join("slow")
    call = world.request("s", init_timeout=Duration(seconds=5))
    world.pass_time(4.9)
    assert slow.kills() == []
    world.pass_time(0.2)
    quick = world.join("quick")
    assert quick.asked() == ["s"]
    quick.starts("s")
    assert call.status.ssh_connection.host == "ip of quick"
    assert slow.kills() == ["s"]
    slow.starts("s")
    assert slow.kills() == ["s", "s"]
    assert world.statuses() == {"s": "RUNNING"}


def test_without_an_init_timeout_there_is_one_all_the_same(world: World) -> None:
    agent = world.join("a")
    world.request("s")
    for _ in range(10):
        world.pass_time((START_TIMEOUT + 1) / 10)
        agent.says()
    assert agent.asked() == ["s", "s"]


def test_an_agent_whose_starts_fail_rests_ever_longer_and_a_success_ends_that(world: World) -> None:
    agent = world.join("a", slots=2)
    world.request("s")
    for tries, rest in [(1, 1.0), (2, 2.0), (3, 4.0)]:
        agent.starts("s", success=False)
        world.pass_time(rest - 0.1)
        assert len(agent.asked()) == tries
        world.pass_time(0.1)
        assert len(agent.asked()) == tries + 1
    agent.starts("s")
    world.request("t")
    agent.starts("t", success=False)
    world.pass_time(1.0)
    assert agent.asked()[-2:] == ["t", "t"]


def test_a_session_that_fails_everywhere_is_given_up(world: World) -> None:
    call = world.request("s")
    for number in range(START_ATTEMPTS):
        assert not call.outcomes
        world.join(f"a{number}").starts("s", success=False)
    assert call.refusal.reason is Reason.START_FAILED
    assert f"a{START_ATTEMPTS - 1}" in call.refusal.message
    assert world.statuses() == {}
    assert world.pending() == 0


def test_a_session_keeps_its_place_when_a_start_failed(world: World) -> None:
    agent = world.join("a")
    world.request("s")
    world.request("t")
    agent.starts("s", success=False)
    world.pass_time(1.0)
    assert agent.asked() == ["s", "s"]


def test_a_session_that_ends_before_it_starts_is_a_failed_start(world: World) -> None:
    agent = world.join("a")
    call = world.request("s")
    agent.ends("s")
    assert world.pending() == 1
    assert not call.outcomes


# Which session a request means.


def test_a_repeated_session_id_awaits_and_returns_the_same_session(world: World) -> None:
    agent = world.join("a", slots=5)
    first, second = world.request("s"), world.request("s")
    agent.starts("s")
    third = world.request("s", force_new_session=True)
    assert first.status == second.status == third.status
    assert agent.asked() == ["s"]


def test_a_session_id_counts_within_its_instance(world: World) -> None:
    agent = world.join("a", slots=5)
    world.request("s", instance_id=1)
    world.request("s", instance_id=2)
    assert agent.asked() == ["s", "s"]
    agent.starts("s", instance_id=2)
    assert world.statuses(1) == {"s": "PENDING"}
    assert world.statuses(2) == {"s": "RUNNING"}


def test_a_service_has_one_session_unless_another_is_forced(world: World) -> None:
    agent = world.join("a", slots=5)
    world.request("s", service_name="web")
    agent.starts("s")
    assert world.request(service_name="web").status.session_id == "s"
    assert world.request("u", service_name="web").status.session_id == "s"
    assert not world.request("t", service_name="web", force_new_session=True).outcomes
    assert not world.request("v", service_name="web", instance_id=2).outcomes
    assert agent.asked() == ["s", "t", "v"]


def test_who_asks_for_a_service_that_waits_waits_with_it(world: World) -> None:
    first, second = world.request("s", service_name="web"), world.request(service_name="web")
    world.join("a").starts("s")
    assert first.status == second.status


def test_no_new_session_where_none_is_allowed(world: World) -> None:
    world.join("a")
    with pytest.raises(RefusedError, match='no session "web" runs') as refused:
        world.request(service_name="web", disallow_new_session=True)
    assert refused.value.reason is Reason.NO_SESSION
    assert world.statuses() == {}


def test_a_running_session_is_found_where_no_new_one_is_allowed(world: World) -> None:
    agent = world.join("a")
    world.request("s", service_name="web")
    agent.starts("s")
    call = world.request(service_name="web", disallow_new_session=True, pool="")
    assert call.status.session_id == "s"


def test_a_stale_session_is_returned_as_stale(world: World) -> None:
    agent = world.join("a")
    world.request("s", service_name="web")
    agent.starts("s")
    world.registry.lost(agent)
    assert world.request(service_name="web").status.status == Status.STATUS_STALE


# Leaving.


def test_who_leaves_takes_the_session_out_of_the_queue(world: World) -> None:
    call = world.request("s")
    call.leave()
    assert world.pending() == 0
    assert world.join("a").asked() == []
    assert not call.outcomes


def test_who_leaves_when_an_agent_was_asked_has_it_killed_there(world: World) -> None:
    agent = world.join("a")
    call = world.request("s")
    call.leave()
    assert agent.kills() == ["s"]
    assert agent.view.sessions == 1
    agent.starts("s", success=False)
    assert agent.view.sessions == 0
    assert world.statuses() == {}
    world.request("t")
    assert agent.asked() == ["s", "t"]


def test_a_start_that_nobody_waits_for_is_killed_again_when_it_succeeds(world: World) -> None:
    agent = world.join("a")
    world.request("s").leave()
    agent.starts("s")
    assert agent.kills() == ["s", "s"]
    agent.ends("s")
    assert world.statuses() == {}


def test_the_session_stays_while_somebody_waits(world: World) -> None:
    first, second = world.request("s"), world.request("s")
    first.leave()
    world.join("a").starts("s")
    assert not first.outcomes
    assert second.status.status == Status.STATUS_RUNNING


def test_leaving_after_the_answer_changes_nothing(world: World) -> None:
    agent = world.join("a")
    call = world.request("s")
    agent.starts("s")
    call.leave()
    assert agent.kills() == []
    assert world.statuses() == {"s": "RUNNING"}


# Killing.


def kill(world: World, session_id: str = "", *, service: str = "", force: bool = False) -> None:
    request = velda_pb2.KillSessionRequest(instance_id=1, session_id=session_id, service_name=service, force=force)
    world.registry.kill(request)


def test_a_running_session_is_killed_by_its_agent(world: World) -> None:
    agent = world.join("a")
    world.request("s", service_name="web")
    agent.starts("s")
    kill(world, "s")
    kill(world, "s", force=True)
    assert agent.kills() == ["s", "s"]
    assert [m.kill_session_request.force for m in agent.received[-2:]] == [False, True]
    assert world.statuses() == {"s": "RUNNING"}
    assert not world.request("t", service_name="web").outcomes
    with pytest.raises(RefusedError, match="is being ended"):
        world.request("s")
    agent.ends("s")
    assert agent.asked() == ["s", "t"]


def test_all_sessions_of_a_service_are_killed(world: World) -> None:
    agent = world.join("a", slots=2)
    for name in "stu":
        world.request(name, service_name="web", force_new_session=True)
    kill(world, service="web")
    assert agent.kills() == ["s", "t"]
    assert world.pending() == 0


def test_a_waiting_session_that_is_killed_fails_its_request(world: World) -> None:
    call = world.request("s")
    kill(world, "s")
    assert call.refusal.reason is Reason.SESSION_ENDED
    assert world.statuses() == {}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (velda_pb2.KillSessionRequest(instance_id=1, session_id="t"), Reason.NO_SESSION),
        (velda_pb2.KillSessionRequest(instance_id=2, session_id="s"), Reason.NO_SESSION),
        (velda_pb2.KillSessionRequest(instance_id=1, service_name="web"), Reason.NO_SESSION),
        (velda_pb2.KillSessionRequest(instance_id=1), Reason.BAD_REQUEST),
    ],
)
def test_a_kill_that_names_no_session_is_refused(
    world: World, request_: velda_pb2.KillSessionRequest, reason: Reason
) -> None:
    world.request("s")
    with pytest.raises(RefusedError) as refused:
        world.registry.kill(request_)
    assert refused.value.reason is reason
    assert world.statuses() == {"s": "QUEUEING"}


# Tags and lists.


def test_tags_are_merged_and_an_empty_value_removes(world: World) -> None:
    world.request("s", tags={"a": "1", "b": "2"})
    world.registry.set_tags(velda_pb2.SetTagRequest(instance_id=1, session_id="s", tags={"b": "", "c": "3"}))
    (session,) = world.registry.list(instance_id=1)
    assert dict(session.tags) == {"a": "1", "c": "3"}
    with pytest.raises(RefusedError):
        world.registry.set_tags(velda_pb2.SetTagRequest(instance_id=2, session_id="s"))


def test_a_list_shows_one_instance_or_one_service(world: World) -> None:
    agent = world.join("a")
    world.request("s", service_name="web", user="ada", labels=["x"])
    agent.starts("s")
    world.request("t")
    world.request("u", instance_id=2)
    assert [s.session_id for s in world.registry.list(instance_id=1)] == ["s", "t"]
    (session,) = world.registry.list(instance_id=1, service_name="web")
    assert (session.user, session.pool, session.service_name, list(session.labels)) == ("ada", "cpu", "web", ["x"])
    assert (session.status, session.internal_ip_address) == (Status.STATUS_RUNNING, "ip of a")


# Refusals.


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("nope", Reason.UNKNOWN_POOL, 'no pool "nope"'),
        ("twice", Reason.AMBIGUOUS_POOL, "a/twice, b/twice"),
        ("leaving", Reason.POOL_DELETING, "default/leaving is being deleted"),
    ],
)
def test_a_pool_that_cannot_serve_is_named(name: str, reason: Reason, message: str) -> None:
    leaving = NamespacedName("default", "leaving")
    world = World(CPU, NamespacedName("a", "twice"), NamespacedName("b", "twice"), leaving)
    world.pools.info[leaving] = msgspec.structs.replace(world.pools.info[leaving], deleting=True)
    with pytest.raises(RefusedError, match=message) as refused:
        world.request("s", pool=name)
    assert refused.value.reason is reason
    assert world.statuses() == {}
    world.request("s", pool="b/twice")
    assert world.pending(NamespacedName("b", "twice")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"workload": velda_pb2.Workload()},
        {"task_id": "t"},
        {"dependencies": [velda_pb2.Dependency(upstream_task_id="t")]},
        {"checkpointed": True},
        {"snapshot_name": "x"},
        {"connection_finish_action": velda_pb2.SessionRequest.CONNECTION_FINISH_ACTION_CHECKPOINT},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_batch_work_is_refused_by_name(world: World, fields: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=f"batch work .* unset: {next(iter(fields))}") as refused:
        world.request("s", **fields)
    assert refused.value.reason.code == "UNIMPLEMENTED"
    assert world.statuses() == {}


def test_a_server_that_stops_fails_what_waits_and_ends_streams_cleanly(world: World) -> None:
    agent, busy = world.join("a"), world.join("b")
    started, running = world.request("s"), world.request("t")
    (busy if "t" in busy.asked() else agent).starts("t")
    waiting = world.request("u")
    world.registry.stop()
    assert started.refusal.reason is waiting.refusal.reason is Reason.STOPPING
    assert running.status.status == Status.STATUS_RUNNING
    assert sorted(agent.kills() + busy.kills()) == ["s"]
    assert agent.closed == busy.closed == [None]
    with pytest.raises(RefusedError, match="stopping"):
        world.request("v")
    with pytest.raises(RefusedError, match="stopping"):
        world.join("c")


def test_a_server_that_leads_no_more_starts_nothing_though_nobody_has_stopped_it_yet(world: World) -> None:
    busy = world.join("a")
    running = world.request("s")
    busy.starts("s")
    waiting = world.request("t")
    world.leads = False
    busy.ends("s")
    assert busy.asked() == ["s"], "the agent is free, and another leader's"
    for ask in (lambda: world.request("u"), lambda: world.join("b")):
        with pytest.raises(RefusedError, match="stopping"):
            ask()
    world.registry.stop()
    assert waiting.refusal.reason is Reason.STOPPING
    assert running.status.status == Status.STATUS_RUNNING
