import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.kit.permissions import UNBOUND_ONLY, Grant, Grants, Permission

bindable = st.sampled_from(sorted(set(Permission) - UNBOUND_ONLY))
grant = st.one_of(
    st.builds(Grant, bindable, st.sampled_from(["", "ws-1", "ws-2"])),
    st.builds(Grant, st.sampled_from(list(Permission))),
)


def test_admin_implies_write_implies_read_of_the_same_resource_only() -> None:
    grants = Grants(frozenset({Grant(Permission.WORKSPACE_ADMIN)}))
    assert grants.allows(Permission.WORKSPACE_READ)
    assert grants.allows(Permission.WORKSPACE_WRITE)
    assert not grants.allows(Permission.APPLICATION_READ)
    assert not grants.allows(Permission.WORKSPACES_ADMIN)
    assert not Grants(frozenset({Grant(Permission.WORKSPACE_READ)})).allows(Permission.WORKSPACE_WRITE)


def test_a_bound_grant_holds_in_its_workspace_alone() -> None:
    grants = Grants(frozenset({Grant.parse("workspace:write@ws-1")}))
    assert grants.allows(Permission.WORKSPACE_READ, "ws-1")
    assert not grants.allows(Permission.WORKSPACE_READ, "ws-2")
    assert not grants.allows(Permission.WORKSPACE_READ)
    assert grants.sees("ws-1")
    assert not grants.sees("ws-2")
    assert grants.workspaces(Permission.WORKSPACE_READ) == frozenset({"ws-1"})


def test_health_alone_shows_no_workspace() -> None:
    assert not Grants(frozenset({Grant(Permission.SYSTEM_READ)})).sees("ws-1")


@pytest.mark.parametrize(
    "text", ["", "workspace", "workspace:delete", "workspace:read@", "workspace:read@WS", "system:read@ws-1", "*"]
)
def test_what_is_no_grant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no permission|no workspace id|whole installation"):
        Grant.parse(text)


@given(grant)
def test_a_grant_survives_its_text(one: Grant) -> None:
    assert Grant.parse(str(one)) == one


@given(st.frozensets(grant, max_size=5), st.frozensets(grant, max_size=5))
def test_covers_names_exactly_what_would_add_rights(mine: frozenset[Grant], theirs: frozenset[Grant]) -> None:
    grants = Grants(mine)
    lacking = grants.covers(theirs)
    for one in theirs - lacking:
        assert grants.allows(one.permission, one.workspace)
    widened = Grants(mine | (theirs - lacking))
    for permission in Permission:
        for workspace in ("", "ws-1", "ws-2", "ws-3"):
            assert widened.allows(permission, workspace) == grants.allows(permission, workspace)
