"""Follows one Namespace object by polling.

A workspace that is limited to namespaces has Roles in them and nothing else. A Role may let read its own namespace by
name, but never list or watch namespaces.
"""

import logging
import random
from collections.abc import Callable

from opsapi.adapters.kubernetes.cache import Feed
from opsapi.adapters.kubernetes.reflector import collection_path
from opsapi.adapters.kubernetes.timing import Pace, Timing
from opsapi.adapters.kubernetes.transport import Refused, Transport, Unreachable
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.adapters.kubernetes.wire import Undecodable, decode_object
from opsapi.workspaces.objects import NAMESPACE, Namespace

logger = logging.getLogger(__name__)


class NamespacePoller:
    """Its feed's namespace is the one that it reads."""

    def __init__(
        self,
        feed: Feed,
        transport: Transport,
        tuning: Tuning,
        timing: Timing,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.feed = feed
        self._path = f"{collection_path(NAMESPACE)}/{feed.namespace}"
        self._transport = transport
        self._tuning = tuning
        self._timing = timing
        self._jitter = jitter
        self._pace = Pace(tuning, timing, jitter)

    async def run(self) -> None:
        while True:
            await self._timing.sleep(self._pace.remaining())
            self._pace.begin()
            try:
                await self._read()
            except Exception:
                logger.exception("Reading %s failed", self._path)
                self._pace.fail()

    async def _read(self) -> None:
        try:
            self.feed.replace(decode_object(Namespace, await self._transport.get(self._path)))
        except Refused as refused:
            if refused.status == 403:
                self.feed.forbid(refused.message)
                self._pace.postpone(self._tuning.forbidden_retry * (0.8 + 0.4 * self._jitter()))
                return
            if refused.status != 404 or refused.reason != "NotFound":
                self.feed.trouble(refused.message)
                self._pace.fail(refused.retry_after)
                return
            self.feed.discard("", self.feed.namespace)
        except (Unreachable, Undecodable) as failure:
            self.feed.trouble(str(failure))
            self._pace.fail()
            return
        self.feed.confirm()
        self._pace.succeed()
        self._pace.postpone(self._tuning.stale_after * (0.3 + 0.2 * self._jitter()))
