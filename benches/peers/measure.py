"""One run of one cell at one subject: the load generator's figures and what the subject used meanwhile."""

import functools
import os
import re
import socket
import ssl
import statistics
import subprocess
import time

from processes import Failed, Process, run

MICROSECONDS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}


def one(subject, cell, world, cores, seconds):
    """Starts the subject, warms it up, measures, stops it; the figures by name."""
    log = world.path(f"{subject.name}.log")
    # HAProxy's goes to standard output.
    access = log if subject.name == "haproxy" else world.path(f"{subject.name}.access")
    if os.path.exists(access):
        os.remove(access)
    subject_cores = cores.wide if cell.workers > 1 else cores.subject
    with Process(subject.command(world, cell.workers, cell.variant), subject_cores, log) as process:
        process.wait_for(world.ports[cell.listener])
        check(world, cell)
        run(*cell.command(world, 1), cores=cores.load)
        before = lines(access) if cell.variant == "log" else 0
        figures = under_load(process, cell, world, cores, seconds)
    if cell.variant == "log":
        # A log that leaves lines out is cheap.
        written = lines(access) - before
        figures["unlogged"] = max(0.0, 1 - written / (figures["per_second"] * seconds))
    return figures


def lines(path):
    with open(path, "rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))


def under_load(process, cell, world, cores, seconds):
    if cell.streams and os.path.exists(world.path("h2load.log")):
        # h2load appends, and the warm-up is not to be counted.
        os.remove(world.path("h2load.log"))
    user, system = process.cpu()
    started = time.monotonic()
    command = ["taskset", "-c", cores.load, *cell.command(world, seconds)]
    generator = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        time.sleep(0.7 * seconds)
        memory = process.memory()
        said = generator.communicate(timeout=seconds + 60)[0]
    except BaseException:
        generator.kill()
        generator.wait()
        raise
    took = time.monotonic() - started
    user, system = (after - before for after, before in zip(process.cpu(), (user, system)))
    answers = of_h2load(said, world) if cell.streams else of_wrk(said)
    answered = max(answers["answered"], 1)
    return {
        "seconds": seconds,
        "cpu_us": 1e6 * (user + system) / answered,
        "user_us": 1e6 * user / answered,
        "per_second": answers["answered"] / seconds,
        "p50_us": answers["p50_us"],
        "p99_us": answers["p99_us"],
        "failed": answers["failed"],
        "memory": memory,
        "busy": (user + system) / took,
    }


def of_wrk(said):
    try:
        answered = int(re.search(r"(\d+) requests in", said)[1])
        p50, p99 = (duration(re.search(rf"^\s+{q}%\s+(\S+)", said, re.M)[1]) for q in (50, 99))
    except TypeError:
        raise Failed(f"wrk says: {said.strip()[-300:]}") from None
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    failed = sum(map(int, errors.groups())) if errors else 0
    failed += int(refused[1]) if refused else 0
    return {"answered": answered, "failed": failed, "p50_us": p50, "p99_us": p99}


def of_h2load(said, world):
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    if not counts:
        raise Failed(f"h2load says: {said.strip()[-300:]}")
    succeeded, failed, _, _ = map(int, counts.groups())
    # Of each request: when it began, its status, how many microseconds it took.
    with open(world.path("h2load.log")) as log:
        took = [int(line.split("\t")[2]) for line in log]
    if len(took) < 100:
        raise Failed(f"h2load made {len(took)} requests: {said.strip()[-300:]}")
    cuts = statistics.quantiles(took, n=100)
    # `-D` counts what is under way at the end as neither done nor failed.
    return {"answered": succeeded, "failed": failed, "p50_us": cuts[49], "p99_us": cuts[98]}


def duration(text):
    """wrk's `1.20ms` in microseconds."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * MICROSECONDS[unit]


def check(world, cell):
    """Asks once and looks at the answer: a subject that answers with an error page would be fast."""
    path = cell.path if not cell.body else "/1k"
    expected = {"1k": 1 << 10, "64k": 64 << 10, "1m": 1 << 20}[path.rpartition("/")[2]]
    got = fetch(world.ports[cell.listener], path, tls=cell.listener == "tls")
    head, _, body = got.partition(b"\r\n\r\n")
    if b" 200" not in head.split(b"\r\n")[0] or body.count(b"x") != expected:
        raise Failed(f"asked for {path}: {got[:300]!r}")


def fetch(port, path, tls):
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    if tls:
        connection = trusting().wrap_socket(connection)
    with connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        got = bytearray()
        while part := connection.recv(1 << 20):
            got += part
    return bytes(got)


@functools.cache
def trusting(*alpn):
    """TLS to the certificate made for the run, which nobody has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    return context
