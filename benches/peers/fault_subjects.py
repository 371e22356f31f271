"""The load balancers compared, each with what an operator who wants to survive faults would write."""

import signal

import subjects
from world import nginx_main, nginx_temporary


# Against everything below: another endpoint within a second, out of the way when its health check fails.
EVENKEEL_FAULTS = """balance = "least_connections"
[upstreams.origin.retries]
max = 2
on = ["connect_failure", "reset", "timeout", "bad_response", "5xx"]
per_try_timeout = "1s"
[upstreams.origin.health]
http = "/healthz"
interval = "1s"
timeout = "500ms"
fall = 2
rise = 1
"""
NGINX_FAULTS = """proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;
    proxy_next_upstream_tries 3;
    proxy_connect_timeout 1s;
    proxy_read_timeout 1s;"""
HAPROXY_FAULTS = (
    "check inter 1s fall 2 rise 1 observe layer7",
    """balance leastconn
    option httpchk GET /healthz
    timeout server 1s
    retry-on all-retryable-errors
    retries 2
    option redispatch 1""",
)


class Evenkeel(subjects.Evenkeel):
    reload, faults = signal.SIGHUP, EVENKEEL_FAULTS

    def command(self, world, endpoints, more=""):
        listed = ", ".join(f'"127.0.0.1:{port}"' for port in endpoints)
        config = f"""[server]
workers = 1
[log]
level = "warn"
[admin]
bind = "127.0.0.1:{world.ports["tls"]}"
[listeners.web]
bind = "127.0.0.1:{world.ports["plain"]}"
[[routes]]
upstream = "origin"
[upstreams.origin]
endpoints = [{listed}]
{more}"""
        return [self.program, "run", "--config", world.write("evenkeel.toml", config)]


class Nginx(subjects.Nginx):
    reload, faults = signal.SIGHUP, NGINX_FAULTS

    def command(self, world, endpoints, more=""):
        balance = "least_conn;" if more else ""
        servers = "\n        ".join(f"server 127.0.0.1:{port};" for port in endpoints)
        config = f"""{nginx_main(world, "nginx", 1)}
http {{
    {nginx_temporary(world, "nginx")}
    access_log off;
    upstream origin {{
        {balance}
        {servers}
        keepalive 256;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    {more}
    server {{
        listen 127.0.0.1:{world.ports["plain"]} backlog=8192;
        location / {{ proxy_pass http://origin; }}
    }}
}}
"""
        return [self.program, "-e", world.path("nginx.err"), "-c", world.write("nginx.conf", config)]


class Haproxy(subjects.Haproxy):
    reload, faults = signal.SIGUSR2, HAPROXY_FAULTS

    def command(self, world, endpoints, more=""):
        server, backend = more if more else ("", "")
        servers = "\n    ".join(f"server s{port} 127.0.0.1:{port} {server}" for port in endpoints)
        config = f"""global
    nbthread 1
defaults
    mode http
    timeout connect 3s
    timeout client 60s
    timeout server 60s
    option redispatch 1
    retries 3
frontend plain
    bind 127.0.0.1:{world.ports["plain"]} backlog 8192
    default_backend origin
backend origin
    {backend}
    {servers}
"""
        return [self.program, "-W", "-db", "-f", world.write("haproxy.cfg", config)]


ALL = {subject.name: subject for subject in (Evenkeel, Nginx, Haproxy)}
