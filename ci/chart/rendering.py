"""The chart as Helm renders it, without a cluster."""

import json
import os
import pathlib
import re
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/podshaper"
HELM = os.environ.get("HELM", "helm")
RELEASE, NAMESPACE = "rel", "sys"


class Refused(Exception):
    """Helm would not render; the text is what a user sees."""


class Objects(list):
    """Rendered objects, in Helm's order."""

    def of(self, kind):
        return [o for o in self if o["kind"] == kind]

    def one(self, kind, suffix=""):
        """The object of that kind with a name that ends in `suffix`; there must be exactly one."""
        found = [o for o in self.of(kind) if o["metadata"]["name"].endswith(suffix)]
        if len(found) != 1:
            names = [o["metadata"]["name"] for o in self.of(kind)]
            raise AssertionError(f"one {kind} *{suffix} expected, there are {names}")
        return found[0]


def is_hook(obj):
    return "helm.sh/hook" in obj["metadata"].get("annotations", {})


def helm(values, command, *arguments):
    """What Helm prints, given these values."""
    run = subprocess.run(
        [HELM, command, *arguments, "--values", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise Refused(run.stderr or run.stdout)
    return run.stdout


def documents(values, *, chart=CHART, release=RELEASE, namespace=NAMESPACE):
    """The text of each rendered object, in Helm's order."""
    text = helm(values, "template", release, str(chart), "--namespace", namespace)
    return [document.strip() for document in re.split(r"(?m)^---$", text) if document.strip()]


def render(values, **where):
    """The installed objects and the test hooks."""
    return Objects(yaml.load(document, yaml.CSafeLoader) for document in documents(values, **where))


def peerpods(**block):
    """Values with peerpods turned on."""
    return {"peerpods": {"enabled": True, **block}}


def webhook(values):
    """The one webhook of the MutatingWebhookConfiguration."""
    (only,) = render(values).one("MutatingWebhookConfiguration")["webhooks"]
    return only


def container(values):
    """The container of the webhook's Deployment."""
    (only,) = pod_spec(values)["containers"]
    return only


def pod_spec(values):
    return render(values).one("Deployment")["spec"]["template"]["spec"]
