"""The attacker who holds a valid token for one small workspace, and changes that the guardrails refuse, on the demo."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.requests import Answer, Api
from support.service import Running, running_demo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="module")
def outsider(demo: Running) -> Api:
    """May read and scale in ws-staging, and nothing anywhere else."""
    admin = demo.api("admin")
    wanted = {
        "name": "outsider",
        "kind": "agent",
        "permissions": ["workspace:write@ws-staging", "application:read@ws-staging"],
    }
    account = admin.post("/service-accounts", wanted).ok()["data"]["id"]
    issued = admin.post(f"/service-accounts/{account}/tokens", {}).ok()["data"]
    return Api(demo.ready["url"], account, issued["secret"])


def same_refusal(one: Answer, other: Answer, names: tuple[str, str]) -> bool:
    """Alike but for the name that was asked for, the request id and the time."""

    def masked(answer: Answer, name: str) -> Any:
        held = json.loads(answer.body.decode().replace(name, "X"))
        held["error"].pop("request_id")
        return answer.status, held, sorted(set(answer.headers) - {"date"}), answer.headers["x-ratelimit-limit"]

    return bool(masked(one, names[0]) == masked(other, names[1]))


@pytest.mark.parametrize(
    "path", ["/workspaces/{}", "/workspaces/{}/overview", "/workspaces/{}/nodes", "/workspaces/{}/applications"]
)
def test_another_workspace_is_refused_like_one_that_does_not_exist(outsider: Api, path: str) -> None:
    theirs, nobodys = outsider.get(path.format("ws-demo")), outsider.get(path.format("ws-none"))
    assert theirs.status == 404
    assert same_refusal(theirs, nobodys, ("ws-demo", "ws-none"))


def test_another_workspaces_application_is_refused_like_one_that_does_not_exist(outsider: Api) -> None:
    theirs, nobodys = (
        outsider.get("/applications/app-storefront/details"),
        outsider.get("/applications/app-nonexists/details"),
    )
    assert theirs.status == 404
    assert same_refusal(theirs, nobodys, ("app-storefront", "app-nonexists"))


def test_an_id_on_a_foreign_workload_shows_nothing_of_it(demo: Running, outsider: Api) -> None:
    """Labels are written by tenants: one that names another's application resolves only where the caller may look."""
    demo.kubectl(
        "label",
        "deployment",
        "storefront",
        "-n",
        "staging",
        "hexabase.ai/application-id=app-catalog",
        "--overwrite",
    )
    found = outsider.get("/applications/app-catalog/details")
    assert found.status in (200, 409)
    for place in found.json.get("error", {}).get("details", {}).get("candidates", []):
        assert "staging/" in place
    if found.status == 200:
        assert found.json["data"]["application"]["workspace_id"] == "ws-staging"


def test_lists_show_only_what_is_granted(outsider: Api) -> None:
    assert [w["id"] for w in outsider.get("/workspaces").ok()["data"]["workspaces"]] == ["ws-staging"]
    assert outsider.get("/service-accounts").status == 403
    assert outsider.get("/audit").status == 403
    assert outsider.get("/health").status == 403


def test_operations_of_others_are_not_there(demo: Running, outsider: Api) -> None:
    agent = demo.api("agent")
    begun = agent.post("/workspaces/ws-demo/deployments/mailer/scale?project=shop", {"replicas": 2}).ok()
    operation = begun["meta"]["operation_id"]
    assert agent.get(f"/operations/{operation}").status == 200
    assert outsider.get(f"/operations/{operation}").status == 404
    assert operation not in outsider.get("/operations").body.decode()


def test_nobody_grants_what_they_lack(demo: Running, outsider: Api) -> None:
    grown = outsider.post(f"/service-accounts/{outsider.account}/grants", {"grant": ["workspace:admin"]})
    assert grown.status == 403
    assert "workspace:admin" not in outsider.get("/whoami").ok()["data"]["permissions"]
    persons = demo.api("admin").post(
        "/service-accounts", {"name": "x", "kind": "agent", "permissions": ["approvals:write"]}
    )
    assert persons.status in (400, 403)


