"""The reflector against a server that misbehaves in every way a real one has been seen to."""

import pytest

from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.workspaces.objects import POD, Pod
from opsapi.workspaces.ports import Sync
from support.leaping import until
from support.misbehaving import (
    GONE_IN_STREAM,
    Fault,
    Reply,
    Request,
    answers,
    events,
    hangs,
    hangs_in_stream,
    slams,
    status_body,
    streams,
)
from support.reflecting import Rig, filled, reflecting

IMPATIENT = Tuning(page_size=3, request_timeout=0.1, stale_after=0.1, read_grace=0.05)


async def test_a_paged_list_and_a_watch_keep_the_cache_equal() -> None:
    async with reflecting(filled()) as rig:
        await rig.until_faithful()
        assert [one.query.get("limit") for one in rig.server.tries(watch=False)] == ["3", "3", "3"]
        rig.collection.put("shop", "web-0", status={"phase": "Running"})
        rig.collection.put("bank", "new")
        rig.collection.delete("shop", "web-1")
        rig.collection.put("shop", "web-2", recreate=True)
        await rig.until_faithful()
        assert len(rig.server.tries(watch=False)) == 3
        held = rig.cache.get(POD, Pod, "shop", "web-0")
        assert held is not None
        assert held.status.phase == "Running"


async def test_before_the_first_list_has_ended_nothing_is_claimed() -> None:
    async with reflecting(filled()) as rig:
        rig.server.list_faults.append(hangs)
        await until(lambda: rig.server.requests)
        assert rig.state.sync is Sync.PENDING
        assert rig.state.observed_at is None


async def test_half_a_list_is_not_a_list() -> None:
    async with reflecting(filled()) as rig:
        rig.server.always["/api/v1/pods"] = _only_first_page(rig)
        await until(lambda: len(rig.server.requests) > 4)
        assert rig.state.sync is Sync.PENDING
        rig.server.always.clear()
        await rig.until_faithful()


def _only_first_page(rig: Rig) -> Fault:
    async def fault(request: Request, reply: Reply) -> None:
        if "continue" in request.query:
            return
        items = list(rig.collection.objects.values())[:3]
        await reply.json(200, {"metadata": {"resourceVersion": "9", "continue": "-1:x"}, "items": items})

    return fault


async def test_a_clean_close_is_resumed_from_where_it_was() -> None:
    async with reflecting(filled()) as rig:
        one = rig.collection.put("shop", "late")
        rig.collection.history.clear()
        rig.server.watch_faults.append(streams(events(("ADDED", one))))
        await rig.until_faithful()
        await until(lambda: len(rig.server.tries(watch=True)) >= 2)
        assert rig.server.tries(watch=True)[1].query["resourceVersion"] == one["metadata"]["resourceVersion"]
        assert len(rig.server.tries(watch=False)) == 3


async def test_a_cut_mid_line_is_resumed_without_loss() -> None:
    async with reflecting(filled()) as rig:
        await rig.until_faithful()
        first = rig.collection.put("shop", "first")
        second = rig.collection.put("shop", "second")
        line = events(("ADDED", first)) + events(("ADDED", second))[:-40]
        rig.server.watch_faults.extend([streams(line, clean=False), streams(events(("ADDED", second))[:30])])
        await rig.server.cut()
        await rig.until_faithful()
        assert len(rig.server.tries(watch=False)) == 3


async def test_lines_that_come_in_tiny_chunks_are_put_together() -> None:
    async with reflecting(filled(2)) as rig:
        await rig.until_faithful()
        one = rig.collection.put("shop", "tiny", status={"phase": "Running"})
        whole = events(("ADDED", one))
        rig.server.watch_faults.append(streams(*(whole[i : i + 1] for i in range(len(whole)))))
        await rig.server.cut()
        await rig.until_faithful()


async def test_a_huge_line_is_read_whole() -> None:
    async with reflecting(filled(1)) as rig:
        await rig.until_faithful()
        rig.collection.put("shop", "huge", metadata={"labels": {"big": "x" * 3_000_000}})
        await rig.until_faithful()
        held = rig.cache.get(POD, Pod, "shop", "huge")
        assert held is not None
        assert len(held.metadata.labels["big"]) == 3_000_000


