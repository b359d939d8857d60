"""A container registry as pods meet it: how long a pull takes, and which images there are.

There is no catalogue: a reference is judged by how it looks, so that the usual mistakes fail as in life. Not found are
repositories and tags that contain a telling word (`nosuch`, `does-not-exist`, …) and tags that look like no tag.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

_REFERENCE = re.compile(
    r"(?P<host>(?:localhost|[\w.-]+\.[\w.-]+|[\w-]+:\d+)(?::\d+)?/)?(?P<path>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_TELLING = re.compile(
    r"no-?such|not-?found|does-?not-?exist|doesnotexist|non-?exist|missing|invalid|typo|bogus|wrong|yourcompany|broken-tag"
)
_TAG = re.compile(
    r".*\d.*|latest|stable|main|master|edge|alpine|slim|dev|nightly|bookworm|trixie|bullseye|noble|jammy|lts|current|prod"
    r"|staging|release|production|distroless|mainline|nonroot"
)


@dataclass(frozen=True, slots=True)
class Reference:
    host: str
    path: str
    tag: str
    digest: str

    @property
    def canonical(self) -> str:
        """`docker.io/library/nginx:1.27`."""
        return f"{self.host}/{self.path}" + (f":{self.tag}" if self.tag else "")


@dataclass(frozen=True, slots=True)
class Pull:
    """One try: how long it takes, how large the image is, and why it fails where it does."""

    seconds: float
    size: int
    error: str = ""


@lru_cache(maxsize=16384)
def parse_reference(image: str) -> Reference | None:
    """None: not a valid reference."""
    match = _REFERENCE.fullmatch(image)
    if match is None:
        return None
    host, path = (match["host"] or "").rstrip("/"), match["path"]
    if not host:
        host = "docker.io"
        path = path if "/" in path else f"library/{path}"
    tag = match["tag"] or ("" if match["digest"] else "latest")
    return Reference(host, path, tag, match["digest"] or "")


@lru_cache(maxsize=16384)
def image_id(image: str) -> str:
    """`docker.io/library/nginx@sha256:…`, the digest derived from the reference."""
    reference = parse_reference(image)
    if reference is None:
        return ""
    digest = reference.digest or "sha256:" + hashlib.sha256(reference.canonical.encode()).hexdigest()
    return f"{reference.host}/{reference.path}@{digest}"


def invalid_name(image: str) -> str:
    return (
        f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": invalid reference format'
    )


def pull(image: str) -> Pull:
    """What a node that lacks the image goes through. `image` must parse."""
    reference = parse_reference(image)
    if reference is None:
        return Pull(0.0, 0, invalid_name(image))
    weight = int.from_bytes(hashlib.sha256(image.encode()).digest()[:4], "big")
    size = 12_000_000 + weight % 180_000_000
    error = _error(reference)
    return Pull(0.9 if error else 0.8 + size / 60_000_000, size, error)


def _error(reference: Reference) -> str:
    name = reference.canonical
    head = f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": '
    if reference.host.endswith(".invalid"):
        url = f"https://{reference.host}/v2/{reference.path}/manifests/{reference.tag}"
        return head + f'failed to do request: Head "{url}": dial tcp: lookup {reference.host}: no such host'
    if _TELLING.search(reference.path):
        if reference.host == "docker.io":
            return (
                head + "pull access denied, repository does not exist or may require authorization: "
                "server message: insufficient_scope: authorization failed"
            )
        return head + f"{name}: not found"
    if reference.tag and not reference.digest and (_TELLING.search(reference.tag) or not _TAG.fullmatch(reference.tag)):
        return head + f"{name}: not found"
    return ""
