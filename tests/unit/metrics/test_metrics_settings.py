"""A workspace's metrics in the configuration file: what is wrong with it is said at start."""

from pathlib import Path

import pytest

from opsapi.settings.model import Settings
from opsapi.settings.source import InvalidConfiguration, load
from opsapi.telemetry.settings import CountedBy, HttpPreset, MetricsSettings

HEAD = """
keys: {audit: x}
workspaces:
  - id: prod
    in_cluster: true
    metrics:
"""


def loaded(folder: Path, *lines: str) -> MetricsSettings:
    path = folder / "opsapi.yaml"
    path.write_text(HEAD + "".join(f"      {line}\n" for line in lines))
    metrics = load(Settings, path, {}).workspaces[0].metrics
    assert metrics is not None
    return metrics


def test_a_url_is_enough(tmp_path: Path) -> None:
    metrics = loaded(tmp_path, "url: http://prometheus:9090")
    assert (metrics.preset, metrics.timeout_seconds, metrics.verify_tls) == (HttpPreset.OTEL, 10, True)


def test_everything_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    metrics = loaded(
        tmp_path,
        "url: https://mimir.example/prometheus",
        "bearer_token_file: token",
        "tenant: team-a",
        "ca_file: ca.pem",
        "matchers: {cluster: production}",
        "preset: nginx",
        "http: {namespace: namespace, name: service, counted_by: service}",
        "containers: {namespace: k8s_namespace}",
    )
    assert metrics.bearer_token is not None
    assert metrics.bearer_token.reveal() == "s3cret"
    assert metrics.ca_file == tmp_path / "ca.pem"
    assert metrics.matchers == {"cluster": "production"}
    assert (metrics.http.name, metrics.http.counted_by) == ("service", CountedBy.SERVICE)
    assert metrics.containers.namespace == "k8s_namespace"
    assert "s3cret" not in repr(metrics)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("url: prometheus:9090", "expected http:// or https://"),
        ("url: ftp://prometheus", "expected http:// or https://"),
        ("url: http://prometheus?x=1", "expected http:// or https://"),
        ("url: http://me:pass@prometheus", "credentials go into username and password"),
        ("{url: http://p, bearer_token: a, username: b, password: c}", "not both"),
        ("{url: http://p, username: b}", "username and password go together"),
        ("{url: http://p, password: b}", "username and password go together"),
        ('{url: http://p, bearer_token: "a\\r\\nX: y"}', "no control characters"),
        ('{url: http://p, username: "a:b", password: c}', "no colon in username"),
        ("{url: http://p, matchers: {'a\"} or up{x': y}}", "is no label name"),
        ("{url: http://p, preset: linkerd}", "workspaces[0].metrics.preset"),
        ("{url: http://p, containers: {cpu: 'up or vector(1)'}}", "workspaces[0].metrics.containers.cpu"),
        ("{url: http://p, http: {code: 'a,b'}}", "workspaces[0].metrics.http.code"),
        ("{url: http://p, timeout: 3}", "did you mean 'timeout_seconds'?"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        loaded(tmp_path, line)
    assert says in str(caught.value)
    assert "pass@" not in str(caught.value)
