"""kubectl and helm against the cluster, and requests that kubectl can't make."""

import base64
import json
import os
import secrets
import ssl
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from rendering import CHART, HELM

# Helm 4 applies server-side, so a field that another manager owns is a conflict.
HELMS = {"Helm 3": HELM, "Helm 4": os.environ.get("HELM4", "helm4")}

# `ci/test --long` runs every case, `ci/test` one of each kind.
LONG = bool(os.environ.get("PODSHAPER_TEST_LONG"))
long = unittest.skipUnless(LONG, "comes with --long")


class Failed(Exception):
    """A command failed; the text is what it said."""


def run(*command, stdin=None):
    if isinstance(stdin, (dict, list)):
        stdin = json.dumps(stdin)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        # Helm prints the logs of a failed hook to standard output.
        raise Failed((done.stderr + done.stdout).strip())
    return done.stdout


def kubectl(*arguments, stdin=None):
    return run("kubectl", *arguments, stdin=stdin)


def get(*arguments):
    return json.loads(kubectl("get", "--output", "json", *arguments))


def helm(command, release, namespace, *arguments, values=None, chart=CHART, program=HELM):
    source = [str(chart), "--values", "-"] if command in ("install", "upgrade") else []
    # The cluster may have no node for the pods of hooks.
    hooks = [] if command == "test" else ["--no-hooks"]
    return run(program, command, release, *source, *hooks, "--namespace", namespace, *arguments, stdin=values or {})


def exists(kind, name, namespace=None):
    scope = ["--namespace", namespace] if namespace else []
    return bool(kubectl("get", kind, name, *scope, "--ignore-not-found", "--output", "name"))


def as_list(objects):
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def eventually(condition, seconds=30):
    """The first true answer; for what the API server takes up some time after it said yes."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(0.1)
    return answer


def request(method, path, body, token, content_type="application/merge-patch+json"):
    """(status, object or Status) of one request as the bearer of the token."""
    cluster = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json"))["clusters"][
        0
    ]["cluster"]
    trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    message = urllib.request.Request(
        cluster["server"] + path,
        json.dumps(body).encode(),
        method=method,
        headers={"Authorization": f"Bearer {token}", "Content-Type": content_type},
    )
    try:
        with urllib.request.urlopen(message, context=trust) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


class ClusterTest(unittest.TestCase):
    """Whatever a test creates goes when its class ends."""

    RUN = secrets.token_hex(2)  # in names of objects without a namespace

    @classmethod
    def create(cls, obj):
        kubectl("create", "--filename", "-", stdin=obj)
        kind, meta = obj["kind"].lower(), obj["metadata"]
        scope = ["--namespace", meta["namespace"]] if "namespace" in meta else []
        how = {"namespace": ["--wait=false"], "pod": ["--force", "--grace-period=0"]}  # its node may have no kubelet
        cls.addClassCleanup(kubectl, "delete", kind, meta["name"], *scope, *how.get(kind, []), "--ignore-not-found")

    @classmethod
    def namespace(cls, name, labels=None):
        # Another class may have the same names, and a namespace takes a while to go.
        name = f"{name}-{secrets.token_hex(2)}"
        cls.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}})
        kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=30s")
        return name

    @classmethod
    def install(cls, release, namespace, values, *arguments, chart=CHART, program=HELM):
        helm("install", release, namespace, *arguments, values=values, chart=chart, program=program)
        cls.addClassCleanup(helm, "uninstall", release, namespace, "--ignore-not-found", program=program)
