"""A real Redis Cluster: three nodes that share the slots, and as many replicas as a test adds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from celery_plugin.contract import Keys
from deploy.demo.ports import HOST, free_port, is_free
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.deadline import eventually

PREFIX = "{queue}"
PASSWORD = "of-the-nodes"
SLOTS = 16384
NODE_TIMEOUT_MS = 1000
# Where a node listens for the others, as all versions do it.
_BUS = 10_000


class Node(RedisServer):
    """One node, in a cluster of its own until it meets the others."""

    def __init__(self) -> None:
        login = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
        at_once = ("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0")
        super().__init__(*acl.arguments(PREFIX), *login, *cluster, *at_once, port=_port_with_bus())

    @contextmanager
    def asked(self) -> Iterator[Redis]:
        """Open a client of this node alone, as its administrator."""
        with Redis(port=self.port, password=PASSWORD) as client:
            yield client

    def command(self, *words: str | int) -> Any:
        """Ask this node one thing."""
        with self.asked() as client:
            return client.execute_command(" ".join(map(str, words[:2])), *words[2:])

    @property
    def id(self) -> str:
        """Its name among the nodes."""
        return _text(self.command("CLUSTER", "MYID"))


class ClusterSet:
    """The nodes; the first three have the slots at the start."""

    def __init__(self) -> None:
        self.nodes = [Node() for _ in range(3)]
        self.keys = Keys(PREFIX)

    def start(self) -> None:
        """Start all; return when each node knows that the cluster is whole."""
        first, *others = [node.start() for node in self.nodes]
        for number, node in enumerate(self.nodes):
            with node.asked() as client:
                slots = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
                client.execute_command("CLUSTER ADDSLOTS", *slots)
                # Else all begin with the same, and it takes seconds until they agree.
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in others:
            self._meet(node, first)
        self._wait()

    def close(self) -> None:
        """Kill all."""
        for node in self.nodes:
            node.close()

    def add_replica(self, of: RedisServer) -> RedisServer:
        """Add a node that has what another one has."""
        assert isinstance(of, Node)
        replica = Node()
        replica.start()
        self._meet(replica, of)
        self.nodes.append(replica)
        self._wait()
        replica.command("CLUSTER", "REPLICATE", of.id)
        with replica.asked() as client:
            eventually(lambda: client.info("replication").get("master_link_status") == "up")
        # Until the others know of it, they would not vote for it.
        eventually(lambda: all(_knows_replica(node, replica.id) for node in self.nodes))
        return replica

    def url(self, user: str, *nodes: RedisServer) -> str:
        """Make the URL of a setting, with some of the nodes or all."""
        login = f"{user}:{acl.PASSWORD}"
        ports = [node.port for node in nodes or self.nodes]
        return ";".join(f"redis+cluster://{login}@{HOST}:{port}" for port in ports)

    @property
    def slot(self) -> int:
        """The slot of all keys of the prefix."""
        return int(self.nodes[0].command("CLUSTER", "KEYSLOT", self.keys.log))

    def owner(self) -> Node:
        """The node that has the keys; the first one that thinks so."""
        return eventually(lambda: next(filter(self._owns, self.nodes), None))

    def others(self) -> list[Node]:
        """The nodes that do not have the keys."""
        owner = self.owner()
        return [node for node in self.nodes if node is not owner]

    @contextmanager
    def client(self) -> Iterator[Redis]:
        """Open a client of the node that has the keys now."""
        with self.owner().asked() as client:
            yield client

    def move(self, to: Node) -> None:
        """Move the slot and its keys, as ``redis-cli --cluster reshard`` does it."""
        slot, owner = self.slot, self.owner()
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.id)
        owner.command("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        with owner.asked() as client:
            while keys := client.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                client.execute_command("MIGRATE", HOST, to.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)
        for node in (to, owner, *(each for each in self.nodes if each not in (to, owner))):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", to.id)

    def _owns(self, node: Node) -> bool:
        if not node.running:
            return False
        with node.asked() as client:
            try:
                client.hget(self.keys.log, "epoch")
            except Exception as error:
                return _is_passing(error)
        return True

    def _meet(self, node: RedisServer, known: RedisServer) -> None:
        assert isinstance(node, Node)
        node.command("CLUSTER", "MEET", HOST, known.port)

    def _wait(self) -> None:
        eventually(lambda: all(_is_whole(node, len(self.nodes)) for node in self.nodes))


def _is_passing(error: Exception) -> bool:
    # By name or by word, as redis-py 5 leaves it.
    if re.match(r"(Moved|ClusterDown)", type(error).__name__) or re.match(r"MOVED|CLUSTERDOWN", str(error)):
        return False
    raise error


def _is_whole(node: Node, nodes: int) -> bool:
    facts = node.command("CLUSTER", "INFO")
    text = _text(facts) if not isinstance(facts, dict) else ""
    known = facts if isinstance(facts, dict) else dict(line.split(":") for line in text.split())
    return (known["cluster_state"], int(known["cluster_known_nodes"])) == ("ok", nodes)


def _knows_replica(node: Node, replica: str) -> bool:
    with node.asked() as client:
        found = client.execute_command("CLUSTER NODES")
    return "slave" in (found[next(key for key in found if found[key]["node_id"] == replica)]["flags"])


def _port_with_bus() -> int:
    while not is_free((port := free_port()) + _BUS):
        pass
    return port


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
