"""The load balancers compared, each with a configuration an operator would write, and no more than the work needs.

Every one gets the same listeners (plain HTTP, TLS with HTTP/2, Layer 4), one origin, connections to it kept open,
forwarding fields, the same number of workers. Variants: `log` writes an access log, `h2` speaks HTTP/2 to the origin.
"""

import json
import os
import re

from processes import Failed, run
from world import nginx_main, nginx_temporary, nginx_version, program

HERE = os.path.dirname(os.path.abspath(__file__))


class Evenkeel:
    name = "evenkeel"

    def __init__(self):
        built = os.path.join(HERE, "../../target/release/evenkeel")
        self.program = os.environ.get("EVENKEEL") or os.path.normpath(built)
        if not os.access(self.program, os.X_OK):
            raise Failed("evenkeel is missing: `cargo build --release --locked`, or EVENKEEL=/path/to/evenkeel")

    def version(self):
        return run(self.program, "--version").split()[-1]

    def command(self, world, workers, variant):
        with open(os.path.join(HERE, "evenkeel.toml")) as file:
            text = file.read()
        if variant == "log":
            text = f'{text}\n[access_log]\npath = "{world.path("evenkeel.access")}"\n'
        elif variant == "h2":
            upstream = "[upstreams.origin]\n"
            assert text.count(upstream) == 1
            text = text.replace(upstream, f'{upstream}protocol = "h2"\n')
        values = {
            "PLAIN": world.ports["plain"],
            "TLS": world.ports["tls"],
            "L4": world.ports["l4"],
            "CACHE": world.ports["cache"],
            "BACK": world.ports["origin_h2" if variant == "h2" else "origin"],
            "T": world.folder,
            "WORKERS": workers,
        }
        for place, value in values.items():
            text = text.replace("{{%s}}" % place, str(value))
        return [self.program, "run", "--config", world.write("evenkeel.toml", text)]


class Nginx:
    name = "nginx"

    def __init__(self):
        self.program = program("NGINX", "nginx")

    def version(self):
        return nginx_version(self.program)

    def command(self, world, workers, variant):
        ports = world.ports
        log = f"access_log {world.path('nginx.access')} combined;" if variant == "log" else "access_log off;"
        h2 = variant == "h2"
        old = tuple(int(part) for part in self.version().split()[0].split(".")[:2]) < (1, 26)
        tls = (" http2", "") if old else ("", "http2 on;")
        module, stream = self.stream(ports)
        config = f"""{module}{nginx_main(world, "nginx", workers)}
http {{
    {nginx_temporary(world, "nginx")}
    {log}
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    # Otherwise bodies and responses of 64 KiB go through files.
    client_body_buffer_size 128k;
    proxy_buffers 16 16k;
    upstream origin {{
        server 127.0.0.1:{ports["origin_h2" if h2 else "origin"]};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    proxy_http_version {"2" if h2 else "1.1"};
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    server {{
        listen 127.0.0.1:{ports["plain"]} backlog=8192{" reuseport" if workers > 1 else ""};
        location / {{ proxy_pass http://origin; }}
    }}
    server {{
        listen 127.0.0.1:{ports["tls"]} ssl{tls[0]} backlog=8192{" reuseport" if workers > 1 else ""};
        {tls[1]}
        ssl_certificate {world.path("cert.pem")};
        ssl_certificate_key {world.path("key.pem")};
        location / {{ proxy_pass http://origin; }}
    }}
}}
{stream}
"""
        return [self.program, "-e", world.path("nginx.err"), "-c", world.write("nginx.conf", config)]

    def stream(self, ports):
        """Layer 4, where this nginx was built with it: built in, or a module to be loaded. Without it, it does not
        listen there."""
        built = run(self.program, "-V")
        loaded = ""
        if "--with-stream=dynamic" in built:
            folder = re.search(r"--modules-path=(\S+)", built)
            file = f"{folder[1]}/ngx_stream_module.so" if folder else ""
            if not os.path.exists(file):
                return "", ""
            loaded = f"load_module {file};\n"
        elif "--with-stream" not in built:
            return "", ""
        return loaded, f"""stream {{
    upstream origin {{ server 127.0.0.1:{ports["origin"]}; }}
    server {{
        listen 127.0.0.1:{ports["l4"]} backlog=8192;
        proxy_pass origin;
    }}
}}"""


