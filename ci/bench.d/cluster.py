"""What benchmarks inside a cluster share: kubectl, the API server's address, load, and the memory of processes."""

import base64
import glob
import json
import os
import re
import subprocess
import sys

import yaml


def kubectl(*arguments, stdin=None):
    run = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"kubectl {' '.join(arguments)}: {run.stderr}")
    return run.stdout


def get(*arguments):
    return json.loads(kubectl("get", "-o", "json", *arguments))


def resident_mib(name):
    """Of each process of that name: now, and at most so far."""
    found = []
    for path in glob.glob("/proc/[0-9]*/status"):
        try:
            status = open(path, encoding="utf-8").read()
        except OSError:
            continue
        if re.search(rf"^Name:\t{name}$", status, re.M):
            found.append([int(re.search(rf"{figure}:\s+(\d+) kB", status)[1]) / 1024 for figure in ("VmRSS", "VmHWM")])
    return found or sys.exit(f"there is no process {name}")


def credentials(folder):
    """The API server's address, and files with what it asks for: CA, certificate, key."""
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

    return cluster["server"], saved(cluster, "certificate-authority"), saved(user, "client-certificate"), saved(user, "client-key")


def post(folder, url, options, body, status):
    """POSTs `body` again and again, as oha's options say; p50 and p99 in ms."""
    path = os.path.join(folder, "body.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(body, file)
    run = subprocess.run(
        [
            os.environ["OHA"], "--no-tui", "--output-format", "json", "--http-version", "1.1", "-m", "POST", "-T", "application/json",
            "-D", path, *options, url,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        sys.exit(f"oha failed: {run.stderr}")
    report = json.loads(run.stdout)
    if set(report["statusCodeDistribution"]) != {status} or report["errorDistribution"]:
        sys.exit(f"under load: {report['statusCodeDistribution']} {report['errorDistribution']}")
    return [report["latencyPercentiles"][name] * 1e3 for name in ("p50", "p99")]


def table(figures):
    """Prints (name, value, bar or None); whether a bar was missed."""
    print("| | measured | bar |\n|---|---|---|")
    for name, value, bar in figures:
        print(f"| {name} | {value:.2f} | {'' if bar is None else f'at most {float(bar):g}'} |")
    return any(bar is not None and value > float(bar) for _, value, bar in figures)
