"""Agents that join, break off, come back, leave and are removed; and what becomes of their sessions."""

from __future__ import annotations

import pytest

from app.broker.agents import Strength
from app.broker.refusal import Reason, RefusedError
from app.broker.registry import SILENCE_TIMEOUT
from app.core.agents import AgentView, PoolAgents
from app.model.meta import NamespacedName
from app.proto import velda_pb2
from tests.broker.world import CPU, Status, World, execution

GPU = NamespacedName("default", "gpu")


@pytest.fixture
def world() -> World:
    return World()


def reason_of(refusal: RefusedError | None) -> Reason | None:
    return refusal.reason if refusal else None


# What the controller sees.


def test_a_pool_that_nobody_joined_is_empty(world: World) -> None:
    assert world.registry.pool_agents(CPU) == PoolAgents()


def test_an_agent_is_seen_idle_then_with_its_session_then_idle_anew(world: World) -> None:
    world.now = 5.0
    agent = world.join("a", slots=2)
    assert agent.view == AgentView(name="a", connected=True, slots=2, sessions=0, since=5.0)
    world.now = 7.0
    world.request("s")
    assert (agent.view.sessions, agent.view.since) == (1, 7.0)
    world.now = 8.0
    world.request("t")
    agent.starts("s")
    agent.starts("t")
    world.now = 9.0
    agent.ends("t")
    assert (agent.view.sessions, agent.view.since) == (1, 8.0)
    agent.ends("s")
    assert (agent.view.sessions, agent.view.since) == (0, 9.0)


def test_the_controller_is_told_of_all_that_scaling_reads(world: World) -> None:
    def told() -> bool:
        seen, world.changed[:] = world.changed == [CPU] * len(world.changed) != [], []
        return seen

    waiting = world.request("s")
    assert told()
    waiting.leave()
    assert told()
    agent = world.join("a")
    assert told()
    world.request("t")
    assert told()
    agent.starts("t", success=False)
    assert told()
    world.pass_time(1.0)
    agent.starts("t")
    world.changed.clear()
    agent.says()
    assert not told()
    agent.ends("t")
    assert told()
    world.registry.lost(agent)
    assert told()


# Streams that break, and agents that come back.


def test_a_lost_stream_makes_sessions_stale_and_the_same_report_makes_them_run_again(world: World) -> None:
    agent = world.join("a")
    world.request("s")
    agent.starts("s")
    world.now = 10.0
    world.registry.lost(agent)
    assert world.statuses() == {"s": "STALE"}
    assert agent.view == AgentView(name="a", connected=False, slots=1, sessions=1, since=10.0)
    again = world.join("a", execution("s"))
    assert world.statuses() == {"s": "RUNNING"}
    assert again.kills() == []
    again.ends("s")
    assert world.statuses() == {}


def test_a_lost_agent_gets_no_session(world: World) -> None:
    world.registry.lost(world.join("a"))
    world.request("s")
    assert world.pending() == 1


def test_a_session_that_is_no_longer_reported_is_over(world: World) -> None:
    agent = world.join("a")
    world.request("s")
    agent.starts("s")
    world.registry.lost(agent)
    world.join("a")
    assert world.statuses() == {}


def test_sessions_from_before_this_process_led_are_taken_over(world: World) -> None:
    agent = world.join("a", execution("s"), execution("t"), execution("t"), execution(""), slots=2)
    assert world.statuses() == {"s": "RUNNING", "t": "RUNNING"}
    assert agent.view.sessions == 2
    status = world.request("s").status
    assert (status.ssh_connection.port, status.HasField("started_at")) == (2222, False)
    agent.ends("s")
    assert world.statuses() == {"t": "RUNNING"}


def test_a_session_that_was_still_starting_when_the_agent_joined_again_is_awaited(world: World) -> None:
    agent = world.join("a", execution("s", started=False))
    call = world.request("s")
    assert not call.outcomes
    agent.starts("s")
    assert call.status.status == Status.STATUS_RUNNING


def test_an_unanswered_session_of_a_lost_agent_goes_to_another(world: World) -> None:
    first = world.join("first")
    call = world.request("s")
    second = world.join("second")
    world.registry.lost(first)
    assert second.asked() == ["s"]
    again = world.join("first", execution("s"))
    assert again.kills() == ["s"]
    second.starts("s")
    assert call.status.ssh_connection.host == "ip of second"


def test_an_unanswered_session_that_waits_again_is_taken_over_when_its_agent_has_it(world: World) -> None:
    agent = world.join("a")
    call = world.request("s")
    world.registry.lost(agent)
    assert world.pending() == 1
    again = world.join("a", execution("s"))
    assert call.status.status == Status.STATUS_RUNNING
    assert again.asked() == []
    assert world.pending() == 0


def test_an_unanswered_session_that_was_given_up_meanwhile_is_ended_when_its_agent_has_it(world: World) -> None:
    agent = world.join("a")
    call = world.request("s")
    world.registry.lost(agent)
    call.leave()
    again = world.join("a", execution("s"))
    assert again.kills() == ["s"]
    assert world.statuses() == {}


