"""Work queues and the loop that drains them, after client-go's workqueue."""

import time
from collections import deque
from collections.abc import Callable, Iterator

from opsapi.playground.clock import SimClock, Timer
from opsapi.playground.registry import ApiError

_BASE_DELAY = 0.005
_MAX_DELAY = 1000.0
_ROUNDS = 10_000
"""Rounds after which a drain is a livelock: two controllers that undo each other."""


class Livelock(RuntimeError):
    """Controllers kept each other busy at one instant; `keys` are what was still queued."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(f"controllers do not settle; still queued: {', '.join(keys[:10])}")
        self.keys = keys


class SyncError(RuntimeError):
    """A controller failed in a way that it should not; the key will be tried again."""

    def __init__(self, controller: str, key: str) -> None:
        super().__init__(f"{controller} failed on {key}")
        self.controller = controller
        self.key = key


class WorkQueue:
    """Keys to sync: each at most once in the queue, retried with client-go's delays (5 ms doubling to 1000 s)."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._failures: dict[str, int] = {}
        self._later: dict[str, Timer] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def pending(self) -> list[str]:
        return list(self._ready)

    def add(self, key: str) -> None:
        if key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)
            self._clock.wake()

    def pop(self) -> str:
        key = self._ready.popleft()
        self._queued.discard(key)
        return key

    def add_after(self, key: str, delay: float) -> None:
        """Adds the key after `delay` seconds; of several such wishes the earliest counts."""
        due = self._clock.monotonic() + max(0.0, delay)
        pending = self._later.get(key)
        if pending is not None:
            if pending.due <= due:
                return
            pending.cancel()
        self._later[key] = self._clock.call_at(due, lambda: self._due(key))

    def _due(self, key: str) -> None:
        self._later.pop(key, None)
        self.add(key)

    def add_rate_limited(self, key: str) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(_BASE_DELAY * 2 ** min(failures, 30), _MAX_DELAY))

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)


class Controller:
    """One control loop. `sync` gets a key `namespace/name` and brings that object to its desired state.

    An ApiError out of `sync` is retried with back-off, as a returned error is in Go.
    """

    name = ""

    def __init__(self, clock: SimClock) -> None:
        self.clock = clock
        self.queue = WorkQueue(clock)

    def sync(self, namespace: str, name: str) -> None:
        raise NotImplementedError

    def process_next(self) -> None:
        key = self.queue.pop()
        namespace, _, name = key.partition("/")
        try:
            self.sync(namespace, name)
        except ApiError:
            self.queue.add_rate_limited(key)
        except Exception as error:
            self.queue.add_rate_limited(key)
            raise SyncError(self.name, key) from error
        else:
            self.queue.forget(key)


def key_of(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


class Drain:
    """Runs all controllers until every queue is empty, in a fixed order, so that one seed gives one history."""

    def __init__(self) -> None:
        self._controllers: list[Controller] = []
        self._others: list[Callable[[], int]] = []
        self._draining = False
        self._steps: Iterator[None] | None = None
        self.on_error: Callable[[Exception], None] | None = None
        """What happens to a SyncError or Livelock: raised where None, as tests want it; a server logs it."""

    def also(self, work: Callable[[], int]) -> None:
        """Other queued work to do in each round; it returns how much it did."""
        self._others.append(work)

    def add(self, controller: Controller) -> None:
        self._controllers.append(controller)

    def settle(self) -> None:
        """Drains; a nested call (a callback that settles) is a no-op."""
        self.work(None)

    def work(self, deadline: float | None) -> bool:
        """Drains until done (True) or until time.monotonic() passes `deadline`; the next call goes on from there."""
        if self._draining:
            return True
        self._draining = True
        try:
            if self._steps is None:
                self._steps = self._all_rounds()
            for _ in self._steps:
                if deadline is not None and time.monotonic() > deadline:
                    return False
            self._steps = None
            return True
        except BaseException:
            self._steps = None
            raise
        finally:
            self._draining = False

    def _all_rounds(self) -> Iterator[None]:
        for _ in range(_ROUNDS):
            busy = False
            for _ in self._round():
                busy = True
                yield
            if not busy:
                return
        self._failed(Livelock([f"{c.name}:{key}" for c in self._controllers for key in c.queue.pending()]))

    def _round(self) -> Iterator[None]:
        for other in self._others:
            if other():
                yield
        for controller in self._controllers:
            # Only what was queued when its turn came: the others get theirs before it goes on.
            for _ in range(len(controller.queue)):
                try:
                    controller.process_next()
                except SyncError as error:
                    self._failed(error)
                yield

    def _failed(self, error: Exception) -> None:
        if self.on_error is None:
            raise error
        self.on_error(error)
