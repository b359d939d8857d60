"""Prometheus' text format (0.0.4): lines and families."""

from collections.abc import Mapping

import msgspec

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:.15g}" if inside else f"{name} {value:.15g}"


class Family(msgspec.Struct):
    """A metric with its series; `suffix` tells a histogram's parts."""

    name: str
    kind: str
    about: str
    lines: list[str] = msgspec.field(default_factory=list)

    def add(self, labels: Mapping[str, str], value: float, suffix: str = "") -> None:
        self.lines.append(line(self.name + suffix, labels, value))

    def text(self) -> str:
        head = [f"# HELP {self.name} {self.about}", f"# TYPE {self.name} {self.kind}"]
        return "\n".join([*head, *self.lines])


def gauge(name: str, about: str) -> Family:
    return Family(name, "gauge", about)


def counter(name: str, about: str) -> Family:
    return Family(name, "counter", about)
