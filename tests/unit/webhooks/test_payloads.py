"""What is sent: the payload, and a Slack text that nobody's words can break out of."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.secret import Secret
from opsapi.webhooks.channels import Channels
from opsapi.webhooks.dispatcher import route
from opsapi.webhooks.payloads import payload, ping_payload, slack_escaped, slack_message
from opsapi.webhooks.settings import ChannelSettings
from opsapi.webhooks.signing import secret_text
from support.acting import NOON
from support.webhooks import SECRET, make_event, make_webhook


def test_a_payload_has_type_timestamp_and_data() -> None:
    event = make_event(data={"operation_id": "op-1", "error": None, "text": "größer"})
    assert (
        payload(event)
        == (
            '{"type":"internal.operation.failed","timestamp":"2024-01-20T12:00:00Z",'
            '"data":{"operation_id":"op-1","error":null,"text":"größer"}}'
        ).encode()
    )
    assert msgspec.json.decode(ping_payload("wh-1", NOON)) == {
        "type": "internal.webhook.ping",
        "timestamp": "2024-01-20T12:00:00Z",
        "data": {"webhook_id": "wh-1"},
    }


def test_a_slack_message_is_plain_text_line_by_line() -> None:
    event = make_event(data={"operation": "scale", "outcome": None, "reason": "a < b & <!channel>\n@here now", "n": 3})
    assert msgspec.json.decode(slack_message(event)) == {
        "text": "internal.operation.failed in ws-123 at 2024-01-20T12:00:00Z\n"
        "operation: scale\n"
        "reason: a &lt; b &amp; &lt;!channel&gt; @\u200bhere now\n"
        "n: 3",
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


@given(st.text(max_size=400))
def test_no_text_makes_a_second_line_a_tag_or_a_mention(text: str) -> None:
    escaped = slack_escaped(text)
    assert "<" not in escaped
    assert ">" not in escaped
    assert "\n" not in escaped
    assert "\r" not in escaped
    assert all(word not in escaped.lower() for word in ("@channel", "@here", "@everyone"))
    rest = escaped.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert "&" not in rest


@given(st.text(alphabet="@channelhrvyo\u200b", max_size=40))
def test_invisible_characters_do_not_smuggle_a_mention(text: str) -> None:
    escaped = slack_escaped(text).lower()
    assert all(word not in escaped for word in ("@channel", "@here", "@everyone"))


def test_each_subscriber_gets_the_payload_and_a_slack_channel_its_text() -> None:
    webhook = make_webhook()
    event = make_event(channels=("slack:#ops", "webhook:pager"))
    bodies = {one.target: one.body for one in route(event, [webhook, make_webhook(enabled=False)])}
    assert bodies == {webhook.id: payload(event), "slack:#ops": slack_message(event), "webhook:pager": payload(event)}


def test_the_same_event_and_target_always_make_the_same_delivery() -> None:
    event, webhook = make_event(), make_webhook()
    assert [one.id for one in route(event, [webhook])] == [one.id for one in route(event, [webhook])]
    assert len({one.id for one in route(event, [webhook, make_webhook()])}) == 2


def test_events_of_the_installation_do_not_reach_webhooks_of_workspaces() -> None:
    limited, unlimited = make_webhook(workspaces=["ws-123"]), make_webhook()
    told = route(make_event(workspace_id=""), [limited, unlimited])
    assert [one.target for one in told] == [unlimited.id]


def test_channels_say_which_names_they_do_not_know() -> None:
    channels = Channels(
        [
            ChannelSettings(name="slack:#ops", url=Secret("https://hooks.example.com/x")),
            ChannelSettings(name="webhook:pager", url=Secret("https://p.example.com"), secret=secret_text(SECRET)),
        ]
    )
    assert channels.names == ["slack:#ops", "webhook:pager"]
    assert channels.known("slack:#ops")
    assert channels.unknown(["slack:#dev", "webhook:pager", "slack:ops"]) == ["slack:#dev", "slack:ops"]
    pager = channels.find("webhook:pager")
    assert pager is not None
    assert pager.key == SECRET
