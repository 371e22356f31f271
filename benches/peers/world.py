"""What every subject meets: certificates, ports, the origin."""

import os
import re
import shutil
import subprocess
import tempfile

import processes
from processes import Failed, Process

SIZES = {"1k": 1 << 10, "64k": 64 << 10, "1m": 1 << 20}


def program(variable, name):
    """A program by environment variable, else from the search path."""
    found = os.environ.get(variable) or shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin")
    if not found or not shutil.which(found):
        raise Failed(f"{name} is missing: install it, or name it by {variable}=/path/to/{name}")
    return found


class World:
    """A folder for configurations and logs, and the ports of a run."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="evenkeel-peers-")
        # nginx's workers may run as somebody else.
        os.chmod(self.folder, 0o755)
        names = ("plain", "tls", "l4", "cache", "origin", "origin_h2")
        self.ports = dict(zip(names, processes.free_ports(len(names))))
        self._certificate()

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def _certificate(self):
        """Self-signed, with a P-256 key."""
        made = processes.run(
            "openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost",
            "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", self.path("key.pem"), "-out", self.path("cert.pem"),
        )  # fmt: skip
        if not os.path.exists(self.path("cert.pem")):
            raise Failed(f"openssl made no certificate: {made}")
        both = ""
        for name in ("cert.pem", "key.pem"):
            with open(self.path(name)) as file:
                both += file.read()
        self.write("both.pem", both)

    def origin(self, cores):
        """nginx with files: `/1k`, `/64k`, `/1m`; `/chunked/…` and `/small_chunks/…` (of 1 KiB) give the same in chunks;
        `/post` reads a body, then answers with 1 KiB. HTTP/1.1 on one port, HTTP/2 by prior knowledge on another."""
        nginx = program("ORIGIN_NGINX", "nginx")
        for name, size in SIZES.items():
            self.write_file(name, size)
        version = tuple(map(int, re.findall(r"\d+", nginx_version(nginx))[:3]))
        h2 = ("", "http2 on;") if version >= (1, 25, 1) else (" http2", "")
        locations = f"""
        root {self.folder}/files;
        # Nothing is included, but with `ssi` the length is not known, so it goes in chunks.
        location /chunked/ {{ alias {self.folder}/files/; ssi on; ssi_types *; }}
        location /small_chunks/ {{ alias {self.folder}/files/; ssi on; ssi_types *; output_buffers 1 1k; }}
        # `mirror` makes it read the body, which files refuse afterwards.
        location = /post {{ mirror /gone; error_page 405 =200 /1k; try_files /1k =404; }}
        location = /gone {{ internal; return 204; }}"""
        config = self.write(
            "origin.conf",
            f"""{nginx_main(self, "origin", 1)}
http {{
    {nginx_temporary(self, "origin")}
    access_log off;
    sendfile on;
    # Held back until full, the last segment of a chunked response would wait for an ACK.
    tcp_nopush off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_buffer_size 128k;
    open_file_cache max=100;
    open_file_cache_valid 600s;
    types {{}}
    default_type text/plain;
    server {{
        listen 127.0.0.1:{self.ports["origin"]} backlog=8192;{locations}
    }}
    server {{
        listen 127.0.0.1:{self.ports["origin_h2"]}{h2[0]} backlog=8192;
        {h2[1]}
        http2_max_concurrent_streams 1000;{locations}
    }}
}}
""",
        )
        origin = Process([nginx, "-e", self.path("origin.err"), "-c", config], cores, self.path("origin.log"))
        try:
            origin.wait_for(self.ports["origin"])
        except Failed:
            origin.stop()
            raise
        return origin

    def write_file(self, name, size):
        os.makedirs(self.path("files"), exist_ok=True)
        with open(self.path(f"files/{name}"), "w") as file:
            file.write("x" * size)


def nginx_version(nginx):
    said = subprocess.run([nginx, "-v"], capture_output=True, text=True).stderr
    return said.strip().rpartition("/")[2]


def nginx_main(world, name, workers):
    """The part of an nginx configuration that is the same for the origin and the subject."""
    user = "user root;\n" if os.geteuid() == 0 else ""
    return f"""{user}worker_processes {workers};
daemon off;
pid {world.path(name)}.pid;
worker_rlimit_nofile 65535;
events {{
    worker_connections 32768;
    multi_accept on;
}}"""


def nginx_temporary(world, name):
    """Folders that need not be writable where nginx was installed."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "\n    ".join(f"{kind}_temp_path {world.path(name)}-{kind};" for kind in kinds)
