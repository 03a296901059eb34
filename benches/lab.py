"""What the benchmarks measure: nginx as an upstream, nginx as a plain proxy, labgate with a session as a proxy and asked by one; all of it on 127.0.0.1.

`Lab` says under what the programs run (which CPU, which tool); `start` starts them and says what to ask each of them for.
"""

import dataclasses
import html
import http.cookiejar
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIST = ROOT / "target/dist/labgate"
PLAIN_COOKIE = "session=" + "x" * 692  # 700 bytes in all, as much as a session of labgate's


@dataclasses.dataclass
class Lab:
    binary: pathlib.Path
    folder: pathlib.Path
    proxy: list = dataclasses.field(default_factory=list)  # what nginx and labgate run under
    beside: list = dataclasses.field(default_factory=list)  # what everything else runs under
    public: bool = False  # also a public route, without a cookie
    checks: bool = False  # also forward-auth: a check alone, and nginx that asks labgate or somebody who always says yes
    only_nginx: bool = False
    one_process: bool = False  # nginx without a master, for tools that follow one process
    patience: int = 10  # seconds for a program to listen
    processes: list = dataclasses.field(default_factory=list)

    def run(self, under, *command, **more):
        log = open(self.folder / f"{len(self.processes)}.log", "wb")
        command = [*map(str, under), *map(str, command)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **more)
        process.log = pathlib.Path(log.name)
        self.processes.append(process)
        return process

    def end(self):
        for process in reversed(self.processes):
            end(process)


def install(needed):
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [package for command, package in needed.items() if not shutil.which(command)]
    if not missing:
        return
    sudo = [] if os.getuid() == 0 else ["sudo"]
    env = ["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"]
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        subprocess.run([*sudo, *env, "apt-get", "-q", *command], check=True, stdout=subprocess.DEVNULL)


def start(lab):
    """Starts upstream and proxies; returns the targets: name, url, headers, pid of the main process."""
    folder = lab.folder
    upstream_port, nginx_port = free_ports(2)
    served = folder / "served"
    served.mkdir()
    (served / "1k").write_bytes(b"x" * 1024)
    lab.run(lab.beside, "nginx", "-p", folder, "-e", "stderr", "-c", nginx_config(lab.folder, "upstream", f"""
        server {{ listen 127.0.0.1:{upstream_port} backlog=4096; root {served}; }}""", lab.one_process))
    nginx = lab.run(lab.proxy, "nginx", "-p", folder, "-e", "stderr", "-c", nginx_config(lab.folder, "proxy", f"""
        upstream app {{ server 127.0.0.1:{upstream_port}; keepalive 128; keepalive_requests 10000000; }}
        server {{
            listen 127.0.0.1:{nginx_port} backlog=4096;
            location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }}
        }}""", lab.one_process))
    wait_for(upstream_port, lab.processes, lab.patience)
    wait_for(nginx_port, lab.processes, lab.patience)
    targets = [("nginx", f"http://127.0.0.1:{nginx_port}/1k", {"Cookie": PLAIN_COOKIE}, nginx.pid)]
    if lab.only_nginx:
        return [*targets, ("nginx again", *targets[0][1:])]

    gitlab_port, port, admin_port, grpc_port = free_ports(4)
    public = f"http://127.0.0.1:{port}"
    lab.run(lab.beside, lab.binary, "dev-gitlab", f"--listen=127.0.0.1:{gitlab_port}", f"--external-url=http://127.0.0.1:{gitlab_port}",
        "--client-id=bench", "--client-secret=bench-secret-of-this-run", f"--redirect-uri={public}/oauth2/callback")
    wait_for(gitlab_port, lab.processes, lab.patience)
    key = subprocess.run([lab.binary, "keygen", "session"], check=True, capture_output=True, text=True).stdout.strip()
    asked = f'''trusted_proxies = ["127.0.0.1/32"]
        ext_authz = "127.0.0.1:{grpc_port}"''' if lab.checks else ""
    config = folder / "labgate.toml"
    config.write_text(f"""
        [server]
        listen = "127.0.0.1:{port}"
        admin = "127.0.0.1:{admin_port}"
        public_url = "{public}"
        {asked}
        [gitlab.bench]
        base_url = "http://127.0.0.1:{gitlab_port}"
        client_id = "bench"
        client_secret = "bench-secret-of-this-run"
        [session]
        keys = ["{key}"]
        recheck = "1h"          # GitLab is not what is measured
        [[route]]
        upstream = "http://127.0.0.1:{upstream_port}"
        allow = [{{ group = "acme", role = "developer" }}]
        [[route]]
        path = "/public"
        upstream = "http://127.0.0.1:{upstream_port}"
        allow = "public"
        [telemetry]
        log = "warn"            # nginx writes no access log either
    """)
    (served / "public").mkdir()
    (served / "public" / "1k").write_bytes(b"x" * 1024)
    labgate = lab.run(lab.proxy, lab.binary, "run", "--config", config, env={"PATH": os.environ["PATH"]})
    wait_for(port, lab.processes, lab.patience)
    cookie = sign_in(public, "alice")
    targets.append(("labgate", f"{public}/1k", {"Cookie": cookie}, labgate.pid))
    if lab.public:
        targets.append(("labgate, public", f"{public}/public/1k", {}, labgate.pid))
    if lab.checks:
        targets += checked(lab, port, upstream_port, labgate, cookie)
    for name, url, headers, _ in targets:
        expect(name, url, headers, 0 if name == CHECK else 1024)
    if lab.checks:
        wait_for(grpc_port, lab.processes, lab.patience)
        targets.append((GRPC, f"grpc://127.0.0.1:{grpc_port}", question(folder, port, cookie), labgate.pid))
        expect_allowed(*targets[-1][1:3])
    if status(f"{public}/1k") != 401:
        sys.exit("labgate lets strangers in: what would be measured is not authentication")
    return targets


