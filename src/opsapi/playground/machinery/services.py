"""Services' defaults and cluster IPs."""

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

SERVICE_NETWORK = IPv4Network("10.96.0.0/16")
_NODE_PORTS = range(30000, 32768)


def default(registry: "ObjectRegistry", obj: Obj, old: Obj | None) -> None:
    spec = dict(obj.get("spec") or {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] == "ExternalName":
        for name in ("clusterIP", "clusterIPs"):
            spec.pop(name, None)
    else:
        _addresses(registry, spec, old)
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if spec.get("ports"):
        spec["ports"] = _ports(registry, spec, old)
    obj["spec"] = {
        name: spec[name]
        for name in (
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
        if name in spec
    } | spec
    obj.setdefault("status", {"loadBalancer": {}})


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


def _ports(registry: "ObjectRegistry", spec: Obj, old: Obj | None) -> list[Obj]:
    ports = []
    wants_node_port = spec["type"] in ("NodePort", "LoadBalancer")
    known = {port.get("port"): port.get("nodePort") for port in ((old or {}).get("spec") or {}).get("ports") or []}
    for sent in spec["ports"]:
        port = {}
        if sent.get("name"):
            port["name"] = sent["name"]
        port["protocol"] = sent.get("protocol") or "TCP"
        port |= {key: value for key, value in sent.items() if key not in port}
        port.setdefault("targetPort", port.get("port"))
        if wants_node_port and not port.get("nodePort"):
            port["nodePort"] = known.get(port.get("port")) or _free_node_port(registry)
        ports.append(port)
    return ports


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
