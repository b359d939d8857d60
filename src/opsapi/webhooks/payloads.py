"""What is sent: the payload of Standard Webhooks, and a plain text for Slack."""

import re
from datetime import datetime
from typing import Any

import msgspec

from opsapi.kit.clock import rfc3339
from opsapi.webhooks.model import PING, Event

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
_MENTION = re.compile("@(?=channel|here|everyone)", re.IGNORECASE)
_LONGEST_LINE = 300
_LINES = 20


def payload(event: Event) -> bytes:
    """`{"type", "timestamp", "data"}`; the same bytes for every attempt and every receiver."""
    return _encoded(str(event.type), event.occurred_at, event.data)


def ping_payload(webhook_id: str, at: datetime) -> bytes:
    return _encoded(PING, at, {"webhook_id": webhook_id})


def _encoded(kind: str, at: datetime, data: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"type": kind, "timestamp": rfc3339(at), "data": data})


def slack_message(event: Event) -> bytes:
    """Markup is off, and nothing in it can mention or link: much of `data` is text that others wrote."""
    title = f"{event.type}{f' in {event.workspace_id}' if event.workspace_id else ''} at {rfc3339(event.occurred_at)}"
    lines = [
        title,
        *(f"{key}: {_shown(value)}" for key, value in event.data.items() if value not in (None, "", [], {})),
    ]
    text = "\n".join(slack_escaped(line) for line in lines[:_LINES])
    return msgspec.json.encode({"text": text, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False})


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def slack_escaped(text: str) -> str:
    """One line, cut to length, with `&`, `<` and `>` as Slack asks, and `@channel` and its like made harmless by an
    invisible character."""
    line = _UNPRINTABLE.sub(" ", text)
    if len(line) > _LONGEST_LINE:
        line = line[: _LONGEST_LINE - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MENTION.sub("@\u200b", line)
