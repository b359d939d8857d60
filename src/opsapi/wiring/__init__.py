"""The only package that joins adapters to domains."""

from opsapi.wiring.declarations import DECLARATIONS
from opsapi.wiring.offline import Offline, connect_only, offline
from opsapi.wiring.service import Service, running, sealer_of
from opsapi.wiring.state import State, chain_keys, open_database, opened_state

__all__ = [
    "DECLARATIONS",
    "Offline",
    "Service",
    "State",
    "chain_keys",
    "connect_only",
    "offline",
    "open_database",
    "opened_state",
    "running",
    "sealer_of",
]
