"""Which count a request is charged to, and where a caller stands in them."""

from opsapi.accounts.model import LimitState
from opsapi.http.settings import HttpSettings
from opsapi.kit.caller import Caller
from opsapi.kit.endpoint import LIMIT_CLASSES, LimitClass
from opsapi.kit.limits import RateLimiter


def limit_key(limit: LimitClass, account_id: str, scope_id: str = "") -> str:
    return f"{limit.name}:{account_id}:{scope_id}" if limit.scoped else f"{limit.name}:{account_id}"


class CallerLimits:
    """What whoami tells of rate limits; asking counts nothing."""

    def __init__(self, limiter: RateLimiter, settings: HttpSettings) -> None:
        self._limiter = limiter
        self._limits = [(limit, settings.limits.get(limit.name, limit.per_minute)) for limit in LIMIT_CLASSES]

    async def __call__(self, caller: Caller) -> list[LimitState]:
        states = []
        for limit, per_minute in self._limits:
            if limit.scoped:
                states.append(LimitState(name=limit.name, per_minute=per_minute))
                continue
            window = await self._limiter.peek(limit_key(limit, caller.account_id), per_minute)
            states.append(
                LimitState(name=limit.name, per_minute=per_minute, remaining=window.remaining, reset=window.reset)
            )
        return states
