"""Memory of connections that rest: opened, used once, left alone."""

import time

from client import Http1, Http2
from measure import check
from processes import Process
from cells import Cell

REQUEST = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n"
KINDS = {
    "plain": "HTTP/1.1",
    "tls": "HTTP/1.1 over TLS",
    "h2": "HTTP/2 over TLS",
    "l4": "Layer 4, with its connection to the origin",
}


def one(subject, kind, world, cores, count):
    """Bytes per connection. A few connections come first, so that what is made once is not counted."""
    listener = "tls" if kind == "h2" else kind
    port = world.ports[listener]

    def rest():
        if kind == "h2":
            client = Http2(port)
            client.exchange()
        else:
            client = Http1(port, tls=kind == "tls")
            client.exchange(REQUEST)
        return client

    log = world.path(f"{subject.name}.log")
    with Process(subject.command(world, 1, "base"), cores.subject, log) as process:
        process.wait_for(port)
        check(world, Cell("idle", "", listener=listener))
        clients = [rest() for _ in range(50)]
        time.sleep(1)
        before = process.memory()
        clients += [rest() for _ in range(count)]
        time.sleep(2)
        used = process.memory() - before
        for client in clients:
            client.close()
    return used / count
