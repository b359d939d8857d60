"""Writes the pages of docs/ that are made from the code: configuration, permissions, Kubernetes rights.

`python -m opsapi.documents docs` writes them; a test holds that they are as written.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from opsapi.kit.endpoint import LIMIT_CLASSES, Endpoint
from opsapi.kit.permissions import UNBOUND_ONLY, Permission
from opsapi.kit.secret import Secret
from opsapi.settings.model import Settings
from opsapi.settings.source import described, plain_type
from opsapi.webhooks.schemas import SCHEMAS
from opsapi.wiring import DECLARATIONS
from opsapi.workspaces.access import ACTING, Feature, manifest, rules_for


def field_texts(model: type[msgspec.Struct]) -> dict[str, str]:
    """The text under each field of a Struct, its bases' included."""
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if cls in (object, msgspec.Struct) or not issubclass(cls, msgspec.Struct):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                texts[statement.target.id] = _docstring(following)
    return texts


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


_CONFIGURATION = """# Configuration

One YAML file (`opsapi serve --config FILE`) and environment variables, which win: `http.port` is `OPSAPI_HTTP__PORT`,
lists are comma-separated. A secret `x` may be given as `x_file`, a path whose content it is. Relative paths,
SQLite's too, start at the file's folder. Unknown keys are errors. `opsapi config check` says what the service would
connect to and whether it can.

A first file:

```yaml
keys:
  audit_file: audit.key            # openssl rand -base64 32 > audit.key
database:
  url: sqlite:///opsapi.db
workspaces:
  - id: ws-production
    name: Production
    kubeconfig: /etc/opsapi/production.kubeconfig
    mode: observe
```
"""


def configuration() -> str:
    lines = [line for section in _sections(Settings, "") for line in section]
    return _CONFIGURATION + "\n".join(lines) + "\n"


def _sections(model: type[msgspec.Struct], at: str) -> Iterator[list[str]]:
    hints, texts = get_type_hints(model, include_extras=True), field_texts(model)
    rows, nested = [], []
    for field in msgspec.structs.fields(model):
        hint = hints[field.name]
        inner, many = _inner_struct(hint)
        path = f"{at}.{field.name}" if at else field.name
        if inner is not None:
            nested.append((inner, f"{path}[]" if many else path))
            continue
        default = "**required**" if field.required else f"`{_default(field)}`"
        rows.append(f"| `{field.name}` | {_cell(described(hint))} | {default} | {_cell(texts.get(field.name, ''))} |")
    if rows:
        title = [f"## `{at}`", "", " ".join((model.__doc__ or "").split())] if at else ["## Top level"]
        yield ["", *title, "", "| key | allowed | default | |", "|---|---|---|---|", *rows]
    for inner, path in nested:
        yield from _sections(inner, path)


def _inner_struct(hint: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    plain = plain_type(hint)
    many = bool(get_args(plain)) and getattr(plain, "__origin__", None) is tuple
    if many:
        plain = plain_type(get_args(plain)[0])
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return plain, many
    return None, many


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, Secret):
        return value.reveal()
    if value is None or value == () or value == "":
        return "none" if value is None else "empty"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(msgspec.to_builtins(value)).replace("True", "true").replace("False", "false")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_PERMISSIONS = """# Permissions

Generated from the endpoints' declarations. A permission is `<resource>:<verb>`; admin implies write implies read.
`@ws-123` binds it to one workspace. Limits are requests a minute and account, and where it says so per workspace or
application.

| method and path | permission | where | limit | Idempotency-Key |
|---|---|---|---|---|
"""


def permissions(declarations: list[Endpoint]) -> str:
    lines = []
    for one in sorted(declarations, key=lambda d: (d.tag, d.path, d.method)):
        permission = f"`{one.permission}`" if one.permission else "any account"
        per = f", per {one.scope}" if one.limit.scoped else ""
        lines.append(
            f"| `{one.method} {one.path}` | {permission} | {one.scope} | {one.limit.name}: {one.limit.per_minute}{per} "
            f"| {one.idempotency} |"
        )
    lines += ["", "## Every permission", "", "| permission | bound to a workspace? | includes |", "|---|---|---|"]
    for permission in Permission:
        includes = ", ".join(f"`{p}`" for p in sorted(permission.implied - {permission})) or "-"
        bound = "no, it concerns the installation" if permission in UNBOUND_ONLY else "may be"
        lines.append(f"| `{permission}` | {bound} | {includes} |")
    lines += ["", "## Limit classes", "", "| class | requests a minute | counted |", "|---|---|---|"]
    for limit in LIMIT_CLASSES:
        counted = "per account and workspace or application" if limit.scoped else "per account"
        lines.append(f"| {limit.name} | {limit.per_minute} | {counted} |")
    return _PERMISSIONS + "\n".join(lines) + "\n"


