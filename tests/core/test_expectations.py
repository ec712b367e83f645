"""What is under way is not asked for twice, however long an answer or a watch takes, and is not waited for for ever."""

from __future__ import annotations

from app.core.expectations import TTL, Expectations


def test_what_has_no_answer_is_expected_for_as_long_as_that_takes() -> None:
    expectations = Expectations()
    expectations.expect_creation("a")
    expectations.expect_deletion("uid")
    assert expectations.next_expiry is None
    assert list(expectations.creating(now=10 * TTL)) == ["a"]
    assert list(expectations.deleting(now=10 * TTL)) == ["uid"]


def test_after_the_answer_the_watch_has_a_limited_time() -> None:
    expectations = Expectations()
    expectations.expect_creation("a")
    expectations.expect_deletion("uid")
    expectations.creation_answered("a", now=1000.0)
    expectations.deletion_answered("uid", now=1000.0)
    assert list(expectations.creating(now=1000.0 + TTL - 1)) == ["a"]
    assert list(expectations.deleting(now=1000.0 + TTL - 1)) == ["uid"]
    assert expectations.next_expiry == 1000.0 + TTL
    assert not expectations.creating(now=1000.0 + TTL)
    assert not expectations.deleting(now=1000.0 + TTL)


def test_an_answer_after_the_sight_of_the_pod_changes_nothing() -> None:
    expectations = Expectations()
    expectations.expect_creation("a")
    expectations.observe("a", "uid", gone=False)
    expectations.creation_answered("a", now=1000.0)
    assert not expectations.filling
    assert not expectations.creating(now=1000.0)


def test_a_deletion_is_over_when_the_pod_is_seen_to_go() -> None:
    expectations = Expectations()
    expectations.expect_deletion("uid")
    expectations.observe("a", "uid", gone=False)
    assert list(expectations.deleting(now=0.0)) == ["uid"]
    expectations.observe("a", "uid", gone=True)
    assert not expectations.deleting(now=0.0)


def test_what_failed_is_not_expected() -> None:
    expectations = Expectations()
    expectations.expect_creation("a")
    expectations.expect_deletion("uid")
    expectations.creation_failed("a")
    expectations.deletion_failed("uid")
    assert not expectations.creating(now=0.0)
    assert not expectations.deleting(now=0.0)
