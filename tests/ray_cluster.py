"""A Ray cluster of two nodes on this machine, with a CPU each, for a test.

By hand: python -m tests.ray_cluster [--kill SECONDS] COMMAND ... carries out a command beside a cluster, whose second
node vanishes after so many seconds; {address} in the command becomes the cluster's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

HEALTH = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 5,
    "worker_niceness": 0,
}
"""Patient with a machine that the other tests keep busy; a node whose process is killed is missed at once anyway."""
PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")


class TwoNodes:
    """The cluster; ``address`` is its own."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"include_dashboard": False, "_system_config": HEALTH, **_node()}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._second: Any = self._cluster.add_node(**_node())
        self.address: str = self._cluster.address

    @property
    def whole(self) -> bool:
        """Whether the second node is still there."""
        return self._second is not None

    def kill(self) -> None:
        """Have the second node vanish with all that runs there."""
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = None

    def shutdown(self) -> None:
        """End every process of it."""
        self._cluster.shutdown()


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """A cluster; it and all of its processes are gone afterwards."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
    before = signal.getsignal(signal.SIGTERM)
    import ray

    found = TwoNodes()
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()
        signal.signal(signal.SIGTERM, before)


def _node() -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    return {"num_cpus": 1, "object_store_memory": 80_000_000, **dict(zip(PORTS, ports, strict=True))}


def main() -> int:
    """Carry out a command beside a cluster; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.ray_cluster", allow_abbrev=False)
    parser.add_argument("--kill", type=float, metavar="SECONDS")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    with two_nodes() as found, subprocess.Popen(_addressed(given.command, found.address)) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(given.kill)
        if process.poll() is None:
            print("the second node vanishes", flush=True)
            found.kill()
        return process.wait()


def _addressed(command: list[str], address: str) -> list[str]:
    return [word.replace("{address}", address) for word in command]


if __name__ == "__main__":
    sys.exit(main())
