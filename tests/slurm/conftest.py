"""A real SLURM on this machine, for the tests: two virtual nodes of two CPUs, on loopback."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

NODES, CPUS, MEGABYTES = ("node1", "node2"), 2, 8000
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "fuser", "pgrep")

# Scheduling every 2 s; a job that is queued again waits for cred_expire.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/bin/prolog
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
ReturnToService=2
KillWait=5
SlurmdTimeout=60
MinJobAge=3600
GresTypes=gpu,shard
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE DefMemPerCPU=1000
"""

# The names of the nodes exist in SLURM only.
PROLOG = """#!/bin/sh
echo "export MASTER_ADDR=127.0.0.1"
echo "export GLOO_SOCKET_IFNAME=lo"
"""

# There is no accounting: what submitit asks it for, from the controller.
SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
state='.*JobState=([A-Z_]+).*'
scontrol --oneliner show job 2>/dev/null | sed -En \\
  -e "s/^JobId=[0-9]+ ArrayJobId=([0-9]+) ArrayTaskId=([0-9]+) $state/\\1_\\2|\\3|/p" \\
  -e "/ArrayJobId/!s/^JobId=([0-9]+) $state/\\1|\\2|/p"
"""


@pytest.fixture
def cluster(daemons: "Daemons") -> Iterator["Daemons"]:
    """A cluster that has nothing to do; what a test leaves there is told and taken away."""
    yield daemons
    if output("squeue", "--noheader"):
        for show in (
            ["squeue", "--long"],
            ["scontrol", "show", "job"],
            ["scontrol", "show", "node"],
        ):
            subprocess.run(show, check=False)
        for log in sorted(daemons.folder.glob("slurm*.log")):
            print(f"{log.name}:", *log.read_text().splitlines()[-100:], sep="\n")
        subprocess.run(["scancel", f"--user={os.getuid()}"], check=False)
        wait_for(lambda: not output("squeue", "--noheader"))


@pytest.fixture(scope="session")
def daemons() -> Iterator["Daemons"]:
    """They run, and the commands of SLURM find them by the environment."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=search_path())]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: apt install slurm-wlm munge psmisc procps")
    folder = Path(mkdtemp(prefix="slurm-"))  # short: it holds sockets
    daemons = Daemons(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}/bin:{search_path()}")
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        for name in [
            name for name in os.environ if name.startswith("SLURM_") and name[6:] != "CONF"
        ]:
            patch.delenv(name)
        configure(folder)
        try:
            daemons.start()
            yield daemons
        finally:
            daemons.stop()
    shutil.rmtree(folder)


class Daemons:
    """Those of the cluster, by name: munge's, the controller's, one of each node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        folder = self.folder
        munge = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
        munge += [f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid"]
        munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"]
        self._start("munge", munge)
        wait_for((folder / "munge.sock").exists)
        self._start("controller", ["slurmctld", "-D"])
        for node in NODES:
            self.start_node(node)
        states = ("sinfo", "--noheader", "--Node", "--format=%t")
        wait_for(lambda: set(output(*states)) == {"idle"})

    def start_node(self, node: str) -> None:
        self._start(node, ["slurmd", "-D", "-N", node])

    def kill_node(self, node: str) -> None:
        """As a loss of power does: nothing that runs there can say so."""
        jobs = output("squeue", "--noheader", f"--nodelist={node}", "--format=%A")
        daemon = self.processes.pop(node)
        daemon.kill()
        daemon.wait()
        steps = [
            int(pid) for job in jobs for pid in output("pgrep", "-f", f"^slurmstepd: .{job}[.]")
        ]
        for pid in (*steps, *sorted(processes_with(f"SLURMD_NODENAME={node}"))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
            process.wait(30)

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)


def processes_with(variable: str) -> Iterator[int]:
    """Whose environment has it, as in `NAME=value`."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is not ours
            if variable.encode() in environment.read_bytes().split(b"\0"):
                yield int(environment.parent.name)


def search_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def configure(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port + i} CPUs={CPUS} "
        f"RealMemory={MEGABYTES} Gres=gpu:1,shard:4"
        for i, node in enumerate(NODES, start=1)
    )
    for name in ("bin", "state", *NODES):
        (folder / name).mkdir()
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    text = CONFIG.format(folder=folder, host=host, port=port, user=user, nodes=nodes)
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=shard Count=4\n")
    for name, script in (("prolog", PROLOG), ("sacct", SACCT)):
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)


def output(*command: str) -> list[str]:
    """The words that a command prints; none where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
