"""What the registry tells a pool's trace: every session's and agent's way, in order."""

from __future__ import annotations

from tests.broker.world import World


def told(world: World) -> list[tuple[str, ...]]:
    """Each record's type and what it is about."""
    rows = []
    for record in world.records:
        values = [getattr(record, name) for name in record.__struct_fields__ if name != "at"]
        rows.append((type(record).__name__, *map(str, values)))
    return rows


def test_a_session_that_waits_starts_and_ends() -> None:
    world = World()
    world.request("s")
    agent = world.join("a")
    agent.starts("s")
    agent.ends("s")
    assert told(world) == [
        ("SessionRequested", "1/s", "0"),
        ("AgentJoined", "a", "1"),
        ("SessionStarted", "1/s", "a"),
        ("SessionEnded", "1/s"),
    ]


def test_one_that_is_given_up_and_one_that_an_agent_refuses() -> None:
    world = World()
    world.request("gone").leave()
    world.request("s")
    world.join("a").starts("s", success=False)
    assert told(world) == [
        ("SessionRequested", "1/gone", "0"),
        ("SessionCancelled", "1/gone"),
        ("SessionRequested", "1/s", "0"),
        ("AgentJoined", "a", "1"),
        ("SessionStarted", "1/s", "a"),
        ("SessionReturned", "1/s"),
    ]


def test_a_lost_agent_keeps_its_session_in_the_trace() -> None:
    world = World()
    agent = world.join("a")
    world.request("s")
    agent.starts("s")
    world.registry.lost(agent)
    assert told(world)[-1] == ("AgentLost", "a")