class Haproxy:
    name = "haproxy"

    def __init__(self):
        self.program = program("HAPROXY", "haproxy")

    def version(self):
        return run(self.program, "-v").split()[2]

    def command(self, world, workers, variant):
        ports = world.ports
        log = "log stdout format raw local0\n    option httplog" if variant == "log" else ""
        origin = f"{ports['origin_h2']} proto h2" if variant == "h2" else ports["origin"]
        config = f"""global
    nbthread {workers}
defaults
    mode http
    {log}
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    option forwardfor
    http-reuse always
frontend plain
    bind 127.0.0.1:{ports["plain"]} backlog 8192
    http-request set-header X-Forwarded-Proto http
    default_backend origin
frontend tls
    bind 127.0.0.1:{ports["tls"]} backlog 8192 ssl crt {world.path("both.pem")} alpn h2,http/1.1
    http-request set-header X-Forwarded-Proto https
    default_backend origin
backend origin
    server one 127.0.0.1:{origin}
defaults
    mode tcp
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    option splice-auto
listen l4
    bind 127.0.0.1:{ports["l4"]} backlog 8192
    server one 127.0.0.1:{ports["origin"]}
"""
        return [self.program, "-db", "-f", world.write("haproxy.cfg", config)]


class Envoy:
    name = "envoy"
    PROTOCOLS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    FILTERS = "type.googleapis.com/envoy.extensions.filters"

    def __init__(self):
        self.program = program("ENVOY", "envoy")

    def version(self):
        return run(self.program, "--version").split("version:")[-1].split("/")[1]

    def command(self, world, workers, variant):
        ports = world.ports
        manager = {
            "@type": f"{self.FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "use_remote_address": True,
            "generate_request_id": False,
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}],
                    }
                ]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{self.FILTERS}.http.router.v3.Router", "suppress_envoy_headers": True},
                }
            ],
        }
        if variant == "log":
            kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
            manager["access_log"] = [
                {
                    "name": "envoy.access_loggers.file",
                    "typed_config": {"@type": kind, "path": world.path("envoy.access")},
                }
            ]
        http = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        tcp = {
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": f"{self.FILTERS}.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "l4",
                "cluster": "l4",
            },
        }
        tls = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [
                        {
                            "certificate_chain": {"filename": world.path("cert.pem")},
                            "private_key": {"filename": world.path("key.pem")},
                        }
                    ],
                },
            },
        }

        def listener(port, chain):
            return {"name": port, "address": address(ports[port]), "filter_chains": [chain]}

        def cluster(name, port, **more):
            most = 100_000
            return {
                "name": name,
                "connect_timeout": "5s",
                "circuit_breakers": {
                    "thresholds": [{"max_connections": most, "max_requests": most, "max_pending_requests": most}]
                },
                "load_assignment": {
                    "cluster_name": name,
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
                },
                **more,
            }

        more = {}
        if variant == "h2":
            options = {"@type": self.PROTOCOLS, "explicit_http_config": {"http2_protocol_options": {}}}
            more["typed_extension_protocol_options"] = {self.PROTOCOLS.partition("/")[2]: options}
        config = {
            "static_resources": {
                "listeners": [
                    listener("plain", {"filters": [http]}),
                    listener("tls", {"filters": [http], "transport_socket": tls}),
                    listener("l4", {"filters": [tcp]}),
                ],
                "clusters": [
                    cluster("origin", ports["origin_h2" if variant == "h2" else "origin"], **more),
                    cluster("l4", ports["origin"]),
                ],
            }
        }
        path = world.write("envoy.json", json.dumps(config, indent=1))
        quiet = ["--log-level", "error", "--disable-hot-restart"]
        return [self.program, "--concurrency", str(workers), *quiet, "-c", path]


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


ALL = {subject.name: subject for subject in (Evenkeel, Nginx, Haproxy, Envoy)}
