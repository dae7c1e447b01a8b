#!/usr/bin/env python3
"""Measures the flexdaemonset of the release `bench`: the part of `ci/bench nodes` that runs inside the cluster.

Without an argument, what it is at rest; given that, under load, and prints the table.
"""

import base64
import datetime
import glob
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

import yaml

ROUNDS = 3


def kubectl(*arguments, stdin=None):
    run = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"kubectl {' '.join(arguments)}: {run.stderr}")
    return run.stdout


def resident_mib():
    """Of the webhook's process: now, and at most so far."""
    for path in glob.glob("/proc/[0-9]*/status"):
        try:
            status = open(path, encoding="utf-8").read()
        except OSError:
            continue
        if re.search(r"^Name:\tflexdaemonset$", status, re.M):
            return [int(re.search(rf"{figure}:\s+(\d+) kB", status)[1]) / 1024 for figure in ("VmRSS", "VmHWM")]
    sys.exit("there is no process flexdaemonset")


def credentials(folder):
    """The API server's address, and files with what it asks for."""
    with open(os.environ["KUBECONFIG"], encoding="utf-8") as file:
        config = yaml.safe_load(file)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]

    def saved(owner, key):
        if key in owner:
            return owner[key]
        path = os.path.join(folder, key)
        with open(path, "wb") as file:
            file.write(base64.b64decode(owner[f"{key}-data"]))
        return path

    return cluster["server"], [
        "--cacert", saved(cluster, "certificate-authority"),
        "--cert", saved(user, "client-certificate"), "--key", saved(user, "client-key"),
    ]  # fmt: skip


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
    path = os.path.join(folder, "body.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(body, file)
    run = subprocess.run(
        [
            os.environ["OHA"], "--no-tui", "--output-format", "json", "--http-version", "1.1", "-m", "POST", "-T", "application/json",
            "-D", path, *options, "-c", "16", "-q", os.environ["RATE"], "-z", f"{os.environ['SECONDS_EACH']}s", "-w", url,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(f"oha failed: {run.stderr}")
    report = json.loads(run.stdout)
    if set(report["statusCodeDistribution"]) != {status} or report["errorDistribution"]:
        sys.exit(f"under load: {report['statusCodeDistribution']} {report['errorDistribution']}")
    return [report["latencyPercentiles"][name] * 1e3 for name in ("p50", "p99")]


def seconds_until_ready():
    """Of a new process: from its container's start until its pod is ready."""
    kubectl("--namespace=bench", "rollout", "restart", "deployment/bench-flexdaemonset")
    kubectl("--namespace=bench", "rollout", "status", "deployment/bench-flexdaemonset", "--timeout=120s")
    pods = json.loads(kubectl("--namespace=bench", "get", "pods", "-o", "json"))["items"]
    newest = max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])
    started = newest["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    (ready,) = (c["lastTransitionTime"] for c in newest["status"]["conditions"] if c["type"] == "Ready")
    started, ready = (datetime.datetime.fromisoformat(time) for time in (started, ready))
    return (ready - started).total_seconds()


def at_rest():
    """Prints the memory of a process that has seen every pod come, and how long a new one takes."""
    resident, peak = resident_mib()
    json.dump({"resident": resident, "peak": peak, "ready": seconds_until_ready()}, sys.stdout)


def under_load(rest):
    daemonset = json.loads(kubectl("get", "daemonset", "agent", "-o", "json"))
    sized = pod_of(daemonset, "many-1")
    # One that the webhook is asked about, and has nothing to say to.
    unchanged = pod_of({**daemonset, "metadata": {"name": "another", "uid": "0"}}, "many-1")
    if "cpu" not in created(sized)["spec"]["containers"][0]["resources"].get("requests", {}):
        sys.exit("the webhook doesn't size the pod that is to be measured")
    if created(unchanged)["spec"]["containers"][0]["resources"]:
        sys.exit("the webhook sizes a pod that isn't of a DaemonSet with a template")
    address = kubectl("--namespace=bench", "get", "service", "bench-flexdaemonset", "-o", "jsonpath={.spec.clusterIP}")
    with tempfile.TemporaryDirectory() as folder:
        server, options = credentials(folder)
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
    print("| | measured | bar |\n|---|---|---|")
    for name, value, bar in figures:
        print(f"| {name} | {value:.2f} | {'' if bar is None else f'at most {bar}'} |")
    return any(bar is not None and value > float(bar) for _, value, bar in figures)


sys.exit(under_load(json.loads(sys.argv[1])) if sys.argv[1:] else at_rest())
