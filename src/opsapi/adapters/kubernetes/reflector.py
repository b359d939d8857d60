"""Keeps one kind of the cache equal to the cluster: list, watch, and whatever goes wrong in between."""

import asyncio
import logging
import random
from collections.abc import Callable
from time import perf_counter

from opsapi.adapters.kubernetes.cache import Feed
from opsapi.adapters.kubernetes.lines import LineSplitter, LineTooLong
from opsapi.adapters.kubernetes.timing import Pace, Rest, Timing
from opsapi.adapters.kubernetes.transport import Refused, Transport, Unreachable
from opsapi.adapters.kubernetes.tuning import MAX_LINE_BYTES, Tuning
from opsapi.adapters.kubernetes.wire import (
    Bookmark,
    Deleted,
    Failed,
    Undecodable,
    Unreadable,
    WatchEvent,
    decode_event,
    decode_page,
)
from opsapi.workspaces.objects import Kind, KubernetesObject

logger = logging.getLogger(__name__)

_SLICE = 0.005
"""Seconds that the event loop is held at most while events are applied."""


class _Expired(Exception):
    """The resourceVersion (or continue token) is older than the history that the server keeps."""


class _Broken(Exception):
    """The stream ended otherwise than it should."""


def collection_path(kind: Kind, namespace: str = "") -> str:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{scope}/{kind.resource}"


