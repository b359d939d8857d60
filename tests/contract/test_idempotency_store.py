"""Kept answers on both engines: the first answer to a key is the answer, whoever asks and whatever died meanwhile."""

import asyncio

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.idempotency import SqlIdempotencyStore
from opsapi.adapters.sql.tables import idempotency_keys
from opsapi.kit.idempotency import Claimed, InProgress, Reused, StoredAnswer
from support.acting import SetClock

ANSWER = StoredAnswer(status=202, headers={"location": "/internal/v1/operations/op-1"}, body=b'{"data":{}}\xff\x00')
WHO = ("sa-a", "POST", "/internal/v1/x", "key-1")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def store(database: Database, clock: SetClock) -> SqlIdempotencyStore:
    return SqlIdempotencyStore(database, clock)


async def _claimed(store: SqlIdempotencyStore, body: bytes = b"f") -> Claimed:
    found = await store.claim(*WHO, body)
    assert isinstance(found, Claimed)
    return found


async def test_the_first_answer_is_replayed_byte_for_byte(store: SqlIdempotencyStore) -> None:
    await store.finish((await _claimed(store)).claim_id, ANSWER)
    assert await store.claim(*WHO, b"f") == ANSWER


async def test_a_twin_is_told_that_the_work_runs(store: SqlIdempotencyStore) -> None:
    await _claimed(store)
    assert await store.claim(*WHO, b"f") == InProgress()


async def test_another_body_under_the_same_key_is_told_so_before_and_after_the_answer(
    store: SqlIdempotencyStore,
) -> None:
    claim = await _claimed(store)
    assert await store.claim(*WHO, b"other") == Reused()
    await store.finish(claim.claim_id, ANSWER)
    assert await store.claim(*WHO, b"other") == Reused()


@pytest.mark.parametrize("place", range(4))
async def test_keys_of_another_account_method_path_or_name_are_other_keys(
    store: SqlIdempotencyStore, place: int
) -> None:
    await store.finish((await _claimed(store)).claim_id, ANSWER)
    other = list(WHO)
    other[place] += "2"
    assert isinstance(await store.claim(other[0], other[1], other[2], other[3], b"f"), Claimed)


async def test_parts_of_a_key_cannot_be_shifted_into_each_other(store: SqlIdempotencyStore) -> None:
    await store.claim("sa-a", "POST", "/x/", "ykey", b"f")
    assert isinstance(await store.claim("sa-a", "POST", "/x/y", "key", b"f"), Claimed)


async def test_an_abandoned_key_may_be_tried_again_with_any_body(store: SqlIdempotencyStore) -> None:
    await store.abandon((await _claimed(store)).claim_id)
    assert isinstance(await store.claim(*WHO, b"other"), Claimed)


async def test_an_answer_cannot_be_abandoned_or_replaced_afterwards(store: SqlIdempotencyStore) -> None:
    claim = await _claimed(store)
    await store.finish(claim.claim_id, ANSWER)
    await store.abandon(claim.claim_id)
    await store.finish(claim.claim_id, StoredAnswer(status=500, headers={}, body=b""))
    assert await store.claim(*WHO, b"f") == ANSWER


async def test_a_dead_owners_claim_is_taken_over_and_its_late_answer_is_fenced_off(
    store: SqlIdempotencyStore, clock: SetClock
) -> None:
    dead = await _claimed(store)
    clock.advance(59)
    assert await store.claim(*WHO, b"f") == InProgress()
    clock.advance(1)
    heir = await _claimed(store)
    await store.finish(dead.claim_id, StoredAnswer(status=200, headers={}, body=b"late"))
    await store.abandon(dead.claim_id)
    assert await store.claim(*WHO, b"f") == InProgress()
    await store.finish(heir.claim_id, ANSWER)
    assert await store.claim(*WHO, b"f") == ANSWER


async def test_a_taken_over_claim_still_refuses_another_body(store: SqlIdempotencyStore, clock: SetClock) -> None:
    await _claimed(store)
    clock.advance(61)
    assert await store.claim(*WHO, b"other") == Reused()


async def test_a_key_lives_a_day_and_is_then_free_and_purged(
    store: SqlIdempotencyStore, clock: SetClock, database: Database
) -> None:
    await store.finish((await _claimed(store)).claim_id, ANSWER)
    clock.advance(24 * 3600 - 1)
    assert await store.purge() == 0
    assert await store.claim(*WHO, b"f") == ANSWER
    clock.advance(1)
    await _claimed(store, b"other")
    await store.claim("sa-b", *WHO[1:], b"f")
    clock.advance(24 * 3600)
    assert await store.purge() == 2
    async with database.read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(idempotency_keys))).scalar_one() == 0


async def test_of_many_twins_at_once_on_two_replicas_one_gets_the_claim(database_url: str) -> None:
    replicas = [Database(database_url) for _ in range(2)]
    stores = [SqlIdempotencyStore(replica, SetClock()) for replica in replicas]
    found = await asyncio.gather(*(stores[n % 2].claim(*WHO, b"f") for n in range(20)))
    assert sum(isinstance(one, Claimed) for one in found) == 1
    assert sum(isinstance(one, InProgress) for one in found) == 19
    for replica in replicas:
        await replica.close()


async def test_an_answer_survives_a_restart(database_url: str) -> None:
    before = Database(database_url)
    store = SqlIdempotencyStore(before, SetClock())
    await store.finish((await _claimed(store)).claim_id, ANSWER)
    await before.close()
    after = Database(database_url)
    assert await SqlIdempotencyStore(after, SetClock()).claim(*WHO, b"f") == ANSWER
    await after.close()
