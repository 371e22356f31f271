"""The cells of the table: what is asked for, over what, by which load generator."""

from dataclasses import dataclass, field

COOKIE = "; ".join(f"name{i:02}={'v' * 120}" for i in range(32))[:4096]
FIELDS = [f"x-field-{i:02}: the value of the field number {i:02}" for i in range(26)]


@dataclass
class Cell:
    name: str
    what: str
    listener: str = "plain"
    path: str = "/1k"
    connections: int = 64
    # Streams at once on a connection: HTTP/2, by h2load. None: HTTP/1.1, by wrk.
    streams: int | None = None
    headers: list = field(default_factory=list)
    # Bytes of a POST's body, and whether it goes in chunks.
    body: int = 0
    chunked: bool = False
    # Which configuration of the subjects, and how many workers.
    variant: str = "base"
    workers: int = 1

    def command(self, world, seconds):
        scheme = "https" if self.listener == "tls" else "http"
        url = f"{scheme}://127.0.0.1:{world.ports[self.listener]}{self.path}"
        fields = [part for header in self.headers for part in ("-H", header)]
        if self.streams:
            body = ["-d", world.write("body", "x" * self.body)] if self.body else []
            log = world.path("h2load.log")
            return ["h2load", "-t1", f"-c{self.connections}", f"-m{self.streams}", f"-D{seconds}", f"--log-file={log}",
                    *body, *fields, url]  # fmt: skip
        script = ["-s", world.write("post.lua", self._script())] if self.body else []
        return ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}", "--latency", *script, *fields, url]

    def _script(self):
        """A wrk script that sends the same POST again and again."""
        if not self.chunked:
            return f'wrk.method = "POST"\nwrk.body = string.rep("x", {self.body})\n'
        # wrk always adds a length, so this request is written by hand.
        return f"""
local head = "POST {self.path} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
local parts, left = {{ head }}, {self.body}
while left > 0 do
    local size = math.min(left, 16384)
    table.insert(parts, string.format("%x\\r\\n%s\\r\\n", size, string.rep("x", size)))
    left = left - size
end
table.insert(parts, "0\\r\\n\\r\\n")
local request_text = table.concat(parts)
function request() return request_text end
"""


CLOSE = ["Connection: close"]
H2 = {"listener": "tls", "connections": 16, "streams": 16}

ALL = {
    cell.name: cell
    for cell in (
        Cell("h1_1k", "HTTP/1.1, 1 KiB"),
        Cell("h1_1k_c1000", "HTTP/1.1, 1 KiB, 1000 connections", connections=1000),
        Cell("h1_close", "HTTP/1.1, 1 KiB, a connection each", headers=CLOSE),
        Cell("h1_64k", "HTTP/1.1, 64 KiB", path="/64k"),
        Cell("h1_1m", "HTTP/1.1, 1 MiB", path="/1m", connections=16),
        Cell("tls_1k", "TLS, HTTP/1.1, 1 KiB", listener="tls"),
        Cell("tls_64k", "TLS, HTTP/1.1, 64 KiB", listener="tls", path="/64k"),
        Cell("tls_new", "TLS, 1 KiB, a full handshake each", listener="tls", connections=32, headers=CLOSE),
        Cell("h2_1k", "HTTP/2 over TLS, 1 KiB", **H2),
        Cell("h2_64k", "HTTP/2 over TLS, 64 KiB", path="/64k", **H2),
        Cell("l4_1k", "Layer 4, 1 KiB", listener="l4"),
        Cell("l4_1m", "Layer 4, 1 MiB", listener="l4", path="/1m", connections=16),
        Cell("l4_close", "Layer 4, 1 KiB, a connection each", listener="l4", headers=CLOSE),
        # Shapes of real traffic, in which a proxy may fall off a cliff.
        Cell("h1_fields", "HTTP/1.1, 1 KiB, 30 request fields", headers=[*FIELDS, "Accept: */*", "User-Agent: wrk"]),
        Cell("h1_cookie", "HTTP/1.1, 1 KiB, cookie of 4 KiB", headers=[f"Cookie: {COOKIE}"]),
        Cell("h1_post_1k", "HTTP/1.1, POST of 1 KiB", path="/post", body=1 << 10),
        Cell("h1_post_64k", "HTTP/1.1, POST of 64 KiB", path="/post", body=64 << 10),
        Cell("h1_post_1k_chunked", "HTTP/1.1, POST of 1 KiB in chunks", path="/post", body=1 << 10, chunked=True),
        Cell("h1_post_64k_chunked", "HTTP/1.1, POST of 64 KiB in chunks", path="/post", body=64 << 10, chunked=True),
        Cell("h1_1k_chunked", "HTTP/1.1, 1 KiB in chunks", path="/chunked/1k"),
        Cell("h1_64k_chunked", "HTTP/1.1, 64 KiB in chunks", path="/chunked/64k"),
        Cell("h1_64k_small_chunks", "HTTP/1.1, 64 KiB in chunks of 1 KiB", path="/small_chunks/64k"),
        Cell("h2_fields", "HTTP/2 over TLS, 1 KiB, 30 request fields", headers=FIELDS, **H2),
        Cell("h2_cookie", "HTTP/2 over TLS, 1 KiB, cookie of 4 KiB", headers=[f"Cookie: {COOKIE}"], **H2),
        Cell("h2_post_1k", "HTTP/2 over TLS, POST of 1 KiB", path="/post", body=1 << 10, **H2),
        Cell("h2_post_64k", "HTTP/2 over TLS, POST of 64 KiB", path="/post", body=64 << 10, **H2),
        Cell("h1_h2_1k", "HTTP/1.1 to HTTP/2, 1 KiB", variant="h2"),
        Cell("h2_h2_1k", "HTTP/2 to HTTP/2, 1 KiB", variant="h2", **H2),
        Cell("h2_h2_64k", "HTTP/2 to HTTP/2, 64 KiB", path="/64k", variant="h2", **H2),
        Cell("h2_h2_post_64k", "HTTP/2 to HTTP/2, POST of 64 KiB", path="/post", body=64 << 10, variant="h2", **H2),
        Cell("log_h1_1k", "HTTP/1.1, 1 KiB, access log", variant="log"),
        Cell("log_h2_1k", "HTTP/2 over TLS, 1 KiB, access log", variant="log", **H2),
        Cell("two_h1_1k", "HTTP/1.1, 1 KiB, two workers", workers=2),
        Cell("two_h1_close", "HTTP/1.1, 1 KiB, a connection each, two workers", headers=CLOSE, workers=2),
        Cell("two_h2_1k", "HTTP/2 over TLS, 1 KiB, two workers", workers=2, **H2),
    )
}

# The comparison itself, and the shapes beside it.
PEERS = list(ALL)[:13]
SHAPES = list(ALL)[13:]
