import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsapi.playground.api.selectors import field_predicate, label_predicate, parse_fields
from opsapi.playground.kinds import KindTable
from opsapi.playground.registry import ApiError

KINDS = KindTable()
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
LABELS = st.dictionaries(NAMES, NAMES, max_size=4)


def selects(selector: str, labels: dict[str, str]) -> bool:
    matches = label_predicate(selector)
    return matches is None or matches({"metadata": {"labels": labels}})


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("", {}, True),
        ("app=web", {"app": "web"}, True),
        ("app==web", {"app": "db"}, False),
        ("app!=web", {}, True),
        ("app", {"app": ""}, True),
        ("!app", {"app": "web"}, False),
        ("app in (web, db)", {"app": "db"}, True),
        ("app notin (web,db)", {"app": "x"}, True),
        ("app notin (web,db)", {}, True),
        ("app in (web),tier=front", {"app": "web", "tier": "back"}, False),
        ("size>3", {"size": "4"}, True),
        ("size<3", {"size": "4"}, False),
        ("size>3", {"size": "four"}, False),
        ("app=", {"app": ""}, True),
        ("example.com/role=a.b_c", {"example.com/role": "a.b_c"}, True),
    ],
)
def test_every_operator_selects_as_kubernetes_does(selector: str, labels: dict[str, str], expected: bool) -> None:
    assert selects(selector, labels) is expected


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("a in (b", "found '', expected: ',' or ')'"),
        ("a in b", "found 'b' expected: '('"),
        ("a b", "found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b!", "found '!', expected: ',' or 'end of string'"),
    ],
)
def test_a_selector_that_does_not_parse_is_told_why(selector: str, told: str) -> None:
    with pytest.raises(ApiError) as raised:
        label_predicate(selector)
    assert raised.value.code == 400
    assert told in str(raised.value)


@given(LABELS)
def test_labels_written_as_a_selector_select_themselves(labels: dict[str, str]) -> None:
    assert selects(",".join(f"{key}={value}" for key, value in labels.items()), labels)


@given(NAMES, NAMES, LABELS)
def test_in_and_notin_are_opposites(key: str, value: str, labels: dict[str, str]) -> None:
    assert selects(f"{key} in ({value})", labels) is not selects(f"{key} notin ({value})", labels)


@given(st.text(max_size=30))
def test_no_text_makes_the_parser_fail_otherwise_than_with_400(text: str) -> None:
    code = 200
    try:
        selects(text, {})
    except ApiError as error:
        code = error.code
    assert code in (200, 400)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("spec.nodeName=n1", True),
        ("spec.nodeName!=n1", False),
        ("status.phase==Running,spec.nodeName=n1", True),
        ("status.podIP=", True),
        ("spec.hostNetwork=false", True),
        ("metadata.namespace=shop", True),
    ],
)
def test_pods_are_selected_by_their_fields(selector: str, expected: bool) -> None:
    pod = {
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    kind = KINDS.stored("pods")
    matches = field_predicate(kind, parse_fields(kind, selector))
    assert matches is not None
    assert matches(pod) is expected


def test_fields_that_a_kind_does_not_select_by_are_refused_in_its_words() -> None:
    with pytest.raises(ApiError, match=r"field label not supported: spec\.nosuch"):
        parse_fields(KINDS.stored("pods"), "spec.nosuch=1")
    with pytest.raises(ApiError, match="is not a known field selector: only"):
        parse_fields(KINDS.stored("deployments.apps"), "spec.replicas=1")
    with pytest.raises(ApiError, match="can't understand 'x'"):
        parse_fields(KINDS.stored("pods"), "x")
