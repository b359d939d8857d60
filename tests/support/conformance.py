"""Sends a recorded request to a playground in the state that the recording shows, and compares the answers."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from opsapi.kit.clock import SystemClock
from opsapi.playground.api.app import ApiOptions, PlaygroundApi, create_app
from opsapi.playground.api.request import read_target
from opsapi.playground.kinds import Kind
from opsapi.playground.machinery.bootstrap import bootstrap
from opsapi.playground.machinery.registry import ObjectRegistry
from opsapi.playground.registry import User
from support.asgi import Answer, call
from support.recordings import Bodies, Exchange, Obj, bodies

ADMIN, READER = "admin", "reader"
_TOKENS = {ADMIN: User("admin", ("system:masters",)), READER: User("reader")}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TOKEN_VOLUME = re.compile(r"kube-api-access-\w{5}")
_ADDRESS = re.compile(r"^10\.96\.\d+\.\d+$")
_TOO_OLD = re.compile(r"too old resource version: (\d+) \(\d+\)")
_FIRST_OF_READER = 400
"""From here on another client made the requests, and another user some of them."""
_MASKED_COLUMNS = ("Age", "Last Seen", "First Seen", "Duration", "Created At")


@dataclass(slots=True)
class Stage:
    """A playground set up for one exchange."""

    registry: ObjectRegistry
    app: PlaygroundApi
    exchange: Exchange
    known: Bodies
    loaded: dict[str, Obj] = field(default_factory=dict)

    def load(self, obj: Obj | None) -> None:
        """Installs a recorded body as it is."""
        if obj is None:
            return
        kind = self.registry.kinds.by_kind(obj["apiVersion"], obj["kind"])
        assert kind is not None, obj["kind"]
        meta = obj["metadata"]
        if kind.namespaced:
            self.namespace(meta["namespace"])
        from opsapi.playground.api.conversion import to_storage

        made = self.registry.load(kind.resource, meta.get("namespace", ""), to_storage(kind, obj))
        self.loaded[meta["uid"]] = made

    def namespace(self, name: str) -> None:
        if self.registry.find("namespaces", "", name) is None:
            self.registry.load("namespaces", "", {"metadata": {"name": name}, "status": {"phase": "Active"}})

    def kind(self) -> Kind | None:
        target = read_target(self.exchange.method, self.exchange.plain_path, {})
        return self.registry.kinds.served(target.group, target.version, target.resource)


def stage(exchange: Exchange) -> Stage:
    registry = ObjectRegistry(SystemClock())
    app = create_app(registry, ApiOptions(dict(_TOKENS)))
    made = Stage(registry, app, exchange, bodies())
    if exchange.index >= _FIRST_OF_READER or "can-i" in exchange.label or "clusterrole" in exchange.label:
        bootstrap(registry)
    for name in ("default", "shop", "lab"):
        if (
            exchange.method != "POST"
            or ((exchange.body or {}) if isinstance(exchange.body, dict) else {}).get("kind") != "Namespace"
        ):
            made.namespace(name)
    if exchange.index > 376:
        made.load(made.known.latest_before(exchange.index, ("CustomResourceDefinition", "", "widgets.example.com")))
    _install(made)
    return made


def _install(made: Stage) -> None:
    exchange = made.exchange
    target = read_target(exchange.method, exchange.plain_path, exchange.query)
    if not target.is_resource or exchange.status in (401, 403, 404):
        _surroundings(made)
        return
    if exchange.stream is not None:
        for event in exchange.stream:
            if event["type"] != "ADDED":
                break
            for obj in _shown(made, event["object"]):
                made.load(obj)
    elif exchange.method == "GET" and exchange.status == 200 and target.subresource == "":
        shown = _shown(made, exchange.answer)
        for obj in shown:
            made.load(obj)
        _pages_to_come(made, shown)
        if not target.name and shown:
            _strangers(made, shown[0])
    else:
        _before(made, target.namespace, target.name)
    _surroundings(made)


def _strangers(made: Stage, like: Obj) -> None:
    """Objects that the request must not find: in another namespace, and outside each of its selectors."""
    query, meta = made.exchange.query, like["metadata"]
    namespaced = "/namespaces/" in made.exchange.plain_path
    if namespaced and meta.get("namespace"):
        made.load({**like, "metadata": _stranger(meta, 1, namespace="elsewhere")})
    if "labelSelector" in query:
        made.load({**like, "metadata": {**_stranger(meta, 2), "labels": {"some": "other"}}})
    for number, term in enumerate((query.get("fieldSelector") or [""])[0].split(",")):
        field, negated, value = term.partition("!=")
        if not negated:
            field = term.partition("=")[0]
        if field and field != "metadata.name":
            path = field.split(".")
            other = _with({**like, "metadata": _stranger(meta, 3 + number)}, path, value if negated else "other")
            made.load(other)


def _stranger(meta: Obj, number: int, **changed: str) -> Obj:
    name, uid = f"zz-stranger-{number}", f"00000000-0000-4000-9000-{number:012}"
    return {**meta, "name": name, "uid": uid, **changed}


def _with(obj: Obj, path: list[str], value: str) -> Obj:
    if len(path) == 1:
        return {**obj, path[0]: value}
    return {**obj, path[0]: _with(obj.get(path[0]) or {}, path[1:], value)}


def _pages_to_come(made: Stage, shown: list[Obj]) -> None:
    """As many more objects as the answer says remain, behind those of its page."""
    metadata = made.exchange.answer.get("metadata") or {} if isinstance(made.exchange.answer, dict) else {}
    for number in range(metadata.get("remainingItemCount") or 0):
        meta = {**shown[-1]["metadata"], "name": f"zz-{number:03}", "uid": f"00000000-0000-4000-8000-{number:012}"}
        made.load({**shown[-1], "metadata": meta})


def _shown(made: Stage, answer: Any) -> list[Obj]:
    """The complete objects behind a GET's answer."""
    if not isinstance(answer, dict):
        return []
    if answer.get("kind") == "Table":
        found = []
        for row in answer.get("rows") or []:
            meta = row["object"]["metadata"]
            found.append(made.known.at(meta["uid"], meta["resourceVersion"]))
        return [one for one in found if one is not None]
    if answer.get("kind") == "PartialObjectMetadataList":
        metas = [one["metadata"] for one in answer["items"]]
        return [one for one in (made.known.at(m["uid"], m["resourceVersion"]) for m in metas) if one is not None]
    if isinstance(answer.get("items"), list):
        head = {"kind": answer["kind"].removesuffix("List"), "apiVersion": answer["apiVersion"]}
        return [{**head, **one} for one in answer["items"]]
    return [answer] if answer.get("kind") not in ("Status", "APIResourceList") else []


