"""A changed template: running agents stay, idle ones make room in small steps, a bad version is given up."""

from __future__ import annotations

from app.core.breaker import FORGET_AFTER, MAX_DELAY
from tests.core.world import World


def pool_of(idle: int, **limits: int) -> World:
    world = World(**{"min_idle": idle, "max_idle": idle + 2, "max_replicas": 20} | limits)
    world.settle()
    world.join()
    assert world.versions == ["v1"] * idle
    return world


def looks_again(world: World) -> bool:
    """Before what is wrong is forgotten, and whatever happens."""
    assert world.plan
    return world.plan.next_at is not None and world.now < world.plan.next_at <= world.now + FORGET_AFTER + MAX_DELAY


def joined(world: World) -> int:
    return len(world.agents)


def test_a_surge_comes_first_and_old_agents_serve_until_one_new_has_joined() -> None:
    world = pool_of(4)
    world.retemplate("v2", max_surge=1, max_unavailable=0)
    assert world.versions == ["v1"] * 4 + ["v2"]
    assert world.deleted == []
    world.join()
    assert world.versions == ["v1"] * 3 + ["v2"] * 2
    for _ in range(4):
        world.join()
        assert len(world.agents) >= 4
    assert world.versions == ["v2"] * 4


def test_unavailable_agents_go_only_once_the_new_version_has_proved_itself() -> None:
    world = pool_of(4)
    world.retemplate("v2", max_surge="25%", max_unavailable="50%")
    assert world.deleted == []
    world.join()
    assert joined(world) >= 2
    assert world.versions.count("v1") <= 2
    for _ in range(4):
        world.join()
    assert world.versions == ["v2"] * 4


def test_at_the_maximum_one_old_agent_makes_room_for_the_first_new_one() -> None:
    world = pool_of(3, max_replicas=3, max_idle=3)
    world.retemplate("v2")
    assert world.versions == ["v1", "v1", "v2"]
    world.join()
    for _ in range(3):
        assert len(world.pods) <= 3
        world.join()
    assert world.versions == ["v2"] * 3


def test_running_agents_are_never_touched_and_go_when_their_sessions_end() -> None:
    world = pool_of(1, max_replicas=4)
    world.request("s")
    old = world.where("s")
    world.retemplate("v2")
    for _ in range(4):
        world.join()
    assert world.where("s") == old
    assert world.versions == ["v1", "v2"]
    assert world.condition("Reconciling") == "False"
    world.end("s")
    world.join()
    world.advance(60)
    assert world.versions == ["v2"]


def test_on_delete_leaves_idle_agents_alone_but_new_ones_are_of_the_new_version() -> None:
    world = pool_of(2)
    world.retemplate("v2", strategy="OnDelete")
    world.advance(3600)
    assert world.versions == ["v1", "v1"]
    world.request("s")
    assert world.versions == ["v1", "v1", "v2"]
    assert (world.status["updatedReplicas"], world.status["outdatedReplicas"]) == (1, 2)


def test_a_version_that_never_works_is_given_up_for_the_last_good_one() -> None:
    world = pool_of(2)
    world.retemplate("v2", progress_deadline_second=300)
    for _ in range(400):
        for name in world.pods_of("v2"):
            world.wait_for(name, "ImagePullBackOff")
        world.advance(1)
    assert world.versions == ["v1", "v1"]
    assert world.status["rollout"]["failedTemplateHash"] == "v2"
    assert world.condition("Stalled") == "True"
    assert "ImagePullBackOff" in world.status["rollout"]["failure"]
    assert world.events.count("RolledBack") == 1
    assert all(name not in world.deleted for name in world.pods_of("v1"))
    world.request("s")
    assert world.versions == ["v1", "v1", "v1"]


def test_a_mended_template_is_tried_again_after_a_rollback() -> None:
    world = pool_of(1)
    world.retemplate("v2", progress_deadline_second=60)
    for _ in range(100):
        for name in world.pods_of("v2"):
            world.wait_for(name, "CrashLoopBackOff")
        world.advance(1)
    assert world.condition("Stalled") == "True"
    world.retemplate("v3")
    for _ in range(3):
        world.join()
    world.advance(120)
    assert world.versions == ["v3"]
    assert world.condition("Stalled") == "False"
    assert set(world.revisions) == {"v3"}


def test_a_restart_forgets_neither_the_rollback_nor_the_time_that_a_rollout_has_taken() -> None:
    world = pool_of(1)
    world.retemplate("v2", progress_deadline_second=100)
    for second in range(150):
        if second == 60:
            world.restart()
            world.return_from_restart(*world.lost_agents)
        for name in world.pods_of("v2"):
            world.wait_for(name, "ErrImagePull")
        world.advance(1)
    assert world.status["rollout"]["failedTemplateHash"] == "v2"
    world.restart()
    world.return_from_restart(*world.lost_agents)
    world.advance(200)
    assert world.versions == ["v1"]


def test_without_an_older_version_there_is_nothing_to_go_back_to_and_the_pool_is_stalled() -> None:
    world = World()
    world.settle()
    for _ in range(700):
        for name in world.pods_of("v1"):
            world.wait_for(name, "ImagePullBackOff")
        world.advance(1)
    assert world.condition("Stalled") == "True"
    assert "ImagePullBackOff" in next(c["message"] for c in world.status["conditions"] if c["type"] == "Stalled")


def test_without_surge_one_old_agent_makes_room_for_the_first_new_one() -> None:
    world = pool_of(2)
    world.retemplate("v2", max_surge=0, max_unavailable=1)
    assert world.versions == ["v1", "v2"]
    world.join()
    world.join()
    assert world.versions == ["v2", "v2"]


def test_agents_with_fewer_slots_than_expected_are_replaced_too() -> None:
    world = World(min_idle=3, max_idle=8, max_replicas=20, default_slots_per_agent=4)
    world.settle()
    for _ in range(3):
        world.join(*(name for name in world.pods if name not in world.agents), slots=1)
    assert world.versions == ["v1"] * 3
    world.retemplate("v2", max_surge="25%", max_unavailable="25%")
    assert world.versions == ["v1", "v1", "v2"]
    world.join()
    assert world.versions == ["v2"]


def test_agents_with_more_slots_than_expected_are_replaced_without_taking_back_what_was_asked_for() -> None:
    world = World(min_idle=7, max_idle=7, max_replicas=20)
    world.settle()
    for _ in range(2):
        world.join(next(name for name in world.pods if name not in world.agents), slots=4)
    world.retemplate("v2", max_surge="100%", max_unavailable=0)
    for _ in range(10):
        world.join()
    assert world.versions == ["v2"] * 7
    assert len(world.created) <= 7 + 2 * 7


def test_a_rollout_that_was_refused_is_tried_again_though_nothing_else_happens() -> None:
    world = pool_of(1)
    world.refusal = "no room"
    world.retemplate("v2", max_surge=1, max_unavailable=0)
    world.refusal = ""
    world.retemplate("v2", max_surge=0, max_unavailable=1)
    assert world.versions == ["v1"]
    assert looks_again(world)
    world.advance(FORGET_AFTER + MAX_DELAY)
    assert world.versions == ["v2"]


def test_an_error_is_forgotten_though_nothing_else_happens() -> None:
    world = pool_of(1)
    world.refusal = "no room"
    world.request("s")
    world.cancel("s")
    world.end("s")
    world.refusal = ""
    assert world.breaker.problem
    assert looks_again(world)
    world.advance(FORGET_AFTER + MAX_DELAY)
    assert not world.breaker.problem
    assert "lastError" not in world.status