@pytest.mark.parametrize("gone", [GONE_IN_STREAM, answers(410, "Expired")], ids=["in the stream", "as HTTP status"])
async def test_410_is_answered_by_a_list_whose_differences_are_told(gone: Fault) -> None:
    async with reflecting(filled()) as rig:
        await rig.until_faithful()
        rig.server.watch_faults.append(gone)
        await rig.server.cut()
        rig.collection.delete("shop", "web-3")
        rig.collection.put("shop", "web-4", status={"phase": "Failed"})
        rig.collection.put("shop", "web-5", recreate=True)
        rig.collection.put("shop", "web-9")
        rig.collection.compact()
        before = len(rig.ear.told)
        await rig.until_faithful()
        assert len(rig.ear.told) - before == 5
        assert len(rig.server.tries(watch=False)) == 6


async def test_a_continue_token_that_expires_while_paging_begins_the_list_again() -> None:
    collection = filled()
    async with reflecting(collection) as rig:

        async def compacts(request: Request, reply: Reply) -> None:
            await reply.json(410, status_body(410, "Expired", "The provided continue parameter is too old"))

        rig.server.list_faults.extend([_pass_first_page(rig), compacts])
        await rig.until_faithful()


def _pass_first_page(rig: Rig) -> Fault:
    async def fault(request: Request, reply: Reply) -> None:
        await rig.server._list(rig.collection, request, reply)

    return fault


async def test_tokens_that_always_expire_end_in_a_list_of_everything_at_once() -> None:
    async with reflecting(filled()) as rig:

        async def fault(request: Request, reply: Reply) -> None:
            if "continue" in request.query:
                await reply.json(410, status_body(410, "Expired"))
            elif request.is_watch:
                await rig.server._watch(rig.collection, request, reply)
            else:
                await rig.server._list(rig.collection, request, reply)

        rig.server.always["/api/v1/pods"] = fault
        await rig.until_faithful()
        assert "limit" not in rig.server.tries(watch=False)[-1].query


async def test_a_list_that_goes_round_in_a_circle_is_given_up() -> None:
    async with reflecting(filled()) as rig:

        async def circle(request: Request, reply: Reply) -> None:
            items = list(rig.collection.objects.values())[:3]
            await reply.json(200, {"metadata": {"resourceVersion": "9", "continue": "-1:x"}, "items": items})

        rig.server.always["/api/v1/pods"] = circle
        await until(lambda: rig.time.seconds > 100)
        assert rig.state.sync is Sync.PENDING
        assert "circle" in rig.state.reason
        assert len(rig.server.requests) <= 2 * rig.time.seconds
        rig.server.always.clear()
        await rig.until_faithful()


async def test_a_watch_that_is_open_again_and_has_nothing_to_say_confirms_the_cache() -> None:
    async with reflecting(filled()) as rig:
        await rig.until_faithful()
        rig.time.seconds += 1000
        assert rig.state.sync is Sync.STALE
        await rig.server.cut()
        await until(lambda: rig.state.sync is Sync.SYNCED)
        assert rig.state.observed_at is not None
        assert len(rig.server.tries(watch=False)) == 3


async def test_a_server_that_is_away_for_minutes_and_comes_back_is_found_again() -> None:
    async with reflecting(filled()) as rig:
        await rig.until_faithful()
        await rig.server.stop()
        rig.collection.delete("shop", "web-0")
        rig.collection.put("shop", "while-away")
        left = rig.time.seconds
        await until(lambda: rig.time.seconds > left + 300)
        assert rig.state.sync is Sync.STALE
        assert "connect" in rig.state.reason
        assert rig.state.objects == 8
        assert len(rig.time.sleeps) < 40
        await rig.server.start()
        await rig.until_faithful()
        assert len(rig.server.tries(watch=False)) == 3


async def test_a_server_that_hangs_before_it_answers_is_given_up() -> None:
    async with reflecting(filled(), tuning=IMPATIENT) as rig:
        rig.server.list_faults.extend([hangs, slams])
        await rig.until_faithful()
        assert len(rig.server.tries(watch=False)) == 5


async def test_a_watch_that_falls_silent_is_taken_for_dead_and_resumed() -> None:
    async with reflecting(filled(), tuning=IMPATIENT) as rig:
        rig.server.watch_faults.append(hangs_in_stream)
        await until(lambda: len(rig.server.tries(watch=True)) >= 2)
        await rig.until_faithful()
        assert len(rig.server.tries(watch=False)) == 3


async def test_403_says_forbidden_and_is_hardly_ever_retried() -> None:
    async with reflecting(filled()) as rig:
        rig.server.always["/api/v1/pods"] = answers(
            403, body=status_body(403, "Forbidden", 'pods is forbidden: User "reader" cannot list resource "pods"')
        )
        await until(lambda: rig.time.seconds > 3600)
        assert rig.state.sync is Sync.FORBIDDEN
        assert "cannot list" in rig.state.reason
        assert rig.state.observed_at is None
        assert 25 <= len(rig.server.requests) <= 35
        rig.server.always.clear()
        await rig.until_faithful()


