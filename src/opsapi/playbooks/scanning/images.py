"""Image references as registries understand them, so that a report can be told to cover what runs."""

import re
from collections.abc import Iterable

import msgspec

DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", "docker.io", ""})
_READABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:@]{0,254}")
UNREADABLE = "(a reference that is none)"


class Image(msgspec.Struct, frozen=True):
    """`registry/repository`, with a tag, a digest, or both. `tag` is `latest` where the reference has neither."""

    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def mutable(self) -> bool:
        """What it names may be another image tomorrow, by convention: no digest, and the tag `latest` or none."""
        return not self.digest and self.tag == "latest"


def parse(reference: str) -> Image:
    """`nginx` is docker.io/library/nginx:latest, as every runtime has it."""
    rest, _, digest = reference.partition("@")
    head, slash, tail = rest.rpartition("/")
    name, _, tag = tail.partition(":")
    registry, path = _registry(head + slash + name)
    return Image(registry, path, tag or ("" if digest else "latest"), digest)


def reported(server: str, repository: str, tag: str, digest: str) -> Image:
    """As a report's registry and artifact name it."""
    registry, path = _registry(f"{server}/{repository}" if server else repository)
    return Image(registry, path, tag or ("" if digest else "latest"), digest)


def _registry(path: str) -> tuple[str, str]:
    first, slash, rest = path.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = "", path
    if first not in _DOCKER_HUB_NAMES:
        return first, rest
    return DOCKER_HUB, rest if "/" in rest else f"library/{rest}"


class Coverage:
    """The images that reports speak of."""

    def __init__(self, images: Iterable[Image] = ()) -> None:
        self._tags: set[tuple[str, str, str]] = set()
        self._digests: set[tuple[str, str, str]] = set()
        for image in images:
            self.add(image)

    def add(self, image: Image) -> None:
        if image.tag:
            self._tags.add((image.registry, image.repository, image.tag))
        if image.digest:
            self._digests.add((image.registry, image.repository, image.digest))

    def covers(self, image: Image) -> bool:
        """A reference that states a digest is covered by a report of that digest alone, where reports of the
        repository state one; else by its tag."""
        if image.digest and (image.registry, image.repository, image.digest) in self._digests:
            return True
        return not image.digest and (image.registry, image.repository, image.tag) in self._tags


def unscanned(references: Iterable[str], coverage: Coverage) -> list[str]:
    """The references that no report covers, in order and each once. Whatever is no reference is not repeated."""
    missing = {one for one in references if one and not coverage.covers(parse(one))}
    return sorted({one if _READABLE.fullmatch(one) else UNREADABLE for one in missing})