def _before(made: Stage, namespace: str, name: str) -> None:
    """The object that a write or a subresource concerns, as it was."""
    exchange, answer = made.exchange, made.exchange.answer
    kind = made.kind()
    if kind is None or (exchange.method == "POST" and exchange.status == 201 and "/eviction" not in exchange.path):
        return
    meta = answer.get("metadata") or {} if isinstance(answer, dict) else {}
    uid = meta.get("uid") or (answer.get("details") or {}).get("uid") if isinstance(answer, dict) else None
    if exchange.status == 201:
        if "/eviction" in exchange.path:
            made.load(made.known.latest_before(exchange.index, (kind.kind, namespace, name)))
        return
    found = None
    if uid:
        version = int(meta.get("resourceVersion") or 1 << 60)
        found = made.known.state_before(exchange.index, uid, version)
    if found is None:
        sent = exchange.body if isinstance(exchange.body, dict) else {}
        wanted = name or (sent.get("metadata") or {}).get("name", "")
        found = made.known.latest_before(exchange.index, (kind.kind, namespace if kind.namespaced else "", wanted))
    made.load(_caught_up(found, answer, scale="/scale" in exchange.path) if exchange.status == 200 else found)


_CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "kubelet")
_REVISION = "deployment.kubernetes.io/revision"


