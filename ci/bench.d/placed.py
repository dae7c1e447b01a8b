#!/usr/bin/env python3
"""Measures webhooks that place pods: the part of `ci/bench placed` that runs once they are built. Prints the table."""

import contextlib
import http.server
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from cluster import table

CERTS, *BINARIES = sys.argv[1:]
PODS = int(os.environ["PODS"])
# Pods of each workload.
EACH = 100
# Mounts the service account of a pod in a mount namespace of the process. `sh -c` gets the certificates, the binary and its options.
IN_A_POD = """
certs=$1 account=/var/run/secrets/kubernetes.io/serviceaccount; shift
mkdir -p /var/run/secrets && mount -t tmpfs none /var/run/secrets && mkdir -p $account
cp "$certs/ca.crt" $account/ca.crt && echo token >$account/token && echo default >$account/namespace
exec "$@"
"""


def pod(number, webhook):
    """One that was placed, as the API server has it."""
    workload, slot = divmod(number, EACH)
    name, uid = f"shop-frontend-{workload:03}-7d4b9c6f5", f"00000000-0000-4000-8000-{workload:012}"
    group = "default" if slot % 5 else "spot"
    marks = {"token": f"{number:016x}", "owner": uid, "slot": str(slot), "group": f"type={group}"}
    annotations = {f"placement.podshaper.dev/{key}": value for key, value in marks.items()}
    annotations["controller.kubernetes.io/pod-deletion-cost"] = str(-slot)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": uid, "controller": True}
    environment = [{"name": f"E{n}", "value": "x" * 20} for n in range(10)]
    return {
        "metadata": {
            "name": f"{name}-{slot:05}",
            "namespace": "shop",
            "uid": f"11111111-0000-4000-8000-{number:012}",
            "resourceVersion": str(1000 + number),
            "labels": {"app": "web", "podshaper.dev/placed": webhook},
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "n", "nodeSelector": {"type": group}, "containers": [{"name": "c", "image": "web:1", "env": environment}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def api_server(webhook, pods):
    """Lists the pods page by page, and nothing else; watches stay open."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, code, body):
            body = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            url = urllib.parse.urlparse(self.path)
            query = dict(urllib.parse.parse_qsl(url.query))
            if query.get("watch") in ("1", "true"):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                over.wait()
                return
            first = int(query.get("continue", 0))
            end = min(pods, first + int(query.get("limit", 500)))
            if url.path.endswith("/pods"):
                metadata = {"resourceVersion": "99999999", "continue": str(end) if end < pods else ""}
                self.answer(200, {"metadata": metadata, "items": [pod(number, webhook) for number in range(first, end)]})
            elif "limit" in query:
                self.answer(200, {"metadata": {"resourceVersion": "99999999"}, "items": []})
            else:
                self.answer(404, {"kind": "Status", "reason": "NotFound", "code": 404})

        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(403, {"kind": "Status", "reason": "Forbidden", "code": 403})

    over = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(f"{CERTS}/tls.crt", f"{CERTS}/tls.key")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, over


def resident_mib(process):
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
        return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) / 1024


def is_ready(address):
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        return urllib.request.urlopen(f"http://{address}/readyz", timeout=1).status == 200
    return False


def memory(binary, pods):
    """The most that a process has which lists so many pods, until it grows no more, in MiB."""
    server, over = api_server(os.path.basename(binary), pods)
    health = "127.0.0.1:16445"
    options = ["serve", "--webhook-bind-address=127.0.0.1:0", f"--health-probe-bind-address={health}", "--metrics-bind-address=0"]
    command = ["unshare", "--mount", "sh", "-euc", IN_A_POD, "sh", CERTS, binary, *options, f"--cert-dir={CERTS}"]
    place = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_address[1])}
    process = subprocess.Popen(command, env=os.environ | place, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not is_ready(health):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"ci/bench placed: {binary} doesn't become ready")
            time.sleep(0.1)
        most, since = 0, time.monotonic()
        while time.monotonic() - since < 10:
            now = resident_mib(process)
            if now > most:
                most, since = now, time.monotonic()
            time.sleep(0.1)
        return most
    finally:
        process.kill()
        process.wait()
        over.set()
        server.shutdown()


def main():
    figures = []
    for binary in BINARIES:
        name = os.path.basename(binary)
        print(f"  {name}", file=sys.stderr)
        figures += [
            (f"{name}: static binary, MB", os.path.getsize(binary) / 1e6, os.environ["SIZE"]),
            ("... resident memory without pods, MiB", memory(binary, 0), os.environ["MEMORY"]),
            (f"... with {PODS} placed pods, at most, MiB", memory(binary, PODS), os.environ["MEMORY"]),
        ]
    return table(figures)


sys.exit(main())
