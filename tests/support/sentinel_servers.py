"""A Redis behind Sentinels: a master, a replica and three Sentinels, all real."""

from __future__ import annotations

from typing import Any, ClassVar

from redis import Redis

from deploy.demo.ports import HOST
from deploy.demo.redis_server import RedisServer
from tests.support import acl
from tests.support.deadline import eventually

NAME = "mymaster"
PASSWORD, SENTINEL_PASSWORD = "of-the-servers", "of-the-sentinels"
DOWN_AFTER_MS = 500


class Sentinel(RedisServer):
    """A server that watches others."""

    ready = b"Sentinel ID is"

    def __init__(self, master: RedisServer) -> None:
        super().__init__("--sentinel")
        # It writes into this file what it learns.
        self._config = self.directory / "sentinel.conf"
        self._config.write_text(
            f"""requirepass {SENTINEL_PASSWORD}
sentinel sentinel-pass {SENTINEL_PASSWORD}
sentinel monitor {NAME} {HOST} {master.port} 2
sentinel auth-pass {NAME} {PASSWORD}
sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}
sentinel failover-timeout {NAME} 5000
"""
        )

    def _command(self) -> list[str]:
        server, *options = super()._command()
        return [server, str(self._config), *options]


class SentinelSet:
    """The servers; `master` and `replica` are what they were at the start."""

    celery_options: ClassVar = {"master_name": NAME, "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}

    def __init__(self) -> None:
        login = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
        self.servers = [
            RedisServer(*acl.arguments(), *login, "--repl-diskless-sync-delay", "0") for _ in "12"
        ]
        self.sentinels: list[Sentinel] = []

    def start(self) -> None:
        """Start all; return when each Sentinel knows the others and the replica."""
        for server in self.servers:
            server.start()
        master, replica = self.servers
        with self.client(replica) as client:
            client.execute_command("REPLICAOF", HOST, master.port)
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        self.sentinels = [Sentinel(master) for _ in range(3)]
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            with Redis(port=sentinel.port, password=SENTINEL_PASSWORD) as client:
                eventually(lambda client=client: _knows_all(client))

    def close(self) -> None:
        """Kill all."""
        for server in (*self.sentinels, *self.servers):
            server.close()

    def celery_url(self, login: str = f":{PASSWORD}") -> str:
        """Make the URL as Celery takes it; the options are `celery_options`."""
        return ";".join(f"sentinel://{login}@{HOST}:{each.port}/0" for each in self.sentinels)

    def url(self, user: str, password: str = SENTINEL_PASSWORD) -> str:
        """Make the URL of a setting, for one of the users that are shipped."""
        options = f"master_name={NAME}&sentinel_password={password}"
        return f"{self.celery_url(f'{user}:{acl.PASSWORD}')}?{options}"

    def client(self, server: RedisServer) -> Redis:
        """Open a client of one server, as its administrator."""
        return Redis(port=server.port, password=PASSWORD)

    def named(self) -> RedisServer:
        """The server that most Sentinels name as the master."""
        ports: list[int] = []
        for sentinel in self.sentinels:
            with Redis(port=sentinel.port, password=SENTINEL_PASSWORD) as client:
                answer: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                ports.append(int(answer[1]))
        most = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == most)

    def wait_for_replica(self, master: RedisServer) -> None:
        """Wait until the replica has all that the master has."""
        with self.client(master) as client:
            assert client.execute_command("WAIT", 1, 5000) == 1

    def cut_off(self, replica: RedisServer, master: RedisServer) -> None:
        """Let the replica have what the master has now, and nothing more."""
        self.wait_for_replica(master)
        with self.client(replica) as client:
            client.config_set("masterauth", "wrong")
        with self.client(master) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def wait_for_failover(self, old: RedisServer) -> RedisServer:
        """Wait until another server is the master, and return it."""
        other = next(server for server in self.servers if server is not old)
        eventually(lambda: self.named() is other, what="the Sentinels name another master")
        with self.client(other) as client:
            eventually(lambda: client.info("replication")["role"] == "master")
        return other


def _knows_all(sentinel: Redis) -> bool:
    answer: Any = sentinel.execute_command("SENTINEL", "MASTER", NAME)
    facts = dict(zip(answer[::2], answer[1::2], strict=True)) if isinstance(answer, list) else answer
    known = {_text(name): _text(value) for name, value in facts.items()}
    return (known["num-slaves"], known["num-other-sentinels"]) == ("1", "2")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
