"""Processes on their cores: started, watched (CPU time, memory), stopped by their own ids."""

import os
import re
import resource
import signal
import socket
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """Something could not be started or measured; the message says what."""


def run(*command, cores=None, **options):
    """Runs a command to its end, on `cores`; its output as text."""
    pinned = ["taskset", "-c", cores, *command] if cores else list(command)
    return subprocess.run(pinned, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options).stdout


def raise_file_limit():
    """Everything started from here may open as many files as this process may at most."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Process:
    """A server and its children, in a process group of their own."""

    def __init__(self, command, cores, log):
        self.command = command
        self.log = log
        # nginx takes its own variable for sockets to inherit.
        environment = {name: value for name, value in os.environ.items() if name != "NGINX"}
        with open(log, "wb") as out:
            pinned = ["taskset", "-c", cores, *command] if cores else list(command)
            self.child = subprocess.Popen(pinned, stdout=out, stderr=out, start_new_session=True, env=environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_for(self, port, seconds=10.0):
        """Returns once something accepts on `port`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.child.poll() is not None:
                raise Failed(f"{self.command[0]} ended at once: {self.last_words()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise Failed(f"{self.command[0]} does not listen on {port}: {self.last_words()}")

    def last_words(self):
        with open(self.log, errors="replace") as log:
            return log.read()[-1500:].strip()

    def pids(self):
        """The process and everything below it."""
        found, waiting = [], [self.child.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as children:
                        waiting += map(int, children.read().split())
            except OSError:
                pass
        return found

    def cpu(self):
        """Seconds of (user, system) time so far."""
        user = system = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            user += int(fields[11])
            system += int(fields[12])
        return user / TICK, system / TICK

    def memory(self):
        """Bytes in use, pages shared with others counted in part (PSS)."""
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as rollup:
                    total += int(re.search(r"^Pss:\s+(\d+)", rollup.read(), re.M)[1])
            except (OSError, TypeError):
                pass
        return total * 1024

    def stop(self):
        for sent in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, sent)
            except ProcessLookupError:
                break
            try:
                self.child.wait(2)
            except subprocess.TimeoutExpired:
                continue
            break
        self.child.wait()


def free_ports(count, first=20500):
    """Ports that nobody uses, below those the system gives to clients."""
    found = []
    for port in range(first, 32000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Failed("no free ports")
