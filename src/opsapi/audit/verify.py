"""Verifies the stored chain against its head and every checkpoint at hand: what `audit verify` runs."""

from collections.abc import Iterable
from datetime import timedelta

import msgspec

from opsapi.audit.chain import ChainKeys, Checkpoint
from opsapi.audit.ports import ChainStore
from opsapi.audit.verification import ChainVerifier, Verdict
from opsapi.kit.clock import Clock

PAGE = 1000
UNCHAINED_AFTER = timedelta(minutes=1)


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """`unlinked`: entries older than a minute that no chainer has linked; not a flaw, but nothing protects them."""

    verdict: Verdict
    unlinked: int


async def verify(store: ChainStore, keys: ChainKeys, clock: Clock, exported: Iterable[Checkpoint] = ()) -> AuditReport:
    """`exported`: the checkpoints from outside the database. Entries that are linked meanwhile are read too.

    Raises DependencyUnavailable.
    """
    verifier = ChainVerifier(keys, [*exported, *await store.checkpoints()])
    last = 0
    while True:
        page = await store.chained(last, PAGE)
        for chained in page:
            verifier.feed(chained)
            last = chained.seq
        if page:
            continue
        # The head is read after the entries that it must not lie behind; whoever linked more meanwhile sends us on.
        head = await store.head()
        if head.seq > last and await store.chained(last, 1):
            continue
        unlinked = await store.unchained(clock.now() - UNCHAINED_AFTER)
        return AuditReport(verdict=verifier.finish(head), unlinked=unlinked)
