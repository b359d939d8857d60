"""Channels of the configuration: named places that events are sent to besides the subscribed webhooks."""

from collections.abc import Iterable

import msgspec

from opsapi.kit.secret import Secret
from opsapi.webhooks.settings import SLACK, ChannelSettings
from opsapi.webhooks.signing import parse_secret


class Channel(msgspec.Struct, frozen=True):
    """`key` signs; None for Slack, whose URL is the secret."""

    name: str
    url: Secret
    key: bytes | None


def is_slack(channel: str) -> bool:
    return channel.startswith(SLACK)


class Channels:
    def __init__(self, given: Iterable[ChannelSettings]) -> None:
        self._by_name = {
            one.name: Channel(one.name, one.url, None if one.secret is None else parse_secret(one.secret))
            for one in given
        }

    @property
    def names(self) -> list[str]:
        return sorted(self._by_name)

    def find(self, name: str) -> Channel | None:
        return self._by_name.get(name)

    def known(self, name: str) -> bool:
        return name in self._by_name

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that the configuration does not have, for domains to refuse up front."""
        return [name for name in names if name not in self._by_name]