def test_a_session_killed_while_its_agent_was_lost_is_ended_when_it_is_back(world: World) -> None:
    agent = world.join("a")
    world.request("s")
    agent.starts("s")
    world.registry.lost(agent)
    world.registry.kill(velda_pb2.KillSessionRequest(instance_id=1, session_id="s", force=True))
    assert world.statuses() == {"s": "STALE"}
    again = world.join("a", execution("s"))
    assert again.kills() == ["s"]
    assert again.received[-1].kill_session_request.force
    again.ends("s")
    assert world.statuses() == {}


def test_a_session_given_up_while_it_started_is_not_started_elsewhere(world: World) -> None:
    first = world.join("first")
    world.request("s").leave()
    world.registry.lost(first)
    assert world.join("second").asked() == []
    assert world.join("first", execution("s", started=False)).kills() == ["s"]


def test_an_agent_cannot_claim_what_waits_for_others_or_runs_elsewhere(world: World) -> None:
    owner = world.join("owner")
    world.request("s")
    owner.starts("s")
    call = world.request("waiting")
    thief = world.join("thief", execution("s"), execution("waiting"), slots=0)
    assert thief.kills() == ["s", "waiting"]
    assert thief.asked() == ["waiting"]
    assert not call.outcomes
    assert owner.view.sessions == 1


def test_an_agent_cannot_claim_a_session_of_another_pool() -> None:
    """Neither one that lives there, nor a made-up one, which would be the one that a service's clients are sent to."""
    world = World(CPU, GPU)
    world.join("owner", execution("s"))
    world.request("waiting")
    thief = world.join("thief", execution("s"), execution("waiting"), execution("new"), pool=GPU)
    assert thief.kills() == ["s", "waiting", "new"]
    assert thief.view.sessions == 0
    assert world.statuses() == {"s": "RUNNING", "waiting": "QUEUEING"}
    honest = world.join("honest", execution("t", pool="gpu"), execution("u", pool="default/gpu"), slots=2, pool=GPU)
    assert honest.kills() == []
    assert honest.view.sessions == 2


@pytest.mark.parametrize("lost", [False, True])
def test_a_weaker_second_stream_changes_nothing(world: World, lost: bool) -> None:
    first = world.join("a", execution("s"), slots=2, strength=Strength.ADDRESS)
    if lost:
        world.registry.lost(first)
    before = first.view, world.statuses(), list(first.received)
    with pytest.raises(RefusedError, match="agent a of pool default/cpu is authenticated by HOST_ADDRESS") as refused:
        world.join("a", execution("t"), strength=Strength.HOST_ADDRESS)
    assert refused.value.reason is Reason.WEAKER_PROOF
    assert (first.view, world.statuses(), first.received) == before
    assert len(first.closed) == lost


def test_a_stronger_second_stream_replaces_the_first_and_the_pod_that_follows_begins_afresh(world: World) -> None:
    first = world.join("a", execution("s"), strength=Strength.HOST_ADDRESS)
    second = world.join("a", execution("s"), strength=Strength.TOKEN)
    assert [reason_of(why) for why in first.closed] == [Reason.AGENT_REPLACED]
    assert second.view.sessions == 1
    world.registry.forget(CPU, "a")
    assert world.join("a", strength=Strength.ADDRESS).view.connected


def test_an_agent_can_answer_for_and_end_its_own_sessions_only(world: World) -> None:
    owner = world.join("owner")
    call = world.request("s")
    other = world.join("other")
    other.starts("s")
    assert not call.outcomes
    assert other.kills() == ["s"]
    owner.starts("s")
    other.ends("s")
    owner.ends("s", instance_id=2)
    assert world.statuses() == {"s": "RUNNING"}


def test_a_second_stream_replaces_the_first(world: World) -> None:
    first = world.join("a", slots=2)
    world.request("s")
    world.request("t")
    first.starts("s")
    first.starts("t")
    second = world.join("a", execution("s"), slots=2)
    assert [reason_of(why) for why in first.closed] == [Reason.AGENT_REPLACED]
    assert world.statuses() == {"s": "RUNNING"}
    first.ends("s")
    world.registry.lost(first)
    world.registry.left(first)
    assert world.statuses() == {"s": "RUNNING"}
    assert second.view.connected
    second.ends("s")
    assert world.statuses() == {}


def test_what_the_first_stream_left_unanswered_is_asked_of_the_second(world: World) -> None:
    first = world.join("a")
    call = world.request("s")
    second = world.join("a")
    assert (first.asked(), second.asked()) == (["s"], ["s"])
    second.starts("s")
    assert call.status.status == Status.STATUS_RUNNING


def test_a_half_closed_stream_ends_the_sessions(world: World) -> None:
    agent = world.join("a", slots=2)
    world.request("s")
    agent.starts("s")
    call = world.request("t")
    world.registry.left(agent)
    assert agent.closed == [None]
    assert world.statuses() == {"t": "QUEUEING"}
    assert (agent.view.connected, agent.view.sessions) == (False, 0)
    world.join("b").starts("t")
    assert call.status.status == Status.STATUS_RUNNING


