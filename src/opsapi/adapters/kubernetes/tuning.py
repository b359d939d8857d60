"""The adapter's dials, each with a default that suits a real cluster."""

import msgspec

MAX_LINE_BYTES = 16 * 2**20
"""etcd refuses objects beyond 1.5 MiB by default and a few MiB at most; a longer line is no Kubernetes watch."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds throughout."""

    page_size: int = 500
    connect_timeout: float = 5.0
    request_timeout: float = 20.0
    """For a small request in whole; for a page of a list, between two reads."""
    stale_after: float = 60.0
    """A kind that was not confirmed for longer is STALE. Quiet watches are renewed at about half of it, so that even
    one that hangs is found out and resumed before."""
    read_grace: float = 10.0
    """A watch that is silent for this long past the end it was asked for is taken for dead."""
    quiet_after: float = 2.0
    """A server sends what a watch missed as soon as it is open; silent for this long, it had nothing to send."""
    minimum_interval: float = 1.0
    """Between two tries of one kind."""
    backoff_cap: float = 30.0
    retry_after_cap: float = 300.0
    forbidden_retry: float = 120.0
    unserved_retry: float = 60.0
    probe_interval: float = 5.0
    usage_interval: float = 15.0
    events_kept: int = 2000
    """Events per workspace, the newest."""
    reviews_at_once: int = 8
    upload_allow: tuple[str, ...] = ()
    """Hosts and CIDRs on addresses that an uploaded kubeconfig could not name otherwise."""