def _caught_up(found: Obj | None, answer: Any, *, scale: bool) -> Obj | None:
    """The body with what controllers wrote since: status, their managedFields, the revision, the generation."""
    if found is None or not isinstance(answer, dict) or answer.get("kind") not in (found["kind"], "Scale"):
        return found
    if scale:
        return {**found, "status": {**(found.get("status") or {}), "replicas": answer["status"]["replicas"]}}
    meta, now = dict(found["metadata"]), answer["metadata"]
    made = {**found, "metadata": meta}
    if "status" in answer and found["kind"] not in ("Namespace", "Widget"):
        made["status"] = answer["status"]
    mine = [one for one in meta.get("managedFields") or [] if one["manager"] not in _CONTROLLERS]
    theirs = [one for one in now.get("managedFields") or [] if one["manager"] in _CONTROLLERS]
    if mine or theirs:
        meta["managedFields"] = [*mine, *theirs]
    revision = (now.get("annotations") or {}).get(_REVISION)
    if revision is not None:
        meta["annotations"] = {**(meta.get("annotations") or {}), _REVISION: revision}
    if "generation" in now:
        changed = found.get("spec") != answer.get("spec") or "deletionTimestamp" in now
        meta["generation"] = now["generation"] - int(changed and "deletionTimestamp" not in meta)
    return made


def _surroundings(made: Stage) -> None:
    """What else has to be there: budgets for evictions, quotas, namespaces that end."""
    exchange = made.exchange
    if "/eviction" in exchange.path and "/namespaces/lab/" in exchange.path:
        made.load(made.known.latest_before(exchange.index, ("PodDisruptionBudget", "lab", "x")))
        if exchange.label == "evict allowed":
            budget = made.registry.get("poddisruptionbudgets.policy", "lab", "x")
            status = {
                **budget["status"],
                "disruptionsAllowed": 1,
                "observedGeneration": budget["metadata"]["generation"],
            }
            made.registry.patch_status("poddisruptionbudgets.policy", "lab", "x", status)
    if exchange.label == "quota exceeded":
        made.load(made.known.latest_before(exchange.index, ("ResourceQuota", "lab", "q")))
        for name in "abcd":
            made.registry.load("configmaps", "lab", {"metadata": {"name": name}})
    if exchange.label == "create in a terminating namespace":
        made.load(made.known.latest_before(exchange.index, ("Namespace", "", "lab")))
    if "too old" in exchange.label:
        made.registry.store.compact()


def _current(made: Stage, sent: Any) -> Any:
    """The body with the resourceVersion that this playground gave the object; 1 stays, to be stale."""
    if isinstance(sent, list):
        return [
            {**one, "value": _only(made)}
            if isinstance(one, dict) and one.get("path") == "/metadata/resourceVersion"
            else one
            for one in sent
        ]
    if isinstance(sent, dict) and isinstance(sent.get("metadata"), dict):
        version = sent["metadata"].get("resourceVersion")
        if version not in (None, "", "1") and made.loaded:
            return {**sent, "metadata": {**sent["metadata"], "resourceVersion": _only(made)}}
    return sent


def _only(made: Stage) -> str:
    return str(next(reversed(made.loaded.values()))["metadata"]["resourceVersion"])


async def send(made: Stage) -> Answer:
    exchange = made.exchange
    headers = {key: value for key, value in exchange.headers.items() if value}
    headers["User-Agent"] = "kubectl/v1.37.1" if exchange.label.startswith("kubectl") else "Python/3.11"
    if exchange.index >= _FIRST_OF_READER:
        headers["User-Agent"] = "Python-urllib/3.11"
    if exchange.label.startswith("rbac:") or exchange.label.endswith("denied"):
        headers["Authorization"] = f"Bearer {READER}"
        headers.setdefault("Content-Type", "application/json")
    else:
        headers["Authorization"] = "Bearer nobody" if exchange.status == 401 else f"Bearer {ADMIN}"
    body = exchange.raw_body
    if isinstance(exchange.body, dict | list) and b"resourceVersion" in body and "protobuf" not in str(headers):
        body = json.dumps(_current(made, exchange.body)).encode()
    path = await _path(made, headers)
    if exchange.stream is None and "watch=true" not in path:
        return await call(made.app, exchange.method, path, headers=headers, body=body)
    return await _watched(made, path, headers)