class Reflector:
    """Runs until cancelled. After the first list it only watches, and lists again when the server's history or our
    trust in the stream is lost; the differences that a list shows are told to listeners like events."""

    def __init__(
        self,
        feed: Feed,
        transport: Transport,
        tuning: Tuning,
        timing: Timing,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.feed = feed
        self._kind = feed.kind
        self._path = collection_path(feed.kind, feed.namespace)
        self._transport = transport
        self._tuning = tuning
        self._timing = timing
        self._jitter = jitter
        self._pace = Pace(tuning, timing, jitter)
        self._rest = Rest(timing)
        self._version = ""
        """What to watch from; empty: list first."""
        self._expiries = 0
        self._garbled = 0
        self._begun = False
        self._server_away = False
        self._note = ""
        self._slice_ends = 0.0

    def nudge(self) -> None:
        """The server answers again: no need to wait for the end of a long back-off."""
        if self._server_away:
            self._pace.hasten()
            self._rest.wake()

    async def run(self) -> None:
        while True:
            # A wake-up only shortens the wait; the pace is asked again.
            while (wait := self._pace.remaining()) > 0:
                await self._rest.sleep(wait)
            self._pace.begin()
            self._server_away = False
            try:
                if not self._version:
                    self._version = await self._list()
                await self._watch()
            except _Expired:
                self._expire()
            except Refused as refused:
                self._refused(refused)
            except Unreachable as failure:
                self._away(failure.reason)
            except _Broken as broken:
                self._failed(str(broken))
            except (Undecodable, LineTooLong) as garbled:
                self._garble(str(garbled))
            except Exception:
                logger.exception("The reflector of %s failed", self._path)
                self._version = ""
                self._failed("internal error of the reflector")

    # lists

    async def _list(self) -> str:
        """Returns the resourceVersion to watch from. Where continue tokens expire twice under our hands, the third
        try asks for everything at once."""
        for limit in (self._tuning.page_size, self._tuning.page_size, 0):
            try:
                return await self._list_pages(limit)
            except Refused as refused:
                if refused.status != 410:
                    raise
        raise _Expired

    async def _list_pages(self, limit: int) -> str:
        self._begin()
        seen: set[tuple[str, str]] = set()
        unreadable: list[str] = []
        token = ""
        while True:
            query = {"limit": str(limit)} if limit else {}
            if token:
                query["continue"] = token
            page = decode_page(self._kind, await self._transport.get(self._path, query, large=True))
            await self._replace(page.items or [], seen)
            unreadable += page.unreadable
            if not page.metadata.continue_:
                break
            if page.metadata.continue_ == token:
                raise Undecodable("a list that goes round in a circle")
            token = page.metadata.continue_
        if not page.metadata.resource_version:
            raise Undecodable("a list without resourceVersion")
        self.feed.retain(seen)
        self._note = f"{len(unreadable)} cannot be read: {unreadable[0]}" if unreadable else ""
        self.feed.confirm(self._note)
        return page.metadata.resource_version

    async def _replace(self, items: list[KubernetesObject], seen: set[tuple[str, str]]) -> None:
        for start in range(0, len(items), 500):
            if start:
                await asyncio.sleep(0)
            for one in items[start : start + 500]:
                seen.add(self.feed.replace(one))

    # watches

    async def _watch(self) -> None:
        """Ends when the server ends it as asked; raises otherwise."""
        self._begin()
        lifetime = self._tuning.stale_after * (0.4 + 0.2 * self._jitter())
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(lifetime))),
        }
        splitter = LineSplitter(MAX_LINE_BYTES)
        begun = self._timing.monotonic()
        progress = False
        async with self._transport.stream(self._path, query, read_timeout=lifetime + self._tuning.read_grace) as chunks:
            quiet = asyncio.ensure_future(self._confirm_when_quiet())
            self._slice_ends = perf_counter() + _SLICE
            try:
                async for chunk in chunks:
                    quiet.cancel()
                    for line in splitter.feed(chunk):
                        self._apply(decode_event(self._kind, line))
                        progress = True
                        if perf_counter() > self._slice_ends:
                            await asyncio.sleep(0)
                            self._slice_ends = perf_counter() + _SLICE
                    if progress:
                        self._succeed()
            finally:
                quiet.cancel()
        if splitter.pending:
            raise _Broken("a watch was cut in the middle of a line")
        if not progress and self._timing.monotonic() - begun < self._tuning.minimum_interval:
            raise _Broken("a watch was closed at once")
        self._succeed()

    async def _confirm_when_quiet(self) -> None:
        await self._timing.sleep(self._tuning.quiet_after)
        self.feed.confirm(self._note)

    def _apply(self, event: WatchEvent | None) -> None:
        match event:
            case None:
                return
            case Failed(object=status):
                if status.code == 410 or status.reason in ("Expired", "Gone"):
                    raise _Expired
                raise Refused(status.code, status, None)
            case Bookmark(object=marked):
                self._advance(marked.metadata.resource_version)
            case Unreadable():
                self.feed.discard(event.namespace, event.name)
                self._note = f"an object cannot be read: {event.reason}"
                self._advance(event.metadata.resource_version)
            case Deleted(object=one):
                self._advance(self.feed.remove(one))
            case _:
                self._advance(self.feed.apply(event.object))

    def _advance(self, version: str) -> None:
        """Events that come out of order must not move the resumption point back."""
        try:
            if int(version) > int(self._version):
                self._version = version
        except ValueError:
            self._version = version or self._version

    # outcomes

    def _begin(self) -> None:
        if self._begun:
            self.feed.restarts += 1
        self._begun = True

    def _succeed(self) -> None:
        self._pace.succeed()
        self._expiries = self._garbled = 0
        self.feed.confirm(self._note)

    def _failed(self, reason: str, retry_after: float | None = None) -> None:
        self.feed.trouble(reason)
        self._pace.fail(retry_after)

    def _away(self, reason: str, retry_after: float | None = None) -> None:
        self._server_away = retry_after is None
        self._failed(reason, retry_after)

    def _expire(self) -> None:
        """Once is life; again and again without an event between is a fault to back off from."""
        self._version = ""
        self._expiries += 1
        if self._expiries > 1:
            self._failed("the server's history expires faster than it can be read")

    def _garble(self, reason: str) -> None:
        """The line may have been damaged on its way: resume before it. If it comes again, only a list helps."""
        self._garbled += 1
        if self._garbled > 1:
            self._version = ""
        self._failed(reason)

    def _refused(self, refused: Refused) -> None:
        match refused.status:
            case 410:
                self._expire()
            case 403:
                self._version = ""
                self.feed.forbid(refused.message)
                self._pace.postpone(self._tuning.forbidden_retry * (0.8 + 0.4 * self._jitter()))
            case 404 if self._kind.optional or not self.feed.synced:
                self._version = ""
                self.feed.unserve(f"the cluster does not serve {self._kind} in {self._kind.api_version}")
                self._pace.postpone(self._tuning.unserved_retry * (0.8 + 0.4 * self._jitter()))
            case 400 | 404 | 405 | 422:
                self._version = ""
                self._failed(refused.message, refused.retry_after)
            case 401:
                self._failed("the credentials are not accepted")
            case _:
                self._away(refused.message, refused.retry_after)
