#!/usr/bin/env python3
"""Measures the flexdaemonset of the release `bench`: the part of `ci/bench nodes` that runs inside the cluster.

Given `create`, it creates the pods of each DaemonSet on each node. Without an argument, it measures the process at rest; given that,
it measures under load and prints the table.
"""

import concurrent.futures
import datetime
import json
import os
import statistics
import sys
import tempfile

from cluster import credentials, get, kubectl, post, resident_mib, table

sys.path.append(os.path.join(os.path.dirname(__file__), "../cluster.d"))
from api_server import ApiServer  # noqa: E402

ROUNDS = 3
CONNECTIONS = 8


def pod_of(daemonset, node):
    """What the DaemonSet controller creates for that node."""
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": daemonset["metadata"]["name"], "uid": daemonset["metadata"]["uid"], "controller": True}
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    template = daemonset["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "bench-", "namespace": "default", "labels": template["metadata"]["labels"], "ownerReferences": [owner]},
        "spec": {**template["spec"], "affinity": affinity},
    }


def create():
    """Creates a pod of each DaemonSet on each fake node, as the DaemonSet controller does, and already bound."""
    api_server = ApiServer()
    nodes = [node["metadata"]["name"] for node in api_server.get("/api/v1/nodes")["items"] if node["metadata"]["name"].startswith("many-")]
    daemonsets = api_server.get("/apis/apps/v1/namespaces/default/daemonsets")["items"]

    def create_on(node):
        for daemonset in daemonsets:
            pod = pod_of(daemonset, node)
            pod["metadata"]["generateName"] = f"{daemonset['metadata']['name']}-"
            pod["spec"]["nodeName"] = node
            api_server.request("POST", "/api/v1/namespaces/default/pods", pod)

    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        for done, _ in enumerate(pool.map(create_on, nodes), 1):
            if done % 500 == 0:
                print(f"{done * len(daemonsets)} of {len(nodes) * len(daemonsets)} pods", file=sys.stderr)


def skipped(pod):
    """The same pod, about which the API server doesn't ask."""
    return {**pod, "metadata": {**pod["metadata"], "labels": {"podshaper.dev/skip": "true"}}}


def created(pod):
    return json.loads(kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod)))


def review(pod):
    """The question that the API server asks about a pod."""
    kind, resource = {"group": "", "version": "v1", "kind": "Pod"}, {"group": "", "version": "v1", "resource": "pods"}
    request = {"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource}
    request |= {"namespace": "default", "operation": "CREATE", "userInfo": {"username": "admin"}, "object": pod, "oldObject": None, "dryRun": True}
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def latencies(folder, url, options, body, status):
    """Its p50 and p99 in ms, at the rate wanted."""
    rate = ["-c", "16", "-q", os.environ["RATE"], "-z", f"{os.environ['SECONDS_EACH']}s", "-w"]
    return post(folder, url, [*options, *rate], body, status)


def seconds_until_ready():
    """Of a new process: from its container's start until its pod is ready."""
    kubectl("--namespace=bench", "rollout", "restart", "deployment/bench-flexdaemonset")
    kubectl("--namespace=bench", "rollout", "status", "deployment/bench-flexdaemonset", "--timeout=120s")
    pods = get("pods", "--namespace=bench")["items"]
    newest = max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])
    started = newest["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    (ready,) = (c["lastTransitionTime"] for c in newest["status"]["conditions"] if c["type"] == "Ready")
    started, ready = (datetime.datetime.fromisoformat(time) for time in (started, ready))
    return (ready - started).total_seconds()


def at_rest():
    """Prints the memory of a process that has seen every pod come, and how long a new one takes."""
    ((resident, peak),) = resident_mib("flexdaemonset")
    json.dump({"resident": resident, "peak": peak, "ready": seconds_until_ready()}, sys.stdout)


def under_load(rest):
    daemonset = get("daemonset", "agent")
    sized = pod_of(daemonset, "many-1")
    # A pod that the webhook leaves unchanged.
    unchanged = pod_of({**daemonset, "metadata": {"name": "another", "uid": "0"}}, "many-1")
    if "cpu" not in created(sized)["spec"]["containers"][0]["resources"].get("requests", {}):
        sys.exit("the webhook doesn't size the pod that is to be measured")
    if created(unchanged)["spec"]["containers"][0]["resources"]:
        sys.exit("the webhook sizes a pod that isn't of a DaemonSet with a template")
    address = kubectl("--namespace=bench", "get", "service", "bench-flexdaemonset", "-o", "jsonpath={.spec.clusterIP}")
    with tempfile.TemporaryDirectory() as folder:
        server, ca, certificate, key = credentials(folder)
        options = ["--cacert", ca, "--cert", certificate, "--key", key]
        create = f"{server}/api/v1/namespaces/default/pods?dryRun=All"
        arms = {
            "answer": lambda: latencies(folder, f"https://{address}/mutate-v1-pod?timeout=5s", ["--insecure"], review(created(skipped(sized))), "200"),
            "without": lambda: latencies(folder, create, options, skipped(sized), "201"),
            "unchanged": lambda: latencies(folder, create, options, unchanged, "201"),
            "sized": lambda: latencies(folder, create, options, sized, "201"),
        }
        rounds = []
        for number in range(ROUNDS):
            print(f"  round {number + 1} of {ROUNDS}", file=sys.stderr)
            rounds.append({arm: arms[arm]() for arm in (arms if number % 2 else reversed(arms))})
    figures = [
        ("resident memory of the leader, MiB", rest["resident"], os.environ["MEMORY"]),
        ("... at most since its start, MiB", rest["peak"], None),
        ("caches filled after the start, s", rest["ready"], os.environ["READY"]),
    ]
    for i, (name, bar) in enumerate([("p50", None), ("p99", os.environ["ADDED"])]):
        median = lambda figure: statistics.median(figure(r) for r in rounds)
        figures += [
            (f"{name} of the webhook's answer to {os.environ['RATE']} reviews a second, ms", median(lambda r: r["answer"][i]), bar),
            (f"{name} of as many creations without the webhook, ms", median(lambda r: r["without"][i]), None),
            ("... that the webhook is asked about and leaves unchanged : without", median(lambda r: r["unchanged"][i] / r["without"][i]), None),
            ("... that the webhook sizes : without", median(lambda r: r["sized"][i] / r["without"][i]), None),
        ]
    return table(figures)


match sys.argv[1:]:
    case []:
        sys.exit(at_rest())
    case ["create"]:
        sys.exit(create())
    case [rest]:
        sys.exit(under_load(json.loads(rest)))
