"""A Slurm cluster of several nodes on this machine, for a test: munged, slurmctld, and a slurmd for each node.

By hand: python -m tests.slurm_cluster [--nodes 2] [--kill SECONDS] COMMAND ... carries out a command beside a cluster,
of which a node that has work vanishes after so many seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
PATIENCE_S = 60.0
"""How long the cluster may take to be ready, and a process to end."""
CONF = """
ClusterName=lossbench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=cred_expire=6,socket={state}/munge.socket
SlurmctldPort={ctld}
SlurmdPort={first}
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/%n
SlurmctldPidFile={state}/ctld.pid
SlurmdPidFile={state}/%n.pid
SlurmctldLogFile={state}/ctld.log
SlurmdLogFile={state}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,defer=0
KillWait=8
MinJobAge=300
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """A cluster that runs.

    Attributes:
        environment: what a program needs to find it.
    """

    state: Path
    environment: Mapping[str, str]
    daemons: dict[str, subprocess.Popen[bytes]]

    def asked(self, *command: str) -> str:
        """Return what a command of Slurm prints."""
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def nodes(self) -> dict[str, str]:
        """Return the node of every job that runs on one which lives, by the job's id."""
        told = (line.split() for line in self.asked("squeue", "-h", "-r", "-t", "R", "-o", "%A %N").splitlines())
        return {job: node for job, node in told if self.daemons[node].poll() is None}

    def kill(self, node: str) -> list[int]:
        """Let a node vanish: kill its slurmd and every process that it has started; return their ids."""
        gone = _processes(self.state / node)
        _kill(gone)
        self.daemons[node].wait(PATIENCE_S)
        return gone


def missing() -> str:
    """Return why no cluster can be started on this machine; nothing if it can."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (slurmctld, slurmd, slurm-client, munge)"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@contextlib.contextmanager
def cluster(nodes: int = 2) -> Iterator[Cluster]:
    """Start a cluster with nodes n1, n2, ... of one core each; at the end nothing of it is left."""
    state = Path(tempfile.mkdtemp(prefix="slurm-"))
    state.chmod(0o755)  # munge wants its socket to be reachable
    ctld, *ports = _free_ports(nodes + 1)
    described = "\n".join(
        f"NodeName=n{i} NodeHostname={platform.node()} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=1000"
        for i, port in enumerate(ports, 1)
    )
    conf = CONF.format(host=platform.node(), state=state, ctld=ctld, first=ports[0], nodes=described)
    (state / "slurm.conf").write_text(conf)
    environment = {**os.environ, "SLURM_CONF": str(state / "slurm.conf")}
    found = Cluster(state, environment, {})
    try:
        _start(found, [f"n{i}" for i in range(1, nodes + 1)])
        yield found
    finally:
        _end(found)
        shutil.rmtree(state, ignore_errors=True)


def _start(found: Cluster, nodes: list[str]) -> None:
    state = found.state
    key = state / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    files = [f"--{what}-file={state}/munge.{what}" for what in ("key", "pid", "log", "seed")]
    commands = {
        "munged": ["munged", "--foreground", "--force", f"--socket={state}/munge.socket", *files],
        "slurmctld": ["slurmctld", "-D", "-c"],
        **{node: ["slurmd", "-D", "-N", node] for node in nodes},
    }
    for name, command in commands.items():
        with (state / f"{name}.out").open("wb") as out:
            found.daemons[name] = subprocess.Popen(
                command, cwd=_place(state, name), env=found.environment, stdout=out, stderr=out, start_new_session=True
            )
        if name == "munged":
            _until(lambda: (state / "munge.socket").exists(), found)
    _until(lambda: _idle(found) == len(nodes), found)


def _idle(found: Cluster) -> int:
    asked = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%T"], env=found.environment, capture_output=True, text=True, check=False
    )
    return asked.stdout.split().count("idle")


def _until(true: Callable[[], bool], found: Cluster) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        ended = [name for name, daemon in found.daemons.items() if daemon.poll() is not None]
        if ended or time.monotonic() > deadline:
            said = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in found.state.glob("*.[lo][ou][gt]"))
            raise RuntimeError(f"the cluster did not start ({ended}):\n{said}")
        time.sleep(0.1)


def _place(state: Path, name: str) -> Path:
    """Return the working directory of a daemon, by which it and what it starts are known."""
    (state / name).mkdir(exist_ok=True)
    return state / name


def _end(found: Cluster) -> None:
    _kill([pid for name in found.daemons for pid in _processes(found.state / name)])
    for daemon in found.daemons.values():
        daemon.wait(PATIENCE_S)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes(place: Path) -> list[int]:
    """Return the processes of a daemon and all below them: slurmstepd, which leaves its parent, keeps the place."""
    found, children = [], {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
                if os.readlink(entry / "cwd") == str(place):
                    found.append(int(entry.name))
    for pid in found:
        found += [child for child in children.get(pid, ()) if child not in found]
    return found


def _free_ports(number: int) -> list[int]:
    """Return ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main() -> int:
    """Carry out a command beside a cluster; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm_cluster", allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--kill", type=float, metavar="SECONDS")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if why := missing():
        parser.error(why)
    with cluster(given.nodes) as found, subprocess.Popen(given.command, env=found.environment) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(given.kill)
        if process.poll() is None and (working := sorted(found.nodes().values())):
            print(f"{working[-1]} vanishes", flush=True)
            found.kill(working[-1])
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
