"""The API of health."""

from opsapi.health import examples
from opsapi.health.board import HealthBoard
from opsapi.health.model import Health
from opsapi.kit.caller import Call
from opsapi.kit.endpoint import HEALTH, Idempotency, NoBody, NoParams, Reply, Scope, endpoint
from opsapi.kit.permissions import Permission


class HealthEndpoints:
    def __init__(self, board: HealthBoard) -> None:
        self._board = board

    @endpoint(
        "GET",
        "/internal/v1/health",
        permission=Permission.SYSTEM_READ,
        scope=Scope.SYSTEM,
        limit=HEALTH,
        idempotency=Idempotency.SAFE,
        summary="Get the system's health",
        tag="Health",
        answer=Health,
        examples=(examples.HEALTH,),
        fields=True,
    )
    async def get_system_health(self, _call: Call, _params: NoParams, _body: NoBody) -> Reply[Health]:
        """The components as last probed in the background, each with its own `observed_at`; over all workspaces. What
        could not be asked is `unknown`, what failed is `unhealthy`: never `healthy`."""
        return self._board.reply
