"""Services' defaults and cluster IPs."""

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

SERVICE_NETWORK = IPv4Network("10.96.0.0/16")
_NODE_PORTS = range(30000, 32768)


_ORDER = (
    "ports",
    "selector",
    "clusterIP",
    "clusterIPs",
    "type",
    "externalIPs",
    "sessionAffinity",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "externalName",
)


def default(obj: Obj) -> None:
    spec = dict(obj.get("spec") or {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if spec.get("ports"):
        spec["ports"] = [_default_port(port) for port in spec["ports"]]
    obj["spec"] = spec
    obj.setdefault("status", {"loadBalancer": {}})


def _default_port(sent: Obj) -> Obj:
    port = {"name": sent["name"]} if sent.get("name") else {}
    port["protocol"] = sent.get("protocol") or "TCP"
    port |= {key: value for key, value in sent.items() if key not in port}
    if not port.get("targetPort"):
        port["targetPort"] = port.get("port")
    return port


def allocate(registry: "ObjectRegistry", obj: Obj, old: Obj | None) -> None:
    """Cluster IPs and node ports; an update keeps those it has."""
    spec = dict(obj["spec"])
    if spec["type"] == "ExternalName":
        for name in ("clusterIP", "clusterIPs"):
            spec.pop(name, None)
    else:
        _addresses(registry, spec, old)
    if spec.get("ports") and spec["type"] in ("NodePort", "LoadBalancer"):
        spec["ports"] = _node_ports(registry, spec["ports"], old)
    obj["spec"] = {name: spec[name] for name in _ORDER if name in spec} | spec


def _addresses(registry: "ObjectRegistry", spec: Obj, old: Obj | None) -> None:
    before = (old or {}).get("spec") or {}
    if not spec.get("clusterIP"):
        spec["clusterIP"] = before.get("clusterIP") or _free_address(registry)
    if not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


def _free_address(registry: "ObjectRegistry") -> str:
    while True:
        offset = 256 + registry.identity.below(SERVICE_NETWORK.num_addresses - 512)
        address = str(IPv4Address(int(SERVICE_NETWORK.network_address) + offset))
        if not registry.addresses.taken(address):
            return address


def _node_ports(registry: "ObjectRegistry", ports: list[Obj], old: Obj | None) -> list[Obj]:
    known = {port.get("port"): port.get("nodePort") for port in ((old or {}).get("spec") or {}).get("ports") or []}
    return [
        port if port.get("nodePort") else {**port, "nodePort": known.get(port.get("port")) or _free_node_port(registry)}
        for port in ports
    ]


def _free_node_port(registry: "ObjectRegistry") -> int:
    while True:
        port = _NODE_PORTS[registry.identity.below(len(_NODE_PORTS))]
        if not registry.addresses.port_taken(port):
            return port


class Addresses:
    """Which cluster IPs and node ports the stored Services hold, kept by watching them."""

    def __init__(self, registry: "ObjectRegistry") -> None:
        self._addresses: dict[str, str] = {}
        self._ports: dict[int, str] = {}
        registry.subscribe("services", lambda change: self._follow(change.new, change.type == "DELETED", change.old))

    def taken(self, address: str) -> bool:
        return address in self._addresses

    def holder(self, address: str) -> str | None:
        """The uid of the Service that has the address."""
        return self._addresses.get(address)

    def port_taken(self, port: int) -> bool:
        return port in self._ports

    def _follow(self, new: Obj, gone: bool, old: Obj | None) -> None:
        if old is not None:
            for address in old["spec"].get("clusterIPs") or []:
                self._addresses.pop(address, None)
            for port in old["spec"].get("ports") or []:
                self._ports.pop(port.get("nodePort", 0), None)
        if gone:
            return
        uid = new["metadata"]["uid"]
        for address in new["spec"].get("clusterIPs") or []:
            if address != "None":
                self._addresses[address] = uid
        for port in new["spec"].get("ports") or []:
            if port.get("nodePort"):
                self._ports[port["nodePort"]] = uid