def test_speaking_for_somebody_is_refused_unless_allowed(outsider: Api) -> None:
    assert outsider.get("/whoami", {"X-On-Behalf-Of": "ceo@example.com"}).status == 403


def test_many_failed_logins_do_not_lock_a_valid_account_out(demo: Running, outsider: Api) -> None:
    stranger = Api(demo.ready["url"], outsider.account, "opsa_" + "x" * 38)
    statuses = {stranger.get("/whoami").status for _ in range(30)}
    assert statuses == {401, 429}
    assert outsider.get("/whoami").status == 200


def test_a_name_in_two_projects_has_to_be_chosen(demo: Running) -> None:
    demo.kubectl("create", "deployment", "mailer", "-n", "platform", "--image=nginx:1.27")
    agent = demo.api("agent")
    answer: Any = {}
    for _ in range(20):
        answer = agent.post("/workspaces/ws-demo/deployments/mailer/scale", {"replicas": 1, "dry_run": True}).json
        if "error" in answer:
            break
        time.sleep(0.2)
    assert answer["error"]["code"] == "AMBIGUOUS_RESOURCE"
    assert len(answer["error"]["details"]["candidates"]) == 2


def test_what_an_autoscaler_or_argo_cd_owns_is_left_alone(demo: Running) -> None:
    agent = demo.api("agent")
    owned = agent.post("/workspaces/ws-demo/deployments/checkout/scale?project=shop", {"replicas": 5})
    assert (owned.status, owned.json["error"]["code"]) == (409, "AUTOSCALER_CONFLICT")
    demo.kubectl(
        "annotate",
        "deployment",
        "pricing",
        "-n",
        "shop",
        "argocd.argoproj.io/tracking-id=shop:apps/Deployment:shop/pricing",
    )
    managed = agent.post("/workspaces/ws-demo/deployments/pricing/scale?project=shop", {"replicas": 3})
    assert (managed.status, managed.json["error"]["code"]) == (409, "MANAGED_EXTERNALLY")
    assert "replicas" in managed.json["error"]["details"]["patch"]
    assert demo.kubectl("get", "deployment", "pricing", "-n", "shop", "-o", "jsonpath={.spec.replicas}") == "2"


@pytest.mark.parametrize(
    ("user", "cluster", "named"),
    [
        ({"exec": {"command": "/bin/sh", "apiVersion": "client.authentication.k8s.io/v1"}}, {}, "exec"),
        ({"tokenFile": "/etc/passwd"}, {}, "tokenFile"),
        ({"auth-provider": {"name": "gcp"}}, {}, "auth-provider"),
        ({"token": "t"}, {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
        ({"token": "t"}, {"proxy-url": "http://127.0.0.1:1"}, "proxy-url"),
        ({"token": "t"}, {"certificate-authority": "/etc/ssl/x"}, "certificate-authority"),
        ({"token": "t"}, {"server": "https://169.254.169.254"}, "server"),
        ({"token": "t"}, {"server": "https://127.0.0.1:6443"}, "server"),
    ],
)
def test_a_dangerous_kubeconfig_is_refused_by_name(
    demo: Running, user: dict[str, Any], cluster: dict[str, Any], named: str
) -> None:
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.10:6443"} | cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    admin = demo.api("admin")
    answer = admin.post("/workspaces", {"name": "mine", "kubeconfig": json.dumps(kubeconfig)})
    assert (answer.status, answer.json["error"]["code"]) == (400, "VALIDATION_ERROR")
    assert any(named in path for path in answer.json["error"]["details"]["fields"])
    assert {w["id"] for w in admin.get("/workspaces").ok()["data"]["workspaces"]} == {"ws-demo", "ws-staging"}
