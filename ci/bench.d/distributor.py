#!/usr/bin/env python3
"""Measures the distributor of the release `bench`: the part of `ci/bench distributor` that runs inside the cluster."""

import concurrent.futures
import http.client
import json
import math
import os
import re
import ssl
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse

from cluster import credentials, get, kubectl, post, resident_mib, table

ROUNDS = 3
REPLICAS = 3
# Seconds between two writes of a ledger.
PAUSE = 0.02
# Pods of each workload of the large cluster.
EACH = 100
BURST, PODS = int(os.environ["BURST"]), int(os.environ["PODS"])
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "podshaper/pause:1"}]}}


def progress(text):
    print(f"  {text}", file=sys.stderr)


def wait(what, condition, patience=300):
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > patience:
            sys.exit(f"not within {patience} s: {what}")
        time.sleep(0.2)


def count(namespace):
    return len(kubectl("get", "pods", "-n", namespace, "-o", "name").splitlines())


def distributor(namespace, name):
    groups = [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}]
    return {
        "apiVersion": "versprei.versprei.io/v1beta1",
        "kind": "PodDistributor",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"distribution": groups, "target": {"name": name}},
    }


def deployment(namespace, name, replicas, **more):
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE, **more}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def apply(*objects):
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def ledger_writes():
    """Those that lost, too, as the API server counts them."""
    line = re.compile(r'apiserver_request_total\{[^}]*resource="placements"[^}]*subresource=""[^}]*verb="(?:PATCH|POST)"[^}]*\} (\S+)')
    return int(sum(float(found[1]) for found in line.finditer(kubectl("get", "--raw", "/metrics"))))


def deployed():
    """A Deployment from nothing to BURST pods: seconds, writes, how many there may be, and pods off their shares."""
    template = json.loads(json.dumps(TEMPLATE))
    # Ready after two to four seconds, like pods that a kubelet starts.
    starts = {"pod-ready.stage.kwok.x-k8s.io/delay": "2s", "pod-ready.stage.kwok.x-k8s.io/jitter-delay": "4s"}
    template["metadata"]["annotations"] = starts
    template["spec"]["tolerations"] = [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]
    apply(distributor("deployed", "web"), deployment("deployed", "web", 0, template=template))
    wait("the distributor is known", lambda: "conditions" in get("poddistributor", "web", "-n", "deployed").get("status", {}))
    before, begun = ledger_writes(), time.monotonic()
    kubectl("scale", "deployment/web", "-n", "deployed", f"--replicas={BURST}")
    # By a watch: repeated lists would add to the measured load.
    kubectl("wait", "deployment/web", "-n", "deployed", f"--for=jsonpath={{.status.replicas}}={BURST}", "--timeout=300s")
    took = time.monotonic() - begun
    writes = ledger_writes() - before
    pods = get("pods", "-n", "deployed")["items"]
    groups = [pod["spec"].get("nodeSelector", {}).get("type") for pod in pods]
    estimated = sum("placement.podshaper.dev/estimated" in pod["metadata"].get("annotations", {}) for pod in pods)
    progress(f"{groups.count('default')}/{groups.count('spot')}, {groups.count(None)} without a place, {estimated} estimated")
    off = abs(groups.count("spot") - BURST // 5)
    kubectl("delete", "deployment/web", "-n", "deployed", "--cascade=foreground")
    # A ReplicaSet's batches are 1, 2, 4, ... pods, each after the one before.
    batches = math.ceil(math.log2(BURST + 1))
    return took, writes, REPLICAS * (took / PAUSE + 2 * batches), off


def owned(namespace, name, uid, **metadata):
    """A pod of a Deployment that itself creates none; nothing runs it."""
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid, "controller": True}
    metadata = {"generateName": f"{name}-", "namespace": namespace, "ownerReferences": [owner], "labels": {"app": "web"}, **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**TEMPLATE["spec"], "schedulerName": "none", "terminationGracePeriodSeconds": 0}}


def latencies(folder, access):
    """p50 and p99 in ms by namespace, in each round, of a burst and of pods that come one by one; and pods that got no place."""
    server, ca, certificate, key = access
    identity = ["--cacert", ca, "--cert", certificate, "--key", key]
    bodies = {}
    for namespace in ("plain", "echo", "spread"):
        apply(deployment(namespace, "web", BURST, paused=True), *([distributor(namespace, "web")] if namespace == "spread" else []))
        uid = get("deployment", "web", "-n", namespace)["metadata"]["uid"]
        bodies[namespace] = owned(namespace, "web", uid)
    rounds, unplaced = [], 0
    for number in range(ROUNDS):
        progress(f"latency: round {number + 1} of {ROUNDS}")
        figures = {}
        for namespace in list(bodies)[number % 3 :] + list(bodies)[: number % 3]:
            for load, options in (("at once", ["-c", "100", "-n", str(BURST)]), ("one by one", ["-c", "20", "-n", "250", "-q", "25"])):
                figures[namespace, load] = post(folder, f"{server}/api/v1/namespaces/{namespace}/pods", [*identity, *options], bodies[namespace], "201")
                placed = len([p for p in get("pods", "-n", namespace)["items"] if "placement.podshaper.dev/slot" in p["metadata"].get("annotations", {})])
                unplaced += count(namespace) - placed if namespace == "spread" else 0
                kubectl("delete", "pods", "--all", "-n", namespace, "--wait=false", "--force", "--grace-period=0")
                wait("no pods", lambda namespace=namespace: count(namespace) == 0)
        rounds.append(figures)
    return rounds, unplaced


