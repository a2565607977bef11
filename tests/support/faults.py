"""What can be wrong with the Redis of the state: each fault begins, and is over when its answer is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from celery_plugin.contract import Keys
from deploy.demo.redis_server import RedisServer
from tests.support.deadline import eventually
from tests.support.proxy import Proxy

KEYS = Keys()
End = Callable[[], object]


@dataclass
class Patient:
    """A Redis, reached through a proxy or not, with another one for what needs two."""

    server: RedisServer
    proxy: Proxy
    other: RedisServer
    _clients: list[Redis] = field(default_factory=list)

    @property
    def admin(self) -> Any:
        """A client that may do everything."""
        return self._client(self.server)

    def _client(self, server: RedisServer) -> Any:
        self._clients.append(Redis.from_url(server.url))
        return self._clients[-1]

    def close(self) -> None:
        """Close what was opened."""
        for client in self._clients:
            client.close()

    def refuse(self) -> End:
        """Nobody listens any more; what was saved is there afterwards."""
        self.admin.save()
        self.server.kill()
        return self.server.start

    def freeze(self) -> End:
        """SIGSTOP: connections are open, and nothing is answered."""
        self.server.pause()
        return self.server.resume

    def vanish(self) -> End:
        """A black hole: neither FIN nor RST, for new connections as well."""
        self.proxy.vanish()
        return self.proxy.come_back

    def fill(self) -> End:
        """Not a byte more."""
        self.admin.config_set("maxmemory-policy", "noeviction")
        self.admin.config_set("maxmemory", 1)
        return lambda: self.admin.config_set("maxmemory", 0)

    def become_replica(self) -> End:
        """A fail-over: another server, which has the same data, is the primary now."""
        there = self._client(self.other)
        there.replicaof("127.0.0.1", self.server.port)
        eventually(lambda: there.info("replication").get("master_link_status") == "up")
        there.execute_command("REPLICAOF", "NO", "ONE")
        self.admin.replicaof("127.0.0.1", self.other.port)
        eventually(lambda: self.admin.info("replication").get("master_link_status") == "up")
        return lambda: self.admin.execute_command("REPLICAOF", "NO", "ONE")

    def forbid(self, *commands: str) -> End:
        """Rights are taken away while everything runs."""
        self._acl(f"-{command}" for command in commands)
        return lambda: self._acl(f"+{command}" for command in commands)

    def take_key(self, key: str) -> End:
        """Somebody puts a string where the plugin has something else."""
        self.admin.copy(key, "aside")
        self.admin.set(key, "somebody else's")

        def end() -> None:
            self.admin.delete(key)
            self.admin.copy("aside", key)

        return end

    def _acl(self, rules: Any) -> None:
        self.admin.execute_command("ACL", "SETUSER", "default", *rules)


# With what the worker's log says of each.
FAULTS: dict[str, tuple[Callable[[Patient], End], str]] = {
    "refused": (Patient.refuse, "refused|closed|reset"),
    "frozen": (Patient.freeze, "(?i:timeout|timed out)"),
    "black hole": (Patient.vanish, "(?i:timeout|timed out)"),
    "full": (Patient.fill, "maxmemory.*SIDECAR_LOG_MAX"),
    "replica": (Patient.become_replica, "read only replica.*SIDECAR_REDIS_URL"),
    "no HSET": (lambda patient: patient.forbid("hset"), "(?i:HSET).*right"),
    "no XADD": (lambda patient: patient.forbid("xadd"), "(?i:XADD).*right"),
    "no script": (lambda patient: patient.forbid("evalsha", "eval"), "(?i:evalsha).*right"),
    "a string": (
        lambda patient: patient.take_key(KEYS.active_tasks),
        f"{KEYS.active_tasks} is a string, not a hash.*SIDECAR_PREFIX",
    ),
}
