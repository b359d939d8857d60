"""Asks an API server every few seconds who it is: whether it can be reached, and what time it is there."""

import logging
from collections.abc import Callable

import msgspec

from opsapi.adapters.kubernetes.clustertime import ClusterClock
from opsapi.adapters.kubernetes.timing import Timing
from opsapi.adapters.kubernetes.transport import Refused, Transport, Unreachable
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.workspaces.ports import ClusterState

logger = logging.getLogger(__name__)


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    git_version: str


class Probe:
    """Keeps the control plane's state; `on_return` is called when it answers after it did not."""

    def __init__(
        self,
        transport: Transport,
        tuning: Tuning,
        timing: Timing,
        cluster_clock: ClusterClock,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._tuning = tuning
        self._timing = timing
        self._cluster_clock = cluster_clock
        self._on_return = on_return
        self.state = ClusterState(None, None, "not tried yet", None, None)

    async def run(self) -> None:
        while True:
            before = self.state.reachable
            try:
                self.state = await self.ask()
            except Exception:
                logger.exception("The probe of the API server failed")
            if self.state.reachable and before is False:
                self._on_return()
            await self._timing.sleep(self._tuning.probe_interval)

    async def ask(self) -> ClusterState:
        begun = self._timing.monotonic()
        version, reason = None, ""
        try:
            body = await self._transport.get("/version")
            version = msgspec.json.decode(body, type=_Version).git_version.removeprefix("v")
        except Unreachable as failure:
            return self._said(False, None, failure.reason, None)
        except Refused as refused:
            if refused.status >= 500 or refused.status in (401, 429):
                reason = "the credentials are not accepted" if refused.status == 401 else refused.message
                return self._said(False, None, reason, None)
            reason = f"the version cannot be read: {refused.message}"
        except msgspec.DecodeError:
            return self._said(False, None, "what answers is no Kubernetes API server", None)
        return self._said(True, version, reason, round((self._timing.monotonic() - begun) * 1000, 1))

    def _said(self, reachable: bool, version: str | None, reason: str, latency: float | None) -> ClusterState:
        return ClusterState(reachable, version, reason, self._cluster_clock.now(), latency)
