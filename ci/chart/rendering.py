"""The chart as Helm renders it, without a cluster."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/podshaper"
HELM = os.environ.get("HELM", "helm")
KUBE_VERSION = "1.36.0"  # a Helm built from its module takes Kubernetes for 1.20
RELEASE, NAMESPACE = "rel", "sys"


class Refused(Exception):
    """Helm would not render; the text is what a user sees."""


class Objects(list):
    """Rendered objects, in Helm's order."""

    def of(self, kind):
        return [o for o in self if o["kind"] == kind]

    def one(self, kind, suffix=""):
        """The object of that kind whose name ends so; there must be exactly one."""
        found = [o for o in self.of(kind) if o["metadata"]["name"].endswith(suffix)]
        if len(found) != 1:
            names = [o["metadata"]["name"] for o in self.of(kind)]
            raise AssertionError(f"one {kind} *{suffix} expected, there are {names}")
        return found[0]


def is_hook(obj):
    return "helm.sh/hook" in obj["metadata"].get("annotations", {})


def helm(values, command, *arguments):
    """What Helm prints, given these values."""
    run = subprocess.run([HELM, command, *arguments, "--kube-version", KUBE_VERSION, "--values", "-"],
                         input=json.dumps(values), capture_output=True, text=True, check=False)
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


SECOND_BLOCK = """
everypod:
  enabled: false
  image:
    repository: example.com/everypod
  failurePolicy: Fail
"""

SECOND_TEMPLATE = """
{{- define "everypod.own" -}}
path: /mutate
rules:
  cluster:
  - {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
  namespaced:
  - {apiGroups: [""], resources: [configmaps], verbs: [get]}
selftest:
  {apiVersion: v1, kind: Pod, metadata: {name: selftest}, spec: {containers: [{name: main, image: example.com/main}]}}
{{- end -}}
{{- define "everypod.notes" -}}
everypod sees every pod.
{{- end -}}
{{- if .Values.everypod.enabled }}
{{- $webhook := dict "root" $ "name" "everypod" }}
{{- include "podshaper.resolve" $webhook }}
{{- include "podshaper.webhook" $webhook }}
{{- end }}
"""


def chart_with_second_webhook():
    """A copy of the chart with one webhook more, added the way that a webhook is added: a block, a schema entry, a template.

    It sees every pod and fails closed, and needs API permissions, unlike peerpods. The caller removes the directory.
    """
    directory = tempfile.TemporaryDirectory()
    copy = pathlib.Path(directory.name, "podshaper")
    shutil.copytree(CHART, copy)
    with open(copy / "values.yaml", "a", encoding="utf-8") as values:
        values.write(SECOND_BLOCK)
    (copy / "templates/everypod.yaml").write_text(SECOND_TEMPLATE, encoding="utf-8")
    schema = json.loads((copy / "values.schema.json").read_text(encoding="utf-8"))
    schema["properties"]["everypod"] = {"$ref": "#/$defs/block"}
    (copy / "values.schema.json").write_text(json.dumps(schema), encoding="utf-8")
    return directory, copy


TLS = {
    "selfManaged": {},
    "certManager": {},
    "certManager with an issuer": {"mode": "certManager", "certManager": {"issuerRef": {"name": "pki", "kind": "ClusterIssuer"}}},
    "existingSecret": {"existingSecret": {"name": "mine", "caBundle": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"}},
}
OPTIONS = {
    "defaults": {},
    "everything": {
        "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"}, "imagePullSecrets": [{"name": "pull"}],
        "resources": {"limits": {"cpu": 1}}, "priorityClassName": "system-cluster-critical",
        "tolerations": [{"operator": "Exists"}], "affinity": {"nodeAffinity": {}}, "hostNetwork": True,
        "namespaceSelector": {"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["x", "y"]}]},
        "objectSelector": {"matchExpressions": [{"key": "shape", "operator": "Exists"}]},
        "matchConditions": [{"name": "small", "expression": "size(object.spec.containers) < 5"}],
        "webhookAnnotations": {"a.b/c": "d"}, "podAnnotations": {"a.b/c": "d"}, "podLabels": {"team": "a"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}], "extraArgs": ["--max-in-flight=100"],
        "podDisruptionBudget": {"minAvailable": "50%"},
        "metrics": {"auth": True, "monitor": {"enabled": True, "labels": {"prometheus": "main"}}},
        "networkPolicy": {"enabled": True, "webhookFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "metricsFrom": [{"namespaceSelector": {}}],
                          "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]},
        "tlsMinVersion": "VersionTLS12", "tlsCipherSuites": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "config": {"sizing": "effective", "headroom": {"memory": "+256Mi"}}, "nodeCapacity": {"enabled": True, "count": 20},
    },
    "least": {
        "replicas": None, "resources": None, "topologySpreadConstraints": None, "priorityClassName": None,
        "nodeSelector": {"kubernetes.io/os": None}, "podDisruptionBudget": {"enabled": False},
    },
    "pod monitor": {"metrics": {"monitor": {"enabled": True, "kind": "PodMonitor"}}, "networkPolicy": {"enabled": True}},
}


def matrix():
    """Every way of keeping certificates with every set of options: (name, values)."""
    for mode, tls in TLS.items():
        for name, options in OPTIONS.items():
            yield f"{mode}, {name}", {"tls": {"mode": mode, **tls}, **peerpods(**options)}
