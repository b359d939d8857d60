"""The docs page: Swagger UI, whose files come with the `swagger-ui-py` package and are served from here."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from opsapi.http.envelope import API_PREFIX
from opsapi.http.exchange import Answer

DOCS_PATH = f"{API_PREFIX}/docs"
OPENAPI_PATH = f"{API_PREFIX}/openapi.json"
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>opsapi - Internal API</title>
<link rel="icon" type="image/png" href="{DOCS_PATH}/favicon-32x32.png">
<link rel="stylesheet" href="{DOCS_PATH}/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<noscript>This page needs JavaScript; the document itself is at <a href="{OPENAPI_PATH}">openapi.json</a>.</noscript>
<script src="{DOCS_PATH}/swagger-ui-bundle.js"></script>
<script src="{DOCS_PATH}/start.js"></script>
</body>
</html>
"""
_START = f"""window.ui = SwaggerUIBundle({{
  url: "{OPENAPI_PATH}",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null,
  docExpansion: "list",
  displayOperationId: true,
  displayRequestDuration: true,
  persistAuthorization: false,
}});
"""


class DocsAssetsMissing(Exception):
    """The renderer's package is not installed."""


def docs_pages() -> dict[bytes, Answer]:
    """Every file of the docs page by path, read once. Raises DocsAssetsMissing."""
    spec = find_spec("swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise DocsAssetsMissing("install swagger-ui-py, or set http.docs to `accounts` or `off`")
    folder = Path(spec.submodule_search_locations[0]) / "static"
    pages = {
        DOCS_PATH.encode(): _page(_PAGE.encode(), "text/html; charset=utf-8"),
        f"{DOCS_PATH}/start.js".encode(): _page(_START.encode(), "text/javascript; charset=utf-8"),
    }
    for name, content_type in _ASSETS.items():
        try:
            pages[f"{DOCS_PATH}/{name}".encode()] = _page((folder / name).read_bytes(), content_type)
        except OSError:
            raise DocsAssetsMissing(f"swagger-ui-py lacks {name}") from None
    return pages


def _page(body: bytes, content_type: str) -> Answer:
    tag = b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'
    headers = [
        (b"etag", tag),
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", _CSP),
        (b"x-frame-options", b"DENY"),
    ]
    return Answer(200, body, headers, content_type=content_type)
