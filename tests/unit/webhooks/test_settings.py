"""A channel that could not work is refused when the configuration is read, without showing its secrets."""

import pytest

from opsapi.kit.secret import Secret
from opsapi.webhooks.settings import ChannelSettings, WebhookSettings
from opsapi.webhooks.signing import secret_text
from support.webhooks import SECRET

URL = Secret("https://hooks.example.com/T000/B000/private")


def test_slack_needs_no_secret_and_webhooks_do() -> None:
    assert ChannelSettings(name="slack:#ops", url=URL).secret is None
    with pytest.raises(ValueError, match="`webhook:` channels need a secret"):
        ChannelSettings(name="webhook:pager", url=URL)
    with pytest.raises(ValueError, match="`slack:` channels have none"):
        ChannelSettings(name="slack:#ops", url=URL, secret=secret_text(SECRET))


def test_a_channels_secret_must_be_one() -> None:
    with pytest.raises(ValueError, match="a signing secret is") as refused:
        ChannelSettings(name="webhook:pager", url=URL, secret=Secret("hunter2"))
    assert "hunter2" not in str(refused.value)


def test_no_channel_stands_twice() -> None:
    channel = ChannelSettings(name="slack:#ops", url=URL)
    with pytest.raises(ValueError, match="'slack:#ops' stands twice"):
        WebhookSettings(channels=(channel, channel))


def test_urls_and_secrets_show_themselves_nowhere() -> None:
    settings = WebhookSettings(channels=(ChannelSettings(name="webhook:p", url=URL, secret=secret_text(SECRET)),))
    assert "private" not in repr(settings)
    assert "whsec" not in repr(settings)
