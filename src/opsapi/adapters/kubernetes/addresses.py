"""Connections that go where the guard against request forgery lets them."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from opsapi.kit.addresses import AddressGuard, AddressRefused

__all__ = ["AddressGuard", "AddressRefused", "GuardedResolver"]


class GuardedResolver(AbstractResolver):
    """Resolves for the connection itself, so that what is checked is what is connected to (no rebinding between)."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._guard.addresses(host, port, family)
        ]

    async def close(self) -> None:
        return None
