#!/usr/bin/env python3
"""Measures arch: the part of `ci/bench arch` that runs once it is built. Prints the table."""

import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request

from cluster import post, table

BINARY, CERTS = sys.argv[1:]
IMAGES, RATE, SECONDS = (int(os.environ[name]) for name in ("IMAGES", "RATE", "SECONDS_EACH"))
DELAY, PATIENCE, ROUNDS = 0.02, 20, 3
# Pods of the measurement of CPU time: each of the bodies has other images.
PODS, BODIES = 100_000, 20
# For an image; and one for a registry, which shows whether it wants a token.
REQUESTS = (IMAGES + 1) / IMAGES
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha256:{n:064}", "size": 1, "platform": {"os": "linux", "architecture": name}}
            for n, name in enumerate(["amd64", "arm64"])
        ],
    }
).encode()


class Registry(threading.Thread):
    """Takes its time, counts, and can stop answering."""

    def __init__(self):
        super().__init__(daemon=True)
        self.asked, self.alive, self.listens = 0, True, threading.Event()
        self.start()
        self.listens.wait()

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.host = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        self.listens.set()
        await server.serve_forever()

    async def answer(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                await asyncio.sleep(DELAY if self.alive else 3600)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(INDEX), INDEX))
                await writer.drain()


class Server:
    """The webhook, on a core of its own."""

    def __init__(self, folder, registry, binary=BINARY):
        config = os.path.join(folder, "config.yaml")
        with open(config, "w", encoding="utf-8") as file:
            json.dump({"registries": {"plainHttp": [registry.host]}, "architectures": {"amd64": {}, "s390x": {}}}, file)
        command = [binary, "serve", "--webhook-bind-address=127.0.0.1:0", "--health-probe-bind-address=0", "--metrics-bind-address=0"]
        command += [f"--cert-dir={CERTS}", f"--config={config}", "--log-format=json"]
        os.sched_setaffinity(0, {0})
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        os.sched_setaffinity(0, {1})
        address = next(event["address"] for event in map(json.loads, self.process.stderr) if event["message"] == "serving")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.url = f"https://{address}/mutate-v1-pod?timeout=5s"

    def ask(self, body):
        trust = ssl.create_default_context(cafile=f"{CERTS}/ca.crt")
        request = urllib.request.Request(self.url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=trust, timeout=PATIENCE) as answer:
            return json.load(answer)["response"]

    def latencies(self, folder, body, connections=8):
        """p50 and p99 in ms, at the rate wanted."""
        options = ["--cacert", f"{CERTS}/ca.crt", "-c", str(connections), "-q", str(RATE), "-z", f"{SECONDS}s", "-w"]
        return post(folder, self.url, options, body, "200")

    def cpu_microseconds(self, folder, bodies):
        """CPU time of a review, without those of the first pass."""
        ticks = os.sysconf("SC_CLK_TCK")

        def used():
            with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
                return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / ticks

        def send(count):
            for body in bodies:
                post(folder, self.url, ["--cacert", f"{CERTS}/ca.crt", "-c", "8", "-n", str(count)], body, "200")

        send(100)
        begun = used()
        send(PODS // len(bodies))
        return (used() - begun) / PODS * 1e6

    def most_mib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) / 1024

    def end(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def review(registry, owner=None, first=0):
    names = [f"{registry.host}/team/app{n}:1" for n in range(first, first + IMAGES)]
    containers = [{"name": f"c{n}", "image": name, "imagePullPolicy": "IfNotPresent"} for n, name in enumerate(names)]
    owners = [{"apiVersion": "apps/v1", "kind": owner, "name": "web", "uid": "u", "controller": True}] if owner else []
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-", "ownerReferences": owners}, "spec": {"containers": containers}}
    kind, resource = {"group": "", "version": "v1", "kind": "Pod"}, {"group": "", "version": "v1", "resource": "pods"}
    request = {"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": kind, "resource": resource, "namespace": "default", "operation": "CREATE", "object": pod}
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def decided(server, body, when):
    answer = server.ask(body)
    if "patch" not in answer or answer.get("warnings"):
        sys.exit(f"ci/bench arch: {when}, a pod isn't decided about: {answer}")


def measure(folder):
    """One process from its start on."""
    registry = Registry()
    pod, other = review(registry), review(registry, "DaemonSet")
    server = Server(folder, registry)
    try:
        found = {"cold": server.latencies(folder, pod, 64), "requests": registry.asked / IMAGES}
        decided(server, pod, "cold")
        found |= {"other": server.latencies(folder, other), "warm": server.latencies(folder, pod)}
        registry.alive = False
        found["dead"] = server.latencies(folder, pod)
        decided(server, pod, "without the registry")
        return found | {"memory": server.most_mib(), "again": registry.asked / IMAGES}
    finally:
        server.end()


def cpu(folder, binary):
    """CPU time of a review in microseconds: of pods that are decided about, and of pods that are left alone."""
    registry = Registry()
    server = Server(folder, registry, binary)
    try:
        owners = (None, "DaemonSet")
        return [server.cpu_microseconds(folder, [review(registry, owner, n * IMAGES) for n in range(BODIES)]) for owner in owners]
    finally:
        server.end()


def main():
    rounds, times = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            print(f"  round {number + 1} of {ROUNDS}", file=sys.stderr)
            rounds.append(measure(folder))
        binaries = {"": BINARY} | ({", before": os.environ["BEFORE"]} if os.environ.get("BEFORE") else {})
        # In turn, so that both have the same machine.
        used = {note: [] for note in binaries}
        for number in range(ROUNDS):
            for note, binary in binaries.items():
                print(f"  {PODS} pods of {BODIES * IMAGES} images{note}, round {number + 1} of {ROUNDS}", file=sys.stderr)
                used[note].append(cpu(folder, binary))
        for note, found in used.items():
            for what, values in zip((f"CPU time of a review, {PODS:,} pods of the same {BODIES * IMAGES:,} images", "... of pods that are left alone"), zip(*found)):
                spread = f"{min(values):.1f} to {max(values):.1f}"
                times.append((f"{what}{note}, µs ({spread})", statistics.median(values), None))
    median = lambda figure: statistics.median(map(figure, rounds))
    added = os.environ["ADDED"]
    what = f"{RATE} pods a second of {IMAGES} images"
    return table(
        [
            ("requests for an image, cold", max(r["requests"] for r in rounds), REQUESTS),
            ("... in all", max(r["again"] for r in rounds), REQUESTS),
            (f"p50 of the answer to {what}, cold, ms", median(lambda r: r["cold"][0]), None),
            ("... p99", median(lambda r: r["cold"][1]), None),
            ("p50 of the answer to as many that are left alone, ms", median(lambda r: r["other"][0]), None),
            ("... p99", median(lambda r: r["other"][1]), None),
            ("warm: p50 added to that, ms", median(lambda r: r["warm"][0] - r["other"][0]), None),
            ("... p99", median(lambda r: r["warm"][1] - r["other"][1]), added),
            ("the registry is dead: p99 added, ms", median(lambda r: r["dead"][1] - r["other"][1]), added),
            ("resident memory at most, MiB", max(r["memory"] for r in rounds), os.environ["MEMORY"]),
            *times,
        ]
    )


sys.exit(main())
