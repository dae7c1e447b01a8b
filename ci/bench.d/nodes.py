#!/usr/bin/env python3
"""Measures the flexdaemonset of the release `bench`: the part of `ci/bench nodes` that runs inside the cluster."""

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


def kubectl(*arguments):
    run = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False)
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


def pod(node, skip):
    pod = json.loads(kubectl("get", "pods", "--selector=app=agent", f"--field-selector=spec.nodeName={node}", "-o", "json"))["items"][0]
    labels = {**pod["metadata"]["labels"], **({"podshaper.dev/skip": "true"} if skip else {})}
    template = json.loads(kubectl("get", "daemonset", "agent", "-o", "json"))["spec"]["template"]["spec"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "bench-", "labels": labels, "ownerReferences": pod["metadata"]["ownerReferences"]},
        "spec": {**template, "affinity": pod["spec"]["affinity"]},
    }


def p99(folder, server, options, body):
    path = os.path.join(folder, "pod.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(body, file)
    run = subprocess.run(
        [
            os.environ["OHA"], "--no-tui", "--output-format", "json", "--http-version", "1.1", "-m", "POST", "-T", "application/json",
            "-D", path, *options, "-c", "16", "-q", os.environ["RATE"], "-z", f"{os.environ['SECONDS_EACH']}s", "-w",
            f"{server}/api/v1/namespaces/default/pods?dryRun=All",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(f"oha failed: {run.stderr}")
    report = json.loads(run.stdout)
    if set(report["statusCodeDistribution"]) != {"201"} or report["errorDistribution"]:
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


def main():
    resident, peak = resident_mib()
    with tempfile.TemporaryDirectory() as folder:
        server, options = credentials(folder)
        sized, plain = pod("many-1", skip=False), pod("many-1", skip=True)
        answer = subprocess.run(["kubectl", "create", "--dry-run=server", "-o", "json", "-f", "-"], input=json.dumps(sized), capture_output=True, text=True, check=True)
        if json.loads(answer.stdout)["spec"]["containers"][0]["resources"].get("requests", {}).get("cpu") is None:
            sys.exit("the webhook doesn't size the pod that is to be measured")
        rounds = []
        for number in range(ROUNDS):
            print(f"  round {number + 1} of {ROUNDS}", file=sys.stderr)
            pair = {"without": plain, "with": sized}
            order = list(pair) if number % 2 else list(reversed(pair))
            rounds.append({name: p99(folder, server, options, pair[name]) for name in order})
    added = [statistics.median(r["with"][i] - r["without"][i] for r in rounds) for i in (0, 1)]
    ratio = statistics.median(r["with"][1] / r["without"][1] for r in rounds)
    ready = seconds_until_ready()
    rate = os.environ["RATE"]
    figures = [
        ("resident memory of the leader, MiB", resident, os.environ["MEMORY"]),
        ("... at most since its start, MiB", peak, None),
        (f"added to the p50 at {rate} pods/s, ms", added[0], None),
        (f"added to the p99 at {rate} pods/s, ms", added[1], os.environ["ADDED"]),
        ("p99 with the webhook : without", ratio, None),
        ("caches filled after the start, s", ready, os.environ["READY"]),
    ]
    print("| | measured | bar |\n|---|---|---|")
    for name, value, bar in figures:
        print(f"| {name} | {value:.2f} | {'' if bar is None else f'at most {bar}'} |")
    return any(bar is not None and value > float(bar) for _, value, bar in figures)


sys.exit(main())
