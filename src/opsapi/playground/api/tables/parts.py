"""What many kinds' cells are made of."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from opsapi.playground.api.tables.ages import age
from opsapi.playground.machinery.label_selectors import selector_text
from opsapi.playground.registry import Obj

Cells = Callable[[Obj, datetime], list[Any]]
NONE = "<none>"


def name_of(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def age_of(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def spec_of(obj: Obj) -> Obj:
    return obj.get("spec") or {}


def status_of(obj: Obj) -> Obj:
    return obj.get("status") or {}


def images(spec: Obj) -> list[str]:
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or []
    return [",".join(one["name"] for one in containers), ",".join(one.get("image", "") for one in containers)]


def selector_of(spec: Obj) -> str:
    return selector_text(spec.get("selector")) or NONE


def plain_selector(selector: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((selector or {}).items())) or NONE
