"""Names and numbers that a cluster hands out, repeatable from a seed."""

import random
import uuid

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names, without vowels and look-alikes, as k8s.io/apimachinery's rand has them."""
_MAX_PREFIX = 58


class Identity:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose, no secret

    def uid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def name(self, prefix: str) -> str:
        """`prefix` (cut so that the whole fits 63 characters) and five random letters."""
        return prefix[:_MAX_PREFIX] + self.suffix(5)

    def suffix(self, length: int) -> str:
        return "".join(self._random.choices(_ALPHABET, k=length))

    def below(self, limit: int) -> int:
        return self._random.randrange(limit)