def test_a_silent_agent_is_lost_and_a_heartbeat_keeps_it(world: World) -> None:
    agent = world.join("a")
    world.pass_time(SILENCE_TIMEOUT - 1)
    agent.says()
    world.pass_time(SILENCE_TIMEOUT - 1)
    assert (agent.view.connected, agent.closed) == (True, [])
    world.pass_time(1.0)
    assert agent.view == AgentView(name="a", connected=False, slots=1, sessions=0, since=world.now)
    assert [reason_of(why) for why in agent.closed] == [Reason.AGENT_SILENT]
    world.pass_time(10 * SILENCE_TIMEOUT)
    assert len(agent.closed) == 1


# Removal by the controller.


def test_a_drained_agent_gets_no_session_and_may_not_join_again(world: World) -> None:
    agent = world.join("a")
    assert world.registry.drain(CPU, "a")
    assert agent.view.draining
    world.request("s")
    assert agent.asked() == []
    with pytest.raises(RefusedError) as refused:
        world.join("a")
    assert refused.value.reason is Reason.AGENT_DRAINED
    world.registry.undrain(CPU, "a")
    assert agent.asked() == ["s"]


def test_an_agent_with_a_session_is_not_drained(world: World) -> None:
    agent = world.join("a", slots=2)
    world.request("s")
    assert not world.registry.drain(CPU, "a")
    world.request("t")
    assert agent.asked() == ["s", "t"]


def test_an_agent_that_never_joined_is_drained_too(world: World) -> None:
    assert world.registry.drain(CPU, "a")
    with pytest.raises(RefusedError, match="is being removed"):
        world.join("a")
    world.registry.forget(CPU, "a")
    world.join("a")


def test_a_lost_agent_is_drained_with_its_sessions_and_may_not_come_back(world: World) -> None:
    agent = world.join("a")
    world.request("s")
    agent.starts("s")
    world.registry.lost(agent)
    assert world.registry.drain(CPU, "a")
    with pytest.raises(RefusedError, match="is being removed"):
        world.join("a", execution("s"))
    assert world.statuses() == {"s": "STALE"}
    world.registry.undrain(CPU, "a")
    world.join("a", execution("s"))
    assert world.statuses() == {"s": "RUNNING"}


def test_an_agent_whose_pod_is_terminating_keeps_its_sessions_and_gets_no_more(world: World) -> None:
    agent = world.join("a", slots=2)
    world.request("s")
    agent.starts("s")
    world.registry.terminating(CPU, "a")
    world.registry.terminating(CPU, "b")
    world.request("t")
    assert agent.asked() == ["s"]
    assert world.statuses() == {"s": "RUNNING", "t": "QUEUEING"}


def test_when_the_pod_is_gone_so_are_its_sessions(world: World) -> None:
    agent = world.join("a", slots=2)
    world.request("s")
    agent.starts("s")
    world.request("t")
    world.registry.forget(CPU, "a")
    world.registry.forget(CPU, "a")
    assert [reason_of(why) for why in agent.closed] == [Reason.AGENT_GONE]
    assert world.registry.pool_agents(CPU).agents == {}
    assert world.statuses() == {"t": "QUEUEING"}
    world.pass_time(1000.0)


def test_a_closed_pool_ends_what_it_has_and_takes_nothing_new(world: World) -> None:
    agent, lost = world.join("a"), world.join("b")
    running, starting = world.request("s"), world.request("t")
    for one in (agent, lost):
        if "s" in one.asked():
            one.starts("s")
    waiting = world.request("u")
    world.registry.close_pool(CPU)
    world.registry.close_pool(CPU)
    assert sorted(agent.kills() + lost.kills()) == ["s", "t"]
    assert waiting.refusal.reason is starting.refusal.reason is Reason.POOL_DELETING
    assert running.status.status == Status.STATUS_RUNNING
    with pytest.raises(RefusedError, match="is being deleted"):
        world.request("v")
    late = world.join("c", execution("w"))
    assert late.kills() == ["w"]


def test_a_pool_of_the_same_name_starts_afresh(world: World) -> None:
    agent, other = world.join("a"), world.join("b")
    world.request("s")
    (agent if agent.asked() else other).starts("s")
    world.registry.drain(CPU, "c")
    world.registry.forget_pool(CPU)
    world.registry.forget_pool(CPU)
    assert [reason_of(why) for why in agent.closed + other.closed] == [Reason.UNKNOWN_POOL] * 2
    assert world.registry.pool_agents(CPU) == PoolAgents()
    assert world.statuses() == {}
    world.request("t")
    assert world.join("c").asked() == ["t"]


def test_pools_of_one_name_in_two_namespaces_are_apart() -> None:
    other = NamespacedName("team", "cpu")
    world = World(CPU, other)
    world.join("a")
    theirs = world.join("a", pool=other)
    world.registry.forget_pool(CPU)
    assert theirs.closed == []
    assert theirs.view.connected
