"""A real SLURM on this machine, for the tests: two virtual nodes of two CPUs, on loopback."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

NODES, CPUS, MEGABYTES = 2, 2, 8000
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

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


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """The cluster, which the commands of SLURM find by the environment."""
    missing = [program for program in PROGRAMS if not shutil.which(program, path=search_path())]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: apt install slurm-wlm munge")
    folder = Path(mkdtemp(prefix="slurm-"))  # short: it holds sockets
    daemons: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}/bin:{search_path()}")
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        for name in [
            name for name in os.environ if name.startswith("SLURM_") and name[6:] != "CONF"
        ]:
            patch.delenv(name)
        configure(folder)
        try:
            start(folder, daemons)
            yield
        finally:
            subprocess.run(["scancel", f"--user={os.getuid()}"], check=False)
            wait_for(lambda: not output("squeue", "--noheader"), seconds=60)
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(30)
    shutil.rmtree(folder)


def search_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def configure(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nodes = "\n".join(
        f"NodeName=node{i} NodeHostname=node{i} NodeAddr=127.0.0.1 Port={port + i} CPUs={CPUS} "
        f"RealMemory={MEGABYTES} Gres=gpu:1,shard:4"
        for i in range(1, NODES + 1)
    )
    for name in ("bin", "state", *(f"node{i}" for i in range(1, NODES + 1))):
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


def start(folder: Path, daemons: "list[subprocess.Popen[bytes]]") -> None:
    munge = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
    munge += [f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid"]
    munge += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"]
    nodes = [["slurmd", "-D", "-N", f"node{i}"] for i in range(1, NODES + 1)]
    for command in (munge, ["slurmctld", "-D"], *nodes):
        with (folder / f"{command[0]}.out").open("ab") as log:
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
        if command is munge:
            wait_for((folder / "munge.sock").exists)
    wait_for(lambda: set(output("sinfo", "--noheader", "--Node", "--format=%t")) == {"idle"})


def output(*command: str) -> list[str]:
    """The words that a command prints; none where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
