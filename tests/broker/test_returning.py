"""A new leader: requests that may mean a session of the term before wait for its agent, and start nothing twice."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from app.broker.refusal import Reason, RefusedError
from app.broker.returning import REJOIN_TIME
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from tests.broker.world import CPU, Status, World, execution

GPU = NamespacedName("default", "gpu")


@pytest.fixture
def world() -> World:
    """At the start of a term, when the pods a and b are there and their agents are not."""
    world = World(CPU, GPU)
    world.pools.add_pod(CPU, "a")
    world.pools.add_pod(CPU, "b")
    world.new_term()
    return world


def service(session_id: str, name: str = "web") -> velda_pb2.CurrentExecution:
    report = execution(session_id)
    report.request.service_name = name
    return report


def test_a_repeated_request_that_is_quicker_than_the_agent_gets_the_session_that_runs(world: World) -> None:
    call = world.request("s")
    other = world.join("b")
    assert (other.asked(), call.outcomes) == ([], [])
    assert (world.statuses(), world.pending()) == ({"s": "QUEUEING"}, 1)
    agent = world.join("a", execution("s"))
    assert (call.status.status, call.status.ssh_connection.host) == (Status.STATUS_RUNNING, "ip of a")
    assert agent.kills() == other.asked() == []
    assert (world.statuses(), world.pending()) == ({"s": "RUNNING"}, 0)
    call.leave()
    assert world.statuses() == {"s": "RUNNING"}


def test_when_all_are_here_and_none_has_it_it_starts(world: World) -> None:
    call = world.request("s")
    first = world.join("a")
    world.now = 1.0
    second = world.join("b")
    assert (first.asked(), second.asked()) == ([], ["s"])
    second.starts("s")
    assert call.status.ssh_connection.host == "ip of b"
    world.request("t")
    assert first.asked() == ["t"]


def test_a_pod_that_is_gone_is_not_waited_for(world: World) -> None:
    agent = world.join("a")
    world.request("s", priority=1)
    world.registry.forget(CPU, "b")
    assert agent.asked() == ["s"]


def test_an_agent_that_does_not_come_is_waited_for_so_long(world: World) -> None:
    agent = world.join("a")
    world.request("s", init_timeout=Duration(seconds=500))
    world.pass_time(REJOIN_TIME - 0.1)
    agent.says()
    assert agent.asked() == []
    world.pass_time(0.2)
    assert agent.asked() == ["s"]
    assert world.join("b", execution("s")).kills() == ["s"]


def test_requests_that_can_mean_no_session_of_before_do_not_wait(world: World) -> None:
    agent = world.join("a", slots=5)
    world.request()
    world.request(service_name="web", force_new_session=True)
    assert len(agent.asked()) == 2
    gpu = world.join("g", pool=GPU)
    world.request("s", pool="gpu")
    assert gpu.asked() == ["s"]


def test_a_service_is_found_again_by_its_name(world: World) -> None:
    calls = [world.request(service_name="web"), world.request("x", service_name="web")]
    forced = world.request("y", service_name="web", force_new_session=True)
    another = world.request(service_name="db")
    world.join("a", service("s"))
    assert [call.status.session_id for call in calls] == ["s", "s"]
    assert (forced.outcomes, another.outcomes, world.pending()) == ([], [], 2)
    agent = world.join("b", slots=2)
    assert len(agent.asked()) == 2
    assert world.statuses()["s"] == "RUNNING"


def test_who_leaves_meanwhile_ends_nothing_that_runs(world: World) -> None:
    world.request("s").leave()
    assert world.pending() == 0
    agent = world.join("a", execution("s"))
    assert (world.statuses(), agent.kills()) == ({"s": "RUNNING"}, [])


def test_a_session_of_another_pool_is_not_given_away_and_not_ended(world: World) -> None:
    world.pools.add_pod(GPU, "g")
    world.new_term()
    call = world.request("s", pool="gpu")
    agent = world.join("a", execution("s"))
    assert call.refusal.reason is Reason.SESSION_ENDED
    assert (agent.kills(), world.statuses(), world.pending(GPU)) == ([], {"s": "RUNNING"}, 0)


@pytest.mark.parametrize("requested", [False, True])
def test_nothing_is_said_to_be_unknown_before_all_are_here(world: World, requested: bool) -> None:
    if requested:
        world.request("s")
    for call in (
        lambda: world.registry.kill(velda_pb2.KillSessionRequest(instance_id=1, session_id="s")),
        lambda: world.registry.set_tags(velda_pb2.SetTagRequest(instance_id=1, session_id="s", tags={"a": "b"})),
        lambda: world.request(service_name="web", disallow_new_session=True),
    ):
        with pytest.raises(RefusedError, match="2 agents have not joined since the leader changed") as refused:
            call()
        assert (refused.value.reason, refused.value.reason.code) == (Reason.RETURNING, "UNAVAILABLE")
    world.pass_time(REJOIN_TIME)
    with pytest.raises(RefusedError) as refused:
        world.request(service_name="web", disallow_new_session=True)
    assert refused.value.reason is Reason.NO_SESSION


def test_a_pool_that_is_deleted_meanwhile_and_a_leader_that_stops_fail_what_is_held(world: World) -> None:
    call = world.request("s")
    world.registry.close_pool(CPU)
    assert call.refusal.reason is Reason.POOL_DELETING
    world.new_term()
    call = world.request("s")
    world.registry.stop()
    assert call.refusal.reason is Reason.STOPPING
    assert world.statuses() == {}


def test_of_a_session_whose_agent_is_gone_for_good_it_is_told_why(world: World) -> None:
    agent = world.join("a", execution("s"))
    world.join("b")
    world.registry.lost(agent)
    assert world.statuses() == {"s": "STALE"}
    assert world.request("s").status.status == Status.STATUS_STALE
    world.registry.forget(CPU, "a")  # as the controller does after killUnknownAfterSecond
    assert world.statuses() == {}
    ending = 'session "s" has ended: its agent is gone'
    with pytest.raises(RefusedError, match=ending):
        world.registry.kill(velda_pb2.KillSessionRequest(instance_id=1, session_id="s"))
    with pytest.raises(RefusedError, match=ending) as refused:
        world.request("s", disallow_new_session=True)
    assert refused.value.reason is Reason.NO_SESSION
    assert not world.request("s").outcomes
