"""What is to be written next, from the Secret's content, what is around it, and the time alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from certs.authority import KeyPair, issue_authority, issue_leaf
from certs.material import Material, blocks, issued_by, names_of
from certs.rotation import Phase, Request, Step, View, issue, next_step, phase

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = ("velda.example.svc", "127.0.0.1")
OVERLAP = 300.0
LEADER = View(leading=True)
FOLLOWER = View()
FRESH = issue(None, "everything", names=NAMES, now=NOW)


def step(
    material: Material | None, view: View, *, later: timedelta = timedelta(), names: tuple[str, ...] = NAMES
) -> Step | None:
    return next_step(material, view, names=names, overlap=OVERLAP, now=NOW + later)


def done(
    material: Material | None, view: View, *, later: timedelta = timedelta(), names: tuple[str, ...] = NAMES
) -> Step:
    found = step(material, view, later=later, names=names)
    assert found
    return found


def rotating() -> Material:
    """In the first phase."""
    return done(FRESH, View(leading=True, requested="ca")).material


@pytest.mark.parametrize("view", [LEADER, FOLLOWER])
@pytest.mark.parametrize("days", [0, 30, 59])
def test_nothing_is_due_in_the_first_two_thirds(view: View, days: int) -> None:
    assert step(FRESH, view, later=timedelta(days=days)) is None


@pytest.mark.parametrize(("view", "days"), [(LEADER, 60), (FOLLOWER, 75)])
def test_the_leaf_is_renewed_and_the_authority_stays(view: View, days: int) -> None:
    assert step(FRESH, view, later=timedelta(days=days - 1)) is None
    renewed = done(FRESH, view, later=timedelta(days=days))
    assert not renewed.fault
    assert renewed.done == {"leaf"}
    assert (renewed.material.bundle, renewed.material.authority) == (FRESH.bundle, FRESH.authority)
    assert renewed.material.leaf != FRESH.leaf
    assert step(renewed.material, view, later=timedelta(days=days)) is None


@pytest.mark.parametrize(("view", "share"), [(LEADER, 2 / 3), (FOLLOWER, 5 / 6)])
def test_the_authority_is_replaced_by_its_age(view: View, share: float) -> None:
    later = timedelta(days=3650 * share, hours=1)
    grown = issue(FRESH, "leaf", names=NAMES, now=NOW + later - timedelta(days=2))
    assert step(grown, view, later=later - timedelta(days=1)) is None
    begun = done(grown, view, later=later)
    assert begun.done == {"ca"}
    assert phase(begun.material) is Phase.PUBLISHING


def test_the_first_certificate_is_issued_by_whoever_sees_that_there_is_none() -> None:
    first = done(None, FOLLOWER)
    assert not first.fault
    assert phase(first.material) is Phase.STEADY
    assert step(first.material, LEADER) is None


def test_where_all_was_lost_what_is_trusted_stays_until_all_have_left_it() -> None:
    strange = issue_leaf(FRESH.authority, names=NAMES, now=NOW).certificate
    again = done(None, View(published=[FRESH.bundle + strange, FRESH.bundle, b"garbage"])).material
    assert blocks(again.bundle) == [again.authority.certificate, FRESH.bundle]
    assert phase(again) is Phase.SWITCHING


def test_a_new_authority_comes_in_phases() -> None:
    first = rotating()
    assert blocks(first.bundle) == [first.authority.certificate, FRESH.bundle]
    assert first.leaf == FRESH.leaf
    for too_soon in (None, OVERLAP - 1):
        assert step(first, View(leading=True, published_for=too_soon, confirmed=True)) is None
    published = View(leading=True, published_for=OVERLAP)
    assert step(first, replace(published, leading=False)) is None
    second = done(first, published).material
    assert phase(second) is Phase.SWITCHING
    assert second.bundle == first.bundle
    assert issued_by(second.leaf.certificate, first.authority.certificate)
    assert step(second, published) is None
    assert step(second, View(confirmed=True)) is None
    third = done(second, replace(published, confirmed=True)).material
    assert third == Material(second.leaf, first.authority.certificate, first.authority)
    assert phase(third) is Phase.STEADY
    assert step(third, LEADER) is None


@pytest.mark.parametrize("requested", ["ca", "leaf"])
def test_a_wish_is_the_leaders_to_fulfil(requested: Request) -> None:
    assert step(FRESH, View(requested=requested)) is None
    assert done(FRESH, View(leading=True, requested=requested)).done == {requested}


def test_a_second_authority_waits_for_the_first() -> None:
    again = View(leading=True, requested="ca")
    first = rotating()
    assert step(first, again) is None
    second = done(first, replace(again, published_for=OVERLAP))
    assert "ca" not in second.done
    assert step(second.material, again) is None
    third = done(second.material, replace(again, confirmed=True))
    assert "ca" not in third.done
    assert done(third.material, again).done == {"ca"}


def test_missing_names_are_added_to_what_another_version_of_us_is_called_by() -> None:
    other = ("other.example.svc",)
    renewed = done(FRESH, FOLLOWER, names=other)
    assert names_of(renewed.material.leaf.certificate) == {*NAMES, *other}
    assert step(renewed.material, FOLLOWER) is None
    assert step(renewed.material, FOLLOWER, names=other) is None
    on_time = done(renewed.material, LEADER, later=timedelta(days=60), names=other)
    assert names_of(on_time.material.leaf.certificate) == set(other)


def test_names_wait_while_their_authority_is_not_published() -> None:
    assert step(rotating(), FOLLOWER, names=("other.example.svc",)) is None


STRANGER = issue_authority(now=NOW)
FOREIGN = issue_leaf(STRANGER, names=NAMES, now=NOW)
LEAF_SPOILED = {
    "unparsable": (replace(FRESH, leaf=KeyPair(b"garbage", FRESH.leaf.key)), "not a PEM certificate"),
    "no key": (replace(FRESH, leaf=KeyPair(FRESH.leaf.certificate, b"")), "not an unencrypted"),
    "mismatch": (replace(FRESH, leaf=KeyPair(FRESH.leaf.certificate, FOREIGN.key)), "does not belong"),
    "another CA's": (replace(FRESH, leaf=FOREIGN), "no CA in ca.crt signed it"),
}


@pytest.mark.parametrize("case", LEAF_SPOILED)
def test_a_leaf_that_cannot_be_used_is_replaced_at_once(case: str) -> None:
    material, reason = LEAF_SPOILED[case]
    mended = done(material, FOLLOWER)
    assert mended.fault
    assert reason in mended.reason
    assert (mended.material.bundle, mended.material.authority) == (FRESH.bundle, FRESH.authority)
    assert step(mended.material, FOLLOWER) is None


@pytest.mark.parametrize("key", [b"", b"garbage", STRANGER.key])
def test_a_lost_key_of_the_authority_begins_its_replacement(key: bytes) -> None:
    mended = done(replace(FRESH, authority=replace(FRESH.authority, key=key)), FOLLOWER)
    assert mended.fault
    assert mended.reason.startswith("ca.crt, ca.key: ")
    assert mended.material.leaf == FRESH.leaf, "it is as good as it was"
    assert phase(mended.material) is Phase.PUBLISHING
    assert blocks(mended.material.bundle)[1:] == [FRESH.bundle]


@pytest.mark.parametrize("bundle", [b"", b"garbage", STRANGER.certificate, FOREIGN.certificate])
def test_a_lost_certificate_of_the_authority_is_found_where_it_is_published(bundle: bytes) -> None:
    spoiled = Material(FRESH.leaf, bundle, replace(FRESH.authority, certificate=bundle))
    mended = done(spoiled, View(published=[FRESH.bundle]))
    assert mended.fault
    assert FRESH.bundle in blocks(mended.material.bundle)[1:]
    assert phase(mended.material) is Phase.SWITCHING


def test_an_expired_leaf_is_mended_in_each_phase() -> None:
    later = timedelta(days=90)
    for material in (FRESH, rotating(), done(rotating(), View(leading=True, published_for=OVERLAP)).material):
        mended = done(material, FOLLOWER, later=later)
        assert "expired at 2026-04-02" in mended.reason
        assert step(mended.material, FOLLOWER, later=later) is None


def test_accidents_never_push_the_authority_in_use_out_of_the_bundle() -> None:
    material = FRESH
    for _ in range(10):
        spoiled = replace(material, authority=replace(material.authority, key=b""))
        material = done(spoiled, FOLLOWER).material
        assert FRESH.bundle in blocks(material.bundle)
    assert len(blocks(material.bundle)) == 4


def test_a_leaf_never_outlives_its_authority() -> None:
    leaf = issue_leaf(STRANGER, names=NAMES, now=NOW + timedelta(days=3600))
    lives = [x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc for pair in (STRANGER, leaf)]
    assert lives[0] == lives[1]
