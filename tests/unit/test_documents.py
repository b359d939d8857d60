"""The pages of docs/ that are made from the code are as the code makes them."""

import re
from pathlib import Path

import pytest

from opsapi.documents import pages

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_generated_page_is_as_the_code_makes_it(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_every_setting_is_explained() -> None:
    page = pages()["configuration.md"]
    unexplained = [line for line in page.splitlines() if line.startswith("| `") and line.rstrip("| ").count("|") < 4]
    assert unexplained == []


def test_no_default_is_written_in_pythons_words() -> None:
    assert "`('" not in pages()["configuration.md"]
    assert "`True`" not in pages()["configuration.md"]


@pytest.mark.parametrize("page", sorted([*DOCS.parent.glob("*.md"), *DOCS.rglob("*.md")]), ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose)
    assert [target for target in targets if not (page.parent / target).exists()] == []
