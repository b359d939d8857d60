"""docs/security-scan.md says what the code does, and the documented example is an answer."""

import json
import re
from pathlib import Path

import msgspec

from opsapi.playbooks.scanning.endpoint import SecurityFindings
from opsapi.playbooks.scanning.examples import FINDINGS
from opsapi.playbooks.scanning.hygiene import RULES
from opsapi.playbooks.scanning.reports import REPORT_KINDS
from opsapi.playbooks.scanning.standards import CONTROLS

PAGE = (Path(__file__).parents[3] / "docs" / "security-scan.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_control_is_published_with_its_level_and_severity() -> None:
    published = [tuple(row[:4]) for row in rows("Pod Security Standards")]
    assert published == [(f"`{one.id}`", one.name, one.level.value, one.severity.value) for one in CONTROLS]


def test_every_further_check_is_published_with_its_severity() -> None:
    assert [tuple(row[:2]) for row in rows("Further checks")] == [(f"`{one.id}`", one.severity.value) for one in RULES]


def test_every_kind_of_report_is_published() -> None:
    assert {kind.kind for kind in REPORT_KINDS} <= set(re.findall(r"\w+Report\b", PAGE))


def test_the_documented_example_reads_and_writes_as_it_stands() -> None:
    read = msgspec.json.decode(json.dumps(FINDINGS), type=SecurityFindings, strict=True)
    assert json.loads(msgspec.json.encode(read)) == FINDINGS
