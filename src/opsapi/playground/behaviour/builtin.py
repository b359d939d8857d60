"""Built-in profiles, by name and by image."""

from functools import lru_cache

from opsapi.playground.behaviour.profile import Cpu, Exit, Health, Latency, Logs, Memory, Profile, Traffic

_JAVA_TRACE = (
    "java.lang.IllegalStateException: no rate for this currency",
    "\tat com.example.pricing.RateTable.lookup(RateTable.java:88)",
    "\tat com.example.pricing.PriceService.quote(PriceService.java:41)",
    "\tat com.example.web.QuoteController.get(QuoteController.java:27)",
)

PROFILES: dict[str, Profile] = {
    "idle": Profile(
        cpu=Cpu(1.0, 0.0), memory=Memory("6Mi", "0"), logs=Logs("plain", per_request=0, idle_seconds=300.0)
    ),
    "web": Profile(
        traffic=Traffic(40.0),
        cpu=Cpu(4.0, 1.2),
        memory=Memory("38Mi", "96Ki"),
        latency=Latency(6.0, 45.0),
        logs=Logs("access", per_request=0.1, paths=("/", "/assets/app.js", "/assets/app.css", "/favicon.ico")),
    ),
    "api": Profile(
        traffic=Traffic(25.0),
        cpu=Cpu(8.0, 6.0),
        memory=Memory("110Mi", "512Ki"),
        latency=Latency(22.0, 180.0),
        logs=Logs(
            "json", messages=("request handled", "cache refreshed", "session opened"), errors=("upstream timed out",)
        ),
    ),
    "java": Profile(
        traffic=Traffic(18.0),
        cpu=Cpu(25.0, 9.0),
        memory=Memory("420Mi", "1Mi"),
        latency=Latency(28.0, 260.0),
        readiness=Health(after_seconds=12.0),
        logs=Logs("logfmt", messages=("quote served",), errors=("quote failed",), trace=_JAVA_TRACE),
    ),
    "worker": Profile(
        cpu=Cpu(60.0, 0.0),
        memory=Memory("150Mi", "0"),
        logs=Logs("logfmt", idle_seconds=6.0, messages=("batch done", "batch fetched", "lease renewed")),
    ),
    "database": Profile(
        traffic=Traffic(60.0),
        cpu=Cpu(30.0, 1.5),
        memory=Memory("360Mi", "256Ki"),
        latency=Latency(2.0, 25.0),
        readiness=Health(after_seconds=4.0),
        logs=Logs(
            "plain",
            per_request=0.005,
            idle_seconds=60.0,
            messages=("checkpoint starting: time", "checkpoint complete: wrote 118 buffers"),
        ),
    ),
    "cache": Profile(
        traffic=Traffic(120.0),
        cpu=Cpu(6.0, 0.15),
        memory=Memory("64Mi", "64Ki"),
        latency=Latency(0.4, 3.0),
        logs=Logs(
            "plain", per_request=0, idle_seconds=60.0, messages=("DB saved on disk", "Background saving started")
        ),
    ),
    "agent": Profile(
        cpu=Cpu(9.0, 0.0),
        memory=Memory("40Mi", "0"),
        logs=Logs("logfmt", idle_seconds=20.0, messages=("flushed chunks", "tailing files")),
    ),
    "batch": Profile(
        cpu=Cpu(180.0, 0.0),
        memory=Memory("90Mi", "0"),
        exit=Exit(45.0, 0, ("report written", "done")),
        logs=Logs("plain", idle_seconds=5.0, messages=("processed 500 rows", "next page")),
    ),
    "leaky": Profile(traffic=Traffic(12.0), memory=Memory("90Mi", "256Ki", "600Mi"), logs=Logs("json")),
    "crash": Profile(exit=Exit(2.0, 1, ("fatal: cannot start",)), logs=Logs("plain", per_request=0)),
}

_BY_IMAGE = {
    "nginx": "web",
    "httpd": "web",
    "caddy": "web",
    "envoy": "web",
    "haproxy": "web",
    "traefik": "web",
    "postgres": "database",
    "mysql": "database",
    "mariadb": "database",
    "mongo": "database",
    "redis": "cache",
    "valkey": "cache",
    "memcached": "cache",
    "fluent-bit": "agent",
    "fluentd": "agent",
    "node-exporter": "agent",
    "pause": "idle",
    "busybox": "idle",
    "alpine": "idle",
    "ubuntu": "idle",
    "debian": "idle",
}
SHELL_IMAGES = frozenset({"busybox", "alpine", "ubuntu", "debian", "bash", "python", "node"})
"""Without a command these start a shell or an interpreter on no terminal, which ends at once."""


@lru_cache(maxsize=4096)
def image_name(image: str) -> str:
    """The last part of an image's repository: `registry.example/team/nginx:1.27@sha256:…` -> `nginx`."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def by_image(image: str) -> Profile:
    """The profile an image behaves by where nothing else is said; an unknown one is a quiet service."""
    return PROFILES[_BY_IMAGE.get(image_name(image), "idle")]