def fill(access):
    """PODS placed pods of as many workloads as there are EACH of, as they are after admission."""
    names = [f"shop-frontend-{number:03}" for number in range(PODS // EACH)]
    for first in range(0, len(names), 100):
        some = names[first : first + 100]
        apply(*(deployment("many", name, EACH, paused=True) for name in some), *(distributor("many", name) for name in some))
    uids = {item["metadata"]["name"]: item["metadata"]["uid"] for item in get("deployments", "-n", "many")["items"]}
    server, ca, certificate, key = access
    tls = ssl.create_default_context(cafile=ca)
    tls.load_cert_chain(certificate, key)
    address, local = urllib.parse.urlsplit(server), threading.local()

    def create(number):
        name, slot = names[number // EACH], number % EACH
        group = "spot" if slot % 5 == 2 else "default"
        marks = {"token": f"{number + 1:016x}", "owner": uids[name], "slot": str(slot), "group": f"type={group}"}
        annotations = {f"placement.podshaper.dev/{mark}": value for mark, value in marks.items()}
        annotations["controller.kubernetes.io/pod-deletion-cost"] = str(-slot)
        labels = {"app": "web", "podshaper.dev/placed": "distributor"}
        pod = owned("many", name, uids[name], labels=labels, annotations=annotations)
        pod["spec"]["nodeSelector"] = {"type": group}
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPSConnection(address.hostname, address.port, context=tls, timeout=60)
        local.connection.request("POST", "/api/v1/namespaces/many/pods", json.dumps(pod), {"Content-Type": "application/json"})
        answer = local.connection.getresponse()
        body = answer.read()
        if answer.status != 201:
            raise RuntimeError(body)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done, _ in enumerate(pool.map(create, range(len(names) * EACH), chunksize=1), 1):
            if done % 10000 == 0:
                progress(f"memory: {done} pods of {PODS}")


def counted():
    wanted = f"{EACH * 4 // 5}/{EACH // 5}"
    return all(item.get("status", {}).get("pods") == wanted for item in get("poddistributors", "-n", "many")["items"])


def ledger_alone():
    """Times in ms as the tests printed them: of 500 places at once, by the number of replicas, and of one slot in a large workload."""
    line = re.compile(r"^(\d replicas in real time|a slot beside 50000 pods): ([\d.]+)(s|ms|µs|ns)", re.M)
    with open(os.environ["LEDGER"], encoding="utf-8") as file:
        found = line.findall(file.read())
    return {what.split()[0]: float(took) * {"s": 1e3, "ms": 1, "µs": 1e-3, "ns": 1e-6}[unit] for what, took, unit in found}


def main():
    alone = ledger_alone()
    took, writes, most, off = deployed()
    with tempfile.TemporaryDirectory() as folder:
        access = credentials(folder)
        rounds, unplaced = latencies(folder, access)
        fill(access)
    wait("every PodDistributor counts its pods", counted)
    grown = max(now for now, _ in resident_mib("distributor"))
    kubectl("rollout", "restart", "deployment/bench-distributor", "-n", "bench")
    kubectl("rollout", "status", "deployment/bench-distributor", "-n", "bench", "--timeout=120s")
    wait("those before are gone", lambda: len(resident_mib("distributor")) == REPLICAS)
    listed, peak = (max(figures) for figures in zip(*resident_mib("distributor"), strict=True))

    def latency(namespace, load, which):
        return statistics.median(figures[namespace, load][which] for figures in rounds)

    figures = [
        ("500 places at once, the ledger alone, one replica, ms", alone["1"], os.environ["ALONE"]),
        ("... three replicas, ms", alone["3"], os.environ["TOGETHER"]),
        ("a slot for one more of 50,000 pods of a workload, µs", alone["a"] * 1e3, os.environ["SLOT"]),
        (f"a Deployment of {BURST} pods, s", took, None),
        ("... writes of its ledger", writes, most),
        ("... pods off their shares", off, 0),
    ]
    figures.append(("pods that got no place in what follows", unplaced, 0))
    for load in ("at once", "one by one"):
        for which, name in ((0, "p50"), (1, "p99")):
            plain = latency("plain", load, which)
            figures.append((f"{name} of a creation without admission, {load}, ms", plain, None))
            for namespace, what in (("echo", "an admission that leaves pods alone"), ("spread", "placement")):
                figures.append((f"... added by {what}, ms", latency(namespace, load, which) - plain, None))
    figures += [
        (f"resident memory with {PODS} placed pods, MiB", grown, os.environ["MEMORY"]),
        ("... of a new process that has listed them, MiB", listed, os.environ["MEMORY"]),
        ("... at most since its start, MiB", peak, None),
    ]
    return table(figures)


sys.exit(main())
