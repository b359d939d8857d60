"""The grammar of names, labels and keys, with the sentences that the API server says when they do not hold."""

import re

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = rf"({_QUALIFIED})?"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"

_LABEL_RE = re.compile(_LABEL)
_SUBDOMAIN_RE = re.compile(_SUBDOMAIN)
_LABEL_1035_RE = re.compile(_LABEL_1035)
_QUALIFIED_RE = re.compile(_QUALIFIED)
_VALUE_RE = re.compile(_VALUE)
_CONFIG_KEY_RE = re.compile(_CONFIG_KEY)


def _matching(what: str, rule: str, *examples: str) -> str:
    shown = ",  or ".join(f"'{one}'" for one in examples)
    return f"{what} (e.g. {shown}, regex used for validation is '{rule}')"


def _at_most(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def subdomain(name: str) -> list[str]:
    """What is wrong with a DNS-1123 subdomain: the names of most objects."""
    problems = [] if len(name) <= 253 else [_at_most(253)]
    if not _SUBDOMAIN_RE.fullmatch(name):
        what = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(_matching(what, _SUBDOMAIN, "example.com"))
    return problems


def label(name: str) -> list[str]:
    """What is wrong with a DNS-1123 label: namespaces, containers, volumes."""
    problems = [] if len(name) <= 63 else [_at_most(63)]
    if not _LABEL_RE.fullmatch(name):
        what = (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(_matching(what, _LABEL, "my-name", "123-abc"))
    return problems


def label_1035(name: str) -> list[str]:
    """What is wrong with a DNS-1035 label: Services."""
    problems = [] if len(name) <= 63 else [_at_most(63)]
    if not _LABEL_1035_RE.fullmatch(name):
        what = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
            "start with an alphabetic character, and end with an alphanumeric character"
        )
        problems.append(_matching(what, _LABEL_1035, "my-name", "abc-123"))
    return problems


def path_segment(name: str) -> list[str]:
    """What is wrong with a name that only has to fit a URL path: roles and bindings."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{letter}'" for letter in "/%" if letter in name]


def qualified(key: str) -> list[str]:
    """What is wrong with a label or annotation key."""
    prefix, slash, name = key.rpartition("/")
    problems = []
    if slash:
        if not prefix:
            problems.append("prefix part must be non-empty")
        else:
            problems.extend(f"prefix part {one}" for one in subdomain(prefix))
    if "/" in prefix:
        what = "a valid label key must consist of alphanumeric characters, '-', '_' or '.'"
        return [f"{what} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append(f"name part {_at_most(63)}")
    if not _QUALIFIED_RE.fullmatch(name):
        what = (
            "name part must consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(_matching(what, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return problems


def label_value(value: str) -> list[str]:
    problems = [] if len(value) <= 63 else [_at_most(63)]
    if not _VALUE_RE.fullmatch(value):
        what = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(_matching(what, _VALUE, "MyValue", "my_value", "12345"))
    return problems


def config_key(key: str) -> list[str]:
    """What is wrong with a key of a ConfigMap's or Secret's data."""
    problems = [] if len(key) <= 253 else [_at_most(253)]
    if not _CONFIG_KEY_RE.fullmatch(key):
        what = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        problems.append(_matching(what, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return problems