async def _path(made: Stage, headers: dict[str, str]) -> str:
    split = urlsplit(made.exchange.path)
    query = parse_qsl(split.query, keep_blank_values=True)
    changed = []
    for name, value in query:
        if name == "resourceVersion" and value not in ("0", "1"):
            value = str(made.registry.store.version)
        if name == "continue" and value != "abc":
            continue
        changed.append((name, value))
    path = quote(split.path)
    return f"{path}?{urlencode(changed)}" if changed else path


async def _watched(made: Stage, path: str, headers: dict[str, str]) -> Answer:
    """Opens the watch, then makes the changes that the recording shows happening."""
    expected = _expected(made.exchange.stream or [])
    initial = _initial(expected)
    if not expected:
        path = re.sub(r"timeoutSeconds=\d+", "timeoutSeconds=1", path)
        return await call(made.app, "GET", path, headers=headers)
    begun = asyncio.Event()

    def enough(answer: Answer) -> bool:
        count = answer.body.count(b"\n")
        if count >= initial:
            begun.set()
        return count >= len(expected)

    watching = asyncio.create_task(call(made.app, "GET", path, headers=headers, enough=enough))
    await asyncio.wait([watching, asyncio.create_task(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
    for event in expected[initial:]:
        _happen(made, event)
    return await asyncio.wait_for(watching, 10)


def _initial(events: list[Obj]) -> int:
    """How many events come before anything happens."""
    live = (index for index, one in enumerate(events) if one["type"] in ("MODIFIED", "DELETED"))
    return next(live, len(events))


def _expected(events: list[Obj]) -> list[Obj]:
    """Without the bookmarks that a server sends now and then."""
    initial = _initial(events)
    return [*events[:initial], *(one for one in events[initial:] if one["type"] != "BOOKMARK")]


def _happen(made: Stage, event: Obj) -> None:
    obj = event["object"]
    kind = made.registry.kinds.by_kind(obj["apiVersion"], obj["kind"])
    assert kind is not None
    meta = obj["metadata"]
    if event["type"] == "DELETED":
        key = (meta.get("namespace", ""), meta["name"])
        made.registry.store.remove(kind.resource, key, lambda _: obj)
    else:
        made.load(obj)


# Comparing


def masked(value: Any) -> Any:
    """Without what differs from one run to the next: uids, versions, times, addresses, generated names."""
    if isinstance(value, dict):
        return {key: _masked_field(key, one) for key, one in value.items() if not _dropped(key, one)}
    if isinstance(value, list):
        return [masked(one) for one in value]
    if isinstance(value, str):
        return _masked_text(value)
    return value


def _dropped(key: str, value: Any) -> bool:
    return key in ("description", "time") or (key == "volumes" and not _visible_volumes(value))


def _visible_volumes(volumes: Any) -> list[Any]:
    """The recorder left out the projected token volume of every pod."""
    return [one for one in volumes or [] if not _TOKEN_VOLUME.fullmatch(str(one.get("name")))]


def _masked_field(key: str, value: Any) -> Any:
    if key in ("uid", "resourceVersion", "continue"):
        return "*" if value else value
    if key == "volumes":
        return masked(_visible_volumes(value))
    if key == "managedFields":
        return sorted((masked(one) for one in value), key=lambda one: json.dumps(one, sort_keys=True))
    return masked(value)


def _masked_text(value: str) -> str:
    if value.startswith(('{"', "[{")) and "lastTransitionTime" in value:
        return _TIME.sub("T", value)
    text = _TOO_OLD.sub(r"too old resource version: \1", _TOKEN_VOLUME.sub("kube-api-access", _UID.sub("U", value)))
    return "ADDRESS" if _ADDRESS.fullmatch(text) else _TIME.sub("T", text)


def comparable(exchange: Exchange, answer: Any) -> Any:
    """An answer's body in the form in which two of them are compared."""
    if isinstance(answer, dict) and answer.get("kind") == "Table":
        return _table(answer)
    made = masked(_without_omitted(answer))
    if exchange.plain_path == "/version":
        return dict.fromkeys(made, "*")
    if isinstance(made, dict) and made.get("kind") == "APIVersions":
        made["serverAddressByClientCIDRs"][0]["serverAddress"] = "*"
    if exchange.label == "generateName" and isinstance(made, dict):
        made["metadata"]["name"] = "generated"
    return made


_OMITTED = "componentstatuses"
"""Deprecated since 1.19, and a playground has no components to report on."""


def _without_omitted(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: _without_omitted(one) for key, one in answer.items()}
    if isinstance(answer, list):
        return [
            _without_omitted(one)
            for one in answer
            if not (isinstance(one, dict) and _OMITTED in (one.get("resource"), one.get("name")))
        ]
    return answer


def _table(answer: Obj) -> Any:
    columns = [(one["name"], one["type"], one["format"], one["priority"]) for one in answer["columnDefinitions"] or []]
    hidden = [index for index, one in enumerate(columns) if one[0] in _MASKED_COLUMNS]
    rows = []
    for row in answer.get("rows") or []:
        cells = ["*" if index in hidden else cell for index, cell in enumerate(row["cells"])]
        rows.append((cells, masked(row.get("object"))))
    return {"columns": columns, "rows": rows, "metadata": masked(answer["metadata"])}


def differences(want: Any, got: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as `path: wanted … got …`."""
    if isinstance(want, dict) and isinstance(got, dict):
        found = []
        for key in sorted({*want, *got}, key=str):
            if key not in got:
                found.append(f"{path}.{key}: missing, wanted {str(want[key])[:200]}")
            elif key not in want:
                found.append(f"{path}.{key}: unexpected {str(got[key])[:200]}")
            else:
                found.extend(differences(want[key], got[key], f"{path}.{key}"))
        return found
    if isinstance(want, list | tuple) and isinstance(got, list | tuple) and len(want) == len(got):
        return [
            line
            for index, pair in enumerate(zip(want, got, strict=True))
            for line in differences(*pair, f"{path}[{index}]")
        ]
    return [] if want == got else [f"{path}: wanted {str(want)[:300]!r}, got {str(got)[:300]!r}"]


async def judge(exchange: Exchange) -> list[str]:
    """Every way in which the playground's answer differs from the recorded one."""
    made = stage(exchange)
    answer = await send(made)
    problems = []
    if answer.status != exchange.status:
        problems.append(f"status: wanted {exchange.status}, got {answer.status}: {answer.body[:300]!r}")
        return problems
    wanted_type = exchange.answer_headers.get("Content-Type", "")
    if not exchange.protobuf_answer and answer.headers.get("content-type") != wanted_type:
        problems.append(f"content-type: wanted {wanted_type}, got {answer.headers.get('content-type')}")
    if answer.headers.get("warning") != exchange.answer_headers.get("Warning"):
        problems.append(f"warning: {answer.headers.get('warning')} for {exchange.answer_headers.get('Warning')}")
    if exchange.stream is not None:
        return problems + differences(_events(exchange, _expected(exchange.stream)), _events(exchange, answer.lines()))
    if "json" not in answer.headers.get("content-type", ""):
        return problems + differences(exchange.answer if exchange.answer != [] else "", answer.body.decode())
    if exchange.protobuf_answer and exchange.answer is None:
        return problems
    if exchange.method == "GET" and exchange.answer == "":
        return problems + differences("", answer.body.decode())
    return problems + differences(comparable(exchange, exchange.answer), comparable(exchange, answer.json()))


def _events(exchange: Exchange, events: list[Obj]) -> list[Obj]:
    made: list[Obj] = []
    columns: list[Obj] | None = None
    for one in events:
        shown = one["object"]
        if shown.get("kind") == "Table":
            columns = shown["columnDefinitions"] or columns
            given = shown["columnDefinitions"] is not None
            made.append(
                {"type": one["type"], "header": given, "object": _table({**shown, "columnDefinitions": columns})}
            )
        else:
            made.append({"type": one["type"], "object": comparable(exchange, shown)})
    return made


__all__ = ["Stage", "comparable", "differences", "judge", "masked", "stage"]
