"""`opsapi serve` that dies by kill -9 where it would keep its first answer under an Idempotency-Key.

python -m support.mortal_service serve -c CONFIG --ready-file FILE
"""

import os
import signal

from opsapi.adapters.sql.idempotency import SqlIdempotencyStore
from opsapi.cli import main
from opsapi.kit.idempotency import StoredAnswer


async def _die(self: SqlIdempotencyStore, claim_id: str, answer: StoredAnswer) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    SqlIdempotencyStore.finish = _die  # type: ignore[method-assign]
    main()