CHECK = "labgate, check"
GRPC = "labgate, gRPC"


def question(folder, port, cookie):
    """A file with what Envoy sends over gRPC about a GET of /1k: envoy.service.auth.v3.CheckRequest, after the five bytes of gRPC."""

    def field(number, value):
        value = value.encode() if isinstance(value, str) else value
        return bytes([number << 3 | 2]) + varint(len(value)) + value

    def varint(number):
        digits = bytearray()
        while number > 127:
            digits.append(number & 127 | 128)
            number >>= 7
        return bytes([*digits, number])

    host = f"127.0.0.1:{port}"
    headers = {":method": "GET", ":path": "/1k", ":authority": host, ":scheme": "http", "cookie": cookie, "accept": "*/*", "user-agent": "labgate benches"}
    http_request = field(2, "GET") + b"".join(field(3, field(1, name) + field(2, value)) for name, value in headers.items())
    http_request += field(4, "/1k") + field(5, host) + field(6, "http") + field(10, "HTTP/1.1")
    source = field(1, field(1, field(2, "192.0.2.7")))
    message = field(1, field(1, source) + field(4, field(2, http_request)))
    path = folder / "question"
    path.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    return path


def expect_allowed(url, path):
    """Ends the run unless the answer to the question names alice."""
    command = ["curl", "--silent", "--http2-prior-knowledge", "--noproxy", "*", "--data-binary", f"@{path}", *grpc_headers(), grpc_url(url)]
    if b"alice" not in subprocess.run(command, check=True, capture_output=True, timeout=10).stdout:
        sys.exit("labgate does not let pass over gRPC")


def grpc_headers():
    return ["-H", "content-type: application/grpc", "-H", "te: trailers"]


def grpc_url(url):
    return url.replace("grpc://", "http://") + "/envoy.service.auth.v3.Authorization/Check"


def checked(lab, port, upstream_port, labgate, cookie):
    """A check alone, as Traefik asks it; nginx that asks labgate about each request; nginx that asks a server which always says yes."""
    asking, agreeing, yes = free_ports(3)

    def front(name, listen, asked, headers):
        return lab.run(lab.proxy, "nginx", "-p", lab.folder, "-e", "stderr", "-c", nginx_config(lab.folder, name, f"""
            upstream app {{ server 127.0.0.1:{upstream_port}; keepalive 128; keepalive_requests 10000000; }}
            upstream asked {{ server 127.0.0.1:{asked}; keepalive 128; keepalive_requests 10000000; }}
            proxy_http_version 1.1; proxy_set_header Connection "";
            server {{
                listen 127.0.0.1:{listen} backlog=4096;
                location / {{
                    auth_request /check; auth_request_set $user $upstream_http_x_forwarded_user;
                    proxy_set_header X-Forwarded-User $user; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_pass http://app;
                }}
                location = /check {{
                    internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header Connection ""; {headers}
                    proxy_pass http://asked/oauth2/auth/nginx;
                }}
            }}""", lab.one_process))

    server = lab.run(lab.proxy, "nginx", "-p", lab.folder, "-e", "stderr", "-c", nginx_config(lab.folder, "yes", f"""
        server {{ listen 127.0.0.1:{yes} backlog=4096; location / {{ add_header X-Forwarded-User alice; return 200 ""; }} }}""", lab.one_process))
    told = f"proxy_set_header X-Original-URL http://127.0.0.1:{port}$request_uri; proxy_set_header X-Original-Method $request_method;"
    ask, agree = front("asking", asking, port, told), front("agreeing", agreeing, yes, told)
    for listener in (asking, agreeing, yes):
        wait_for(listener, lab.processes, lab.patience)
    question = {"X-Forwarded-Method": "GET", "X-Forwarded-Proto": "http", "X-Forwarded-Host": f"127.0.0.1:{port}", "X-Forwarded-Uri": "/1k"}
    return [
        (CHECK, f"http://127.0.0.1:{port}/oauth2/auth/traefik", {"Cookie": cookie, **question}, labgate.pid),
        ("nginx + labgate", f"http://127.0.0.1:{asking}/1k", {"Cookie": cookie}, (ask.pid, labgate.pid)),
        ("nginx + yes", f"http://127.0.0.1:{agreeing}/1k", {"Cookie": PLAIN_COOKIE}, (agree.pid, server.pid)),
    ]


