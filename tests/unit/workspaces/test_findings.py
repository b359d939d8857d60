from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from opsapi.workspaces.findings import DEDUCTIONS, TROUBLE_FINDINGS, FindingType, deductions_table, score
from opsapi.workspaces.pods import Trouble
from opsapi.workspaces.states import ApplicationState

PAGE = Path(__file__).parents[3] / "docs" / "figures.md"
_counts = st.dictionaries(st.sampled_from(list(FindingType)), st.integers(0, 1000))


def test_the_published_table_is_the_one_that_counts() -> None:
    lines = PAGE.read_text().splitlines()
    assert [row for row in deductions_table() if row not in lines] == []


def test_every_type_and_state_is_explained_on_the_page() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    first_cells = [row.split("|")[1] for row in rows]
    for word in [kind.value for kind in FindingType] + [state.value for state in ApplicationState]:
        assert any(f"`{word}`" in cell for cell in first_cells), word
    for kind in FindingType:
        assert sum(f"`{kind.value}`" in cell for cell in first_cells) >= 2, f"{kind.value} costs points unexplained"


def test_every_finding_has_a_price_and_every_trouble_a_finding() -> None:
    assert set(DEDUCTIONS) == set(FindingType)
    assert set(TROUBLE_FINDINGS) == set(Trouble)


@given(_counts)
def test_a_score_lies_between_0_and_100_and_more_findings_never_raise_it(counts: dict[FindingType, int]) -> None:
    overall, performance = score(counts), score(counts, performance=True)
    assert 0 <= overall <= performance <= 100
    for kind in FindingType:
        assert score(Counter(counts) + Counter([kind])) <= overall


def test_a_types_findings_cost_no_more_than_its_cap() -> None:
    assert score({FindingType.NODE_NOT_READY: 1}) == 85
    assert score({FindingType.NODE_NOT_READY: 100}) == 55
    assert score({FindingType.SCHEDULING_GATED: 100}) == 100
