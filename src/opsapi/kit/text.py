"""Text of callers and workloads, made harmless where it is shown on one line."""

import re

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def one_line(text: str | None) -> str | None:
    """Without control characters and line breaks, as events, tables, chats and terminals want it; None for nothing."""
    if text is None:
        return None
    return _UNPRINTABLE.sub(" ", text).strip() or None