_RBAC = """# Kubernetes rights

The smallest rights that each feature needs, as `opsapi workspaces rbac --features …` prints them and
`opsapi workspaces check ID` proves them by asking the cluster. A workspace that is limited to namespaces works with
Roles alone. Secrets are read by the features that are named for them, and by no other.

Reading and acting may use separate credentials (`act:` in the configuration, `acting_kubeconfig` in the API).

| feature | API group | resources | verbs | scope | credentials |
|---|---|---|---|---|---|
"""


def rights() -> str:
    rows = []
    for feature in Feature:
        for rule in rules_for([feature], limited=False):
            scope = "namespace" if rule.namespaced else "cluster"
            rows.append(
                f"| {feature} | {rule.group or 'core'} | {rule.resource} | {', '.join(rule.verbs)} | {scope} "
                f"| {'acting' if feature in ACTING else 'reading'} |"
            )
    printed = manifest([Feature.READ, Feature.SCALE, Feature.EVENTS], namespaces=("shop",))
    example = (
        f"For a workspace that is the namespace `shop`, to read, scale and leave events:\n\n```yaml\n{printed}```\n"
    )
    return _RBAC + "\n".join(rows) + "\n\n" + example


_WEBHOOKS = """# Webhooks

`POST /internal/v1/webhooks` (permission `webhooks:admin`) subscribes an endpoint to events; its answer tells the
signing secret once. Requests follow [Standard Webhooks](https://www.standardwebhooks.com): verify them with one of its
libraries.

```http
POST /opsapi HTTP/1.1
content-type: application/json
webhook-id: evt-7k2m9q4x1v8c5b3n
webhook-timestamp: 1705764600
webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=

{"type": "internal.operation.failed", "timestamp": "2024-01-20T15:30:00Z", "data": {"operation_id": "op-789", …}}
```

- Answer any 2xx within 15 seconds. Everything else, a redirect too, is a failure and tried again: after 5 seconds, then
  twice as long each time up to an hour, less by chance, for a day. `Retry-After` is kept. Then it is a dead letter
  (`GET …/deliveries?state=dead`), which can be redelivered for 30 days.
- Events arrive **at least once** and in no certain order. Repeats carry the same `webhook-id`: keep the ids that you
  have seen. Where several webhooks get an event, the id is the same.
- 410 disables a webhook at once, five days of failures alone do too; `PATCH` with `enabled: true` brings it back. What
  happened while it was disabled is not sent.
- `…/rotate-secret` makes a new secret; for a day requests carry two signatures, one of each secret.
- URLs are https and resolve to public addresses unless the configuration's `webhooks.allow` says otherwise.
- `reason`, `title` and whatever else people or workloads wrote is untrusted text.

Channels (`slack:#ops`, `webhook:NAME`) stand in the [configuration](configuration.md) under `webhooks.channels`;
backups, approvals and incidents name them. Slack gets a plain text; mentions and links in it are made harmless.

## Events

Fields may be added; none is renamed or removed.
"""


def webhooks() -> str:
    lines = []
    for struct in dict.fromkeys(SCHEMAS.values()):
        kinds = [kind for kind, held in SCHEMAS.items() if held is struct]
        hints, texts = get_type_hints(struct, include_extras=True), field_texts(struct)
        lines += ["", f"### {', '.join(f'`{kind}`' for kind in kinds)}", "", " ".join((struct.__doc__ or "").split())]
        lines += ["", "| `data` holds | which is | |", "|---|---|---|"]
        for name, hint in hints.items():
            lines.append(f"| `{name}` | {_cell(_data_type(hint))} | {_cell(texts.get(name, ''))} |")
    return _WEBHOOKS + "\n".join(lines) + "\n"


def _data_type(hint: Any) -> str:
    inner, _ = _inner_struct(hint)
    if inner is not None:
        return f"an object ({', '.join(get_type_hints(inner))}) or nothing"
    return described(hint)


def pages() -> dict[str, str]:
    """Every generated page by its file name."""
    return {
        "configuration.md": configuration(),
        "permissions.md": permissions(DECLARATIONS),
        "rbac.md": rights(),
        "webhooks.md": webhooks(),
    }


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
