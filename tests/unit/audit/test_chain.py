"""The chain as pure arithmetic: whatever is done to it without the key is found."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.audit.chain import ChainedEntry, ChainHead, ChainKeys, Checkpoint, checkpoint, links
from opsapi.audit.model import AuditEntry, Outcome
from opsapi.audit.verification import ChainVerifier, Flaw, Verdict
from support.audit import KEY, make_entry

NOON = datetime(2026, 1, 2, 12, 0, 0, 5, tzinfo=UTC)
KEYS = ChainKeys(KEY)
OTHER_KEY = b"another key of thirty-two bytes..."


def chain_of(count: int) -> list[ChainedEntry]:
    entries = [make_entry(NOON + timedelta(seconds=n), path=f"/{n}", reason=f"r{n}") for n in range(count)]
    return [
        ChainedEntry(entry=entry, seq=link.seq, mac=link.mac, key_id=link.key_id)
        for entry, link in zip(entries, links(KEYS, ChainHead(), entries), strict=True)
    ]


def head_of(chain: list[ChainedEntry]) -> ChainHead:
    return ChainHead(chain[-1].seq, chain[-1].mac) if chain else ChainHead()


def judged(
    chain: list[ChainedEntry], head: ChainHead, checkpoints: list[Checkpoint] | None = None, keys: ChainKeys = KEYS
) -> Verdict:
    verifier = ChainVerifier(keys, checkpoints or [])
    for chained in sorted(chain, key=lambda one: one.seq):
        verifier.feed(chained)
    return verifier.finish(head)


def flaws(verdict: Verdict) -> set[tuple[Flaw, int]]:
    return {(finding.flaw, finding.seq) for finding in verdict.findings}


@given(st.integers(0, 40))
def test_an_untouched_chain_is_sound(count: int) -> None:
    chain = chain_of(count)
    marks = [checkpoint(KEYS, ChainHead(one.seq, one.mac), NOON) for one in chain[::7]]
    verdict = judged(chain, head_of(chain), marks)
    assert verdict.sound
    assert (verdict.checked, verdict.last_seq) == (count, count)
    assert verdict.guarded_to == max([0, *(mark.seq for mark in marks)])


def test_a_mac_is_what_the_documentation_says_so_that_later_releases_still_verify_it() -> None:
    entry = AuditEntry(
        id="aud-1",
        at=NOON,
        account_id="sa-1",
        account_kind="agent",
        method="GET",
        path="/ü",
        status=200,
        outcome=Outcome.SUCCEEDED,
        duration_ms=0.25,
        request_id="req-1",
    )
    content = {
        "account_id": "sa-1",
        "account_kind": "agent",
        "at": "2026-01-02T12:00:00.000005+00:00",
        "duration_ms": 0.25,
        "id": "aud-1",
        "method": "GET",
        "outcome": "succeeded",
        "path": "/ü",
        "request_id": "req-1",
        "status": 200,
    }
    genesis = hashlib.sha256(b"opsapi audit chain").hexdigest()
    key_id = hmac.new(KEY, b"opsapi audit key id", "sha256").hexdigest()[:16]
    text = json.dumps(
        ["entry", 1, key_id, 1, genesis, content], ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    [link] = links(KEYS, ChainHead(), [entry])
    assert (link.seq, link.key_id) == (1, key_id)
    assert link.mac == hmac.new(KEY, text.encode(), "sha256").digest()


OPTIONAL = {
    *("account_id", "account_kind", "claimed_account_id", "token_id", "on_behalf_of", "agent_run", "address"),
    *("endpoint", "workspace_id", "resource", "operation_id", "error_code", "reason"),
}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.text(min_size=1),
    "at": st.datetimes(timezones=st.just(UTC)),
    "outcome": st.sampled_from(Outcome),
    "method": st.text(),
    "path": st.text(),
    "status": st.integers(100, 599),
    "duration_ms": st.none() | st.floats(0, 1e6),
    "request_id": st.text(),
} | dict.fromkeys(OPTIONAL, st.none() | st.text())


def test_the_mutations_below_know_every_field() -> None:
    assert FIELDS.keys() == {field.name for field in msgspec.structs.fields(AuditEntry)}


@given(st.data(), st.integers(1, 12), st.sampled_from(sorted(FIELDS)))
def test_one_altered_field_of_one_entry_is_found_there(data: st.DataObject, count: int, field: str) -> None:
    chain = chain_of(count)
    head = head_of(chain)
    place = data.draw(st.integers(0, count - 1))
    value = data.draw(FIELDS[field])
    entry = chain[place].entry
    chain[place] = msgspec.structs.replace(chain[place], entry=msgspec.structs.replace(entry, **{field: value}))
    verdict = judged(chain, head)
    assert verdict.sound is (value == getattr(entry, field))
    if not verdict.sound:
        assert flaws(verdict) == {(Flaw.ALTERED, place + 1)}


@given(st.integers(2, 12), st.data())
def test_an_entry_that_is_gone_is_found(count: int, data: st.DataObject) -> None:
    chain = chain_of(count)
    head = head_of(chain)
    gone = chain.pop(data.draw(st.integers(0, count - 2)))
    assert flaws(judged(chain, head)) == {(Flaw.MISSING, gone.seq)}


@given(st.integers(2, 12), st.data())
def test_an_entry_that_is_gone_is_found_though_the_rest_was_renumbered(count: int, data: st.DataObject) -> None:
    chain = chain_of(count)
    gone = chain.pop(data.draw(st.integers(0, count - 2)))
    chain = [msgspec.structs.replace(one, seq=one.seq - (one.seq > gone.seq)) for one in chain]
    assert not judged(chain, head_of(chain)).sound


@pytest.mark.parametrize("carried", ["content", "whole row"])
@given(data=st.data(), count=st.integers(2, 12))
def test_two_entries_that_changed_places_are_found_and_named(carried: str, data: st.DataObject, count: int) -> None:
    chain = chain_of(count)
    head = head_of(chain)
    one, other = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))
    first, second = chain[one], chain[other]
    if carried == "content":
        chain[one] = msgspec.structs.replace(first, entry=second.entry)
        chain[other] = msgspec.structs.replace(second, entry=first.entry)
    else:
        chain[one] = msgspec.structs.replace(second, seq=first.seq)
        chain[other] = msgspec.structs.replace(first, seq=second.seq)
    found = flaws(judged(chain, head))
    assert {(Flaw.REORDERED, one + 1), (Flaw.REORDERED, other + 1)} <= found
    assert Flaw.ALTERED not in {flaw for flaw, _ in found}


@given(st.integers(1, 12), st.data())
def test_a_cut_off_end_is_found_by_the_head(count: int, data: st.DataObject) -> None:
    chain = chain_of(count)
    kept = data.draw(st.integers(0, count - 1))
    assert flaws(judged(chain[:kept], head_of(chain))) == {(Flaw.CUT_OFF, kept + 1)}


@given(st.integers(1, 12), st.data())
def test_a_cut_off_end_is_found_by_a_checkpoint_though_the_head_was_set_back(count: int, data: st.DataObject) -> None:
    chain = chain_of(count)
    mark = checkpoint(KEYS, head_of(chain), NOON)
    kept = data.draw(st.integers(0, count - 1))
    verdict = judged(chain[:kept], head_of(chain[:kept]), [mark])
    assert flaws(verdict) == {(Flaw.CUT_OFF, kept + 1)}
    assert verdict.findings[0].last_seq == count


def test_a_chain_begun_anew_is_found_by_a_checkpoint() -> None:
    old = chain_of(5)
    mark = checkpoint(KEYS, head_of(old), NOON)
    new = chain_of(9)
    verdict = judged(new, head_of(new), [mark])
    assert flaws(verdict) == {(Flaw.REWRITTEN, 5)}
    assert verdict.guarded_to == 0


def test_an_entry_slipped_in_without_the_key_is_found() -> None:
    chain = chain_of(4)
    forged = ChainedEntry(entry=make_entry(NOON), seq=5, mac=b"\0" * 32, key_id=KEYS.current_id)
    found = flaws(judged([*chain, forged], ChainHead(5, forged.mac)))
    assert found == {(Flaw.ALTERED, 5)}


def test_a_head_that_was_set_back_is_found() -> None:
    chain = chain_of(4)
    assert flaws(judged(chain, head_of(chain[:2]))) == {(Flaw.REWRITTEN, 2)}


def test_a_chain_linked_with_an_attackers_own_key_is_found() -> None:
    attacker = ChainKeys(OTHER_KEY)
    entries = [one.entry for one in chain_of(3)]
    forged = [
        ChainedEntry(entry=entry, seq=link.seq, mac=link.mac, key_id=link.key_id)
        for entry, link in zip(entries, links(attacker, ChainHead(), entries), strict=True)
    ]
    assert {flaw for flaw, _ in flaws(judged(forged, head_of(forged)))} == {Flaw.UNKNOWN_KEY}
    relabelled = [msgspec.structs.replace(one, key_id=KEYS.current_id) for one in forged]
    assert not judged(relabelled, head_of(relabelled)).sound


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 9},
        {"mac": b"\1" * 32},
        {"at": NOON + timedelta(days=1)},
        {"signature": b"\1" * 32},
        {"key_id": "0" * 16},
    ],
)
def test_a_changed_checkpoint_is_no_witness(change: dict[str, Any]) -> None:
    chain = chain_of(3)
    mark = msgspec.structs.replace(checkpoint(KEYS, head_of(chain), NOON), **change)
    verdict = judged(chain, head_of(chain), [mark])
    assert {flaw for flaw, _ in flaws(verdict)} == {Flaw.FORGED_CHECKPOINT}
    assert verdict.guarded_to == 0


def test_a_chain_goes_on_over_a_change_of_keys() -> None:
    old, both = ChainKeys(OTHER_KEY), ChainKeys(KEY, previous=[OTHER_KEY])
    entries = [make_entry(NOON + timedelta(seconds=n)) for n in range(6)]
    first = links(old, ChainHead(), entries[:3])
    second = links(both, ChainHead(first[-1].seq, first[-1].mac), entries[3:])
    chain = [
        ChainedEntry(entry=entry, seq=link.seq, mac=link.mac, key_id=link.key_id)
        for entry, link in zip(entries, first + second, strict=True)
    ]
    assert judged(chain, head_of(chain), keys=both).sound
    assert not judged(chain, head_of(chain), keys=KEYS).sound


def test_a_wholesale_rewrite_is_told_in_bounded_time_and_space() -> None:
    chain = [
        msgspec.structs.replace(one, entry=msgspec.structs.replace(one.entry, account_id="sa-else"))
        for one in chain_of(500)
    ]
    verdict = judged(chain, head_of(chain))
    assert verdict.flaws == 500
    assert len(verdict.findings) == 100


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ChainKeys(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        ChainKeys(KEY, previous=[b""])


def test_entries_fed_out_of_order_are_the_readers_mistake() -> None:
    chain = chain_of(2)
    verifier = ChainVerifier(KEYS)
    verifier.feed(chain[1])
    with pytest.raises(ValueError, match="fed after"):
        verifier.feed(chain[0])