async def test_a_kind_that_is_not_served_is_a_fact_until_it_is() -> None:
    async with reflecting(filled()) as rig:
        rig.server.always["/api/v1/pods"] = answers(404, body=b"404 page not found\n")
        await until(lambda: rig.time.seconds > 600)
        assert rig.state.sync is Sync.UNSERVED
        assert 8 <= len(rig.server.requests) <= 13
        rig.server.always.clear()
        await rig.until_faithful()


async def test_404s_from_a_proxy_do_not_wipe_what_was_read() -> None:
    async with reflecting(filled()) as rig:
        await rig.until_faithful()
        rig.server.always["/api/v1/pods"] = answers(404, body=b"no such backend")
        await rig.server.cut()
        left = rig.time.seconds
        await until(lambda: rig.time.seconds > left + 120)
        assert rig.state.sync is Sync.STALE
        assert rig.state.objects == 8
        rig.server.always.clear()
        await rig.until_faithful()


async def test_a_garbage_line_is_resumed_and_garbage_again_leads_to_a_list() -> None:
    async with reflecting(filled(2)) as rig:
        rig.server.watch_faults.extend([streams(b'{"type": "ADDED", "obj\n'), streams(b"\xff\xfe\x00\n")])
        await until(lambda: len(rig.server.tries(watch=True)) >= 3)
        rig.collection.put("shop", "after")
        await rig.until_faithful()
        assert len(rig.server.tries(watch=False)) == 2


async def test_an_object_that_does_not_fit_hides_no_other() -> None:
    collection = filled(2)
    collection.put("shop", "odd", spec={"containers": "all of them"})
    async with reflecting(collection) as rig:
        await until(lambda: rig.state.sync is Sync.SYNCED)
        assert set(rig.versions()) == {("shop", "web-0"), ("shop", "web-1")}
        assert "shop/odd" in rig.state.reason
        rig.collection.put("shop", "web-1", spec={"containers": 7})
        rig.collection.put("shop", "web-2", spec={"containers": None})
        await rig.collection.publish()
        await until(lambda: ("shop", "web-2") in rig.versions())
        assert set(rig.versions()) == {("shop", "web-0"), ("shop", "web-2")}
        assert len(rig.server.tries(watch=False)) == 1


async def test_duplicates_and_events_out_of_order_change_nothing_back() -> None:
    async with reflecting(filled(3)) as rig:
        await rig.until_faithful()
        old = rig.collection.objects[("shop", "web-0")]
        new = rig.collection.put("shop", "web-0", status={"phase": "Running"})
        doomed = rig.collection.objects[("shop", "web-1")]
        rig.collection.delete("shop", "web-1")
        gone = rig.collection.history[-1][2]
        other = rig.collection.put("shop", "web-2", status={"phase": "Running"})
        rig.server.watch_faults.append(
            streams(
                events(
                    ("MODIFIED", other),
                    ("MODIFIED", new),
                    ("MODIFIED", new),
                    ("MODIFIED", old),
                    ("DELETED", gone),
                    ("DELETED", gone),
                    ("MODIFIED", doomed),
                )
            )
        )
        rig.collection.history.clear()
        before = len(rig.ear.told)
        await rig.server.cut()
        await rig.until_faithful()
        assert len(rig.ear.told) - before == 3
        await until(
            lambda: rig.server.tries(watch=True)[-1].query["resourceVersion"] == str(rig.collection.version),
            "the resumption point does not go back",
        )


async def test_a_late_deletion_does_not_take_its_namesake_along() -> None:
    async with reflecting(filled(1)) as rig:
        await rig.until_faithful()
        rig.collection.put("shop", "web-0", recreate=True)
        (_, _, gone), (_, _, reborn) = rig.collection.history[-2:]
        rig.server.watch_faults.append(streams(events(("ADDED", reborn), ("DELETED", gone))))
        await rig.server.cut()
        await rig.until_faithful()


async def test_bookmarks_alone_confirm_the_cache_and_move_the_resumption_point() -> None:
    async with reflecting(filled(1)) as rig:
        await rig.until_faithful()
        mark = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "77", "creationTimestamp": None}}
        rig.server.watch_faults.append(streams(events(("BOOKMARK", mark))))
        await rig.server.cut()
        await until(lambda: rig.server.tries(watch=True)[-1].query["resourceVersion"] == "77")
        assert rig.state.sync is Sync.SYNCED
        assert len(rig.server.tries(watch=False)) == 1
