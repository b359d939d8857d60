"""What requested and used resources cost a month. Pure."""

from typing import Annotated

import msgspec
from msgspec import Meta

HOURS_A_MONTH = 730
"""24 x 365 / 12."""
GIBIBYTE = 2**30
_DEFAULT = "the service's default price book (list prices of a large cloud, on demand)"
Price = Annotated[float, Meta(ge=0, le=1000)]


class CostSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price book. With your own prices, say in `source` where they come from."""

    vcpu_hour: Price = 0.031611
    """One vCPU for an hour."""
    gib_hour: Price = 0.004237
    """One GiB of memory for an hour."""
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "USD"
    """As ISO 4217 names it."""
    source: str = ""
    """Where the prices come from: named beside every figure."""

    @property
    def named(self) -> str:
        own = (self.vcpu_hour, self.gib_hour) != (0.031611, 0.004237)
        return self.source or ("the configured price book" if own else _DEFAULT)


def monthly_cpu(costs: CostSettings, requested: float, used: float) -> float:
    """Millicores: what is reserved or used, whichever is more, is paid for."""
    return max(requested, used) / 1000 * costs.vcpu_hour * HOURS_A_MONTH


def monthly_memory(costs: CostSettings, requested: float, used: float) -> float:
    """Bytes."""
    return max(requested, used) / GIBIBYTE * costs.gib_hour * HOURS_A_MONTH
