"""Endpoints and load as processes of their own, told what to do line by line."""

import json
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


class Part:
    """A script of this folder that reads orders from its standard input."""

    def __init__(self, script, *arguments):
        self.command = [sys.executable, "-B", os.path.join(HERE, script), *map(str, arguments)]
        self.child = None
        self.start()

    def start(self):
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)

    def tell(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def ask(self, line):
        self.tell(line)
        return json.loads(self.child.stdout.readline())

    def signal(self, sent):
        self.child.send_signal(sent)

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Endpoint(Part):
    def __init__(self, port, seed):
        self.port = port
        super().__init__("fault_origin.py", port, seed)

    def start(self):
        super().start()
        if self.child.stdout.readline() != "ready\n":
            raise SystemExit(f"the endpoint on port {self.port} did not start")


class Load(Part):
    def __init__(self, port, connections, seed):
        super().__init__("fault_load.py", port, connections, seed)

    def run(self, requests, gap, posts):
        """Milliseconds between two requests of a connection, on average; a share in percent."""
        return self.ask(f"run {requests} {gap} {posts}")