def nginx_config(folder, name, servers, one_process=False):
    path = folder / f"{name}.conf"
    for kind in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (folder / name / kind).mkdir(parents=True, exist_ok=True)
    temporary = folder / name
    path.write_text(f"""
        daemon off; worker_processes 1; {"master_process off;" if one_process else ""} pid {folder}/{name}.pid; error_log stderr warn;
        worker_rlimit_nofile 8192;
        {"user root;" if os.getuid() == 0 else ""}
        events {{ worker_connections 4096; }}
        http {{
            access_log off; sendfile on; tcp_nodelay on; keepalive_requests 10000000; keepalive_timeout 120s; open_file_cache max=16;
            client_body_temp_path {temporary}/body; proxy_temp_path {temporary}/proxy; fastcgi_temp_path {temporary}/fastcgi;
            uwsgi_temp_path {temporary}/uwsgi; scgi_temp_path {temporary}/scgi;
            {servers}
        }}""")
    return path


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port, processes, patience=10):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for process in processes:
            if process.poll() is not None:
                sys.exit(f"{' '.join(process.args)} ended:\n{process.log.read_text(errors='replace')}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


def end(process):
    """Ends a process that this script started, and its workers, which share its process group."""
    for sign, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


# --- a session, as a browser would get it --------------------------------------------------------------------------------------------


def sign_in(public, user, *handlers):
    """Signs `user` in at the development GitLab; returns the Cookie header for labgate. The handlers see all requests."""
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar), *handlers)
    browser.addheaders = [("Accept", "text/html"), ("User-Agent", "labgate benches")]
    url, data = f"{public}/1k", None
    for _ in range(12):
        with browser.open(url, data, timeout=10) as answer:
            here, page = answer.geturl(), answer.read().decode("utf-8", "replace")
        if here == f"{public}/1k":
            break
        url, data = follow(here, page, user)
    else:
        sys.exit(f"the sign-in goes round in circles; last page {here}")
    host = urllib.parse.urlsplit(public)
    cookies = [cookie for cookie in jar if "labgate" in cookie.name and cookie.path == "/"]
    if not cookies:
        sys.exit(f"no session cookie of {host.netloc} among {[cookie.name for cookie in jar]}")
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in cookies)


def follow(here, page, user):
    """What a person would do on this page: press the button with their name, agree, or go where its script goes."""
    for form in re.findall(r"<form\b.*?</form>", page, re.S):
        fields = dict(inputs(form))
        if 'name="user"' in form:  # it lists not more than some of the people
            fields["user"] = user
        elif fields.get("_method") == "delete" or "Authorize</button>" not in form:
            continue
        return urllib.parse.urljoin(here, html.unescape(attribute(form, "action"))), urllib.parse.urlencode(fields).encode()
    # GitLab answers 200 with a page whose script goes to the address in its one link.
    link = re.search(r'<a id="target" href="([^"]+)"', page)
    if not link:
        sys.exit(f"a page of the sign-in at {here} has no way on:\n{page[:2000]}")
    return urllib.parse.urljoin(here, html.unescape(link[1])), None


def inputs(form):
    for tag in re.findall(r"<input\b[^>]*>", form):
        name = attribute(tag, "name")
        if name and attribute(tag, "type") != "submit":
            yield html.unescape(name), html.unescape(attribute(tag, "value") or "")


def attribute(tag, name):
    found = re.search(rf'\b{name}="([^"]*)"', tag)
    return found and found[1]


def expect(name, url, headers, length):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        body = answer.read()
        if answer.status != 200 or len(body) != length or answer.geturl() != url:
            sys.exit(f"{name} answers {answer.status} with {len(body)} bytes at {answer.geturl()}")


def status(url):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def children(pid):
    found = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += [int(child), *children(int(child))]
    return found
