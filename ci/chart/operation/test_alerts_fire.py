"""Alerts of a real Prometheus, which scrapes the webhooks as the monitors of the chart say.

The durations `for` are shortened; the expressions are those of the chart.
"""

import json
import os
import re
import signal
import subprocess

from api import ClusterTest, Failed, eventually, get, helm, kubectl

from prometheus import Prometheus
from rendering import Objects, render
from test_dashboard import queries

RELEASE = "ops"
WEBHOOKS = ("arch", "custom-scheduler-annotations", "distributor", "flexdaemonset", "peerpods")
TARGETS = 2 * len(WEBHOOKS)
SELECTOR = {"podshaper-test": RELEASE}
DISTRIBUTOR = "versprei.versprei.io/v1beta1"


def values(namespace):
    blocks = {name: {"enabled": True} for name in WEBHOOKS}
    blocks["arch"] |= {"lookupTimeout": "1s", "metrics": {"monitor": {"kind": "PodMonitor"}}}
    blocks["distributor"]["metrics"] = {"perObject": True}
    return {
        "defaults": {
            "image": {"pullPolicy": "Never"},
            "namespaceSelector": {"matchLabels": SELECTOR},
            "metrics": {
                "auth": True,
                "monitor": {"enabled": True, "tokenSecret": {"name": "scraper"}, "endpoint": {"interval": "1s"}},
                "rules": {"enabled": True},
            },
        },
        **blocks,
    }


def without_operator(given):
    """The same values without objects of the operator, which is not installed."""
    copy = json.loads(json.dumps(given))
    copy["defaults"]["metrics"]["monitor"]["enabled"] = False
    copy["defaults"]["metrics"]["rules"]["enabled"] = False
    return copy


def pod(namespace, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "pod-", "namespace": namespace},
        "spec": {
            "nodeSelector": {"no": "where"},
            "containers": [{"name": "main", "image": "127.0.0.1:1/none:1", **spec.pop("container", {})}],
            **spec,
        },
    }


class Alerts(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.where = cls.namespace("operation")
        cls.pods = cls.namespace("operation-pods", SELECTOR)
        cls.values = values(cls.where)
        cls.scraper()
        helm("install", RELEASE, cls.where, "--wait", "--timeout=180s", values=without_operator(cls.values))
        cls.addClassCleanup(helm, "uninstall", RELEASE, cls.where, "--ignore-not-found")
        for name in WEBHOOKS:
            role = f"{RELEASE}-{name}-metrics-reader"
            cls.create(
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": f"{cls.where}-{name}"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                    "subjects": [{"kind": "ServiceAccount", "name": "scraper", "namespace": cls.where}],
                }
            )
        cls.objects = Objects(render(cls.values, release=RELEASE, namespace=cls.where))
        rules = cls.objects.of("PrometheusRule")
        for group in (group for rule in rules for group in rule["spec"]["groups"]):
            for rule in group["rules"]:
                rule.pop("for", None)
        cls.prometheus = Prometheus(cls.objects.of("ServiceMonitor") + cls.objects.of("PodMonitor"), rules)
        cls.addClassCleanup(lambda: cls.prometheus.end())

    @classmethod
    def scraper(cls):
        """The account and the token, as the page of the chart creates them."""
        cls.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "scraper", "namespace": cls.where}})
        annotations = {"kubernetes.io/service-account.name": "scraper"}
        cls.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "scraper", "namespace": cls.where, "annotations": annotations},
                "type": "kubernetes.io/service-account-token",
            }
        )
        token = ["get", "secret", "scraper", "--namespace", cls.where, "--output", "jsonpath={.data.token}"]
        eventually(lambda: kubectl(*token))

    def fires(self, alert, webhook, seconds=60):
        eventually(lambda: (alert, webhook) in self.prometheus.firing(), seconds)

    def ends(self, alert, webhook, seconds=60):
        eventually(lambda: (alert, webhook) not in self.prometheus.firing(), seconds)

    def upgrade(self, webhook, **block):
        changed = without_operator(self.values)
        changed[webhook] |= block
        helm("upgrade", RELEASE, self.where, "--wait", "--timeout=180s", values=changed)

    def create_pod(self, obj):
        """Whether the API server takes the pod."""
        try:
            kubectl("create", "--filename", "-", stdin=obj)
        except Failed:
            return False
        return True

    def deployment(self, name, namespace):
        """Two pods that no node takes."""
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod(namespace)["spec"]},
            },
        }

    # The tests run in the order of their names, the healthy system first.

    def test_0_healthy_system_is_silent(self):
        eventually(lambda: len(self.prometheus.query("podshaper_connections")) == TARGETS, 60)
        eventually(lambda: not self.prometheus.unhealthy(), 60)
        # A leader is elected, and every counter has two samples.
        for name in ("distributor", "flexdaemonset"):
            self.ends("PodshaperNoLeader", name)
        eventually(lambda: not self.prometheus.firing())

    def test_1_refused_pod(self):
        """peerpods cannot state so much memory."""
        huge = {"resources": {"limits": {"cpu": "1", "memory": "9Ei"}}}
        kubectl("apply", "--filename", "-", stdin={"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata-remote"}, "handler": "runc"})
        self.assertFalse(self.create_pod(pod(self.pods, runtimeClassName="kata-remote", container=huge)))
        self.fires("PodshaperRefusesPods", "peerpods")

    def test_1_pods_without_a_group_and_without_nodes(self):
        kubectl("create", "--filename", "-", stdin=self.deployment("early", self.pods))
        eventually(lambda: len(get("pods", "--namespace", self.pods, "--selector", "app=early")["items"]) == 2)
        groups = [{"nodeLabel": {"type": name}, "weight": 50} for name in ("default", "spot")]
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "early"}
        policy = {"apiVersion": DISTRIBUTOR, "kind": "PodDistributor", "metadata": {"name": "early", "namespace": self.pods}}
        kubectl("create", "--filename", "-", stdin={**policy, "spec": {"distribution": groups, "target": target}})
        self.fires("PodshaperUnplacedPods", "distributor")
        # The labels are those of the pods, and not of the webhook.
        (labels, number), = self.prometheus.query("sum by (namespace) (podshaper_distributor_unplaced_pods) > 0")
        self.assertEqual((labels, number), ({"namespace": self.pods}, 2))
        kubectl("scale", "deployment/early", "--replicas=4", "--namespace", self.pods)
        self.fires("PodshaperGroupPending", "distributor")

    def test_1_pods_of_an_annotated_workload(self):
        namespace = self.namespace("operation-annotated", {**SELECTOR, "custom-kube-scheduler-webhook": "enabled"})
        deployment = self.deployment("annotated", namespace)
        deployment["metadata"]["annotations"] = {"custom-pod-schedule-strategy": "size=large,base=1,weight=0:size=small,weight=1"}
        kubectl("create", "--filename", "-", stdin=deployment)
        self.fires("PodshaperGroupPending", "custom-scheduler-annotations")

    def test_1_pods_with_a_template_that_does_not_exist(self):
        daemon_set = {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "agent", "namespace": self.pods, "annotations": {"flexdaemonsets.xai/resource-template": RELEASE}},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "template": {
                    "metadata": {"labels": {"app": "agent"}},
                    "spec": {"containers": [{"name": "main", "image": "podshaper/pause:1", "imagePullPolicy": "Never"}]},
                },
            },
        }
        kubectl("apply", "--filename", "-", stdin=daemon_set)
        kubectl("rollout", "status", "daemonset/agent", "--namespace", self.pods, "--timeout=60s")
        self.fires("PodshaperUndecided", "flexdaemonset")
        # The template comes later, without `refit`: the running pod does not follow.
        template = {"apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate", "metadata": {"name": RELEASE}}
        self.create({**template, "spec": {"cpuPercentage": 1}})
        self.fires("PodshaperRefitWaits", "flexdaemonset")

    def test_2_slow_webhook(self):
        """Its processes are stopped, so each call ends at the timeout."""
        stopped = processes("distributor")
        self.assertTrue(stopped)
        try:
            for process in stopped:
                os.kill(process, signal.SIGSTOP)
            for _ in range(3):
                self.create_pod(owned_pod(self.pods))
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)
        self.fires("PodshaperSlow", "distributor")
        self.fires("PodshaperFailsOpen", "distributor")

    def test_3_no_leader(self):
        name = f"{RELEASE}-distributor"
        # The permission for the Lease is in the Role of the namespace.
        kubectl("delete", "rolebinding", name, "--namespace", self.where)
        self.fires("PodshaperNoLeader", "distributor", 90)
        self.upgrade("distributor")
        self.ends("PodshaperNoLeader", "distributor", 90)

    def test_3_queries_of_the_dashboard_have_series(self):
        for query in queries():
            # No pod is refitted here, so that the counter has no series.
            if "refits_total" not in query:
                with self.subTest(query):
                    eventually(lambda query=query: self.prometheus.query(query.replace("$webhook", ".*")), 60)

    def test_4_webhook_is_down(self):
        self.upgrade("peerpods", replicas=1)
        kubectl("scale", f"deployment/{RELEASE}-peerpods", "--replicas=0", "--namespace", self.where)
        self.fires("PodshaperDown", "peerpods")
        self.assertFalse(self.create_pod(pod(self.pods, runtimeClassName="kata-remote")))
        self.fires("PodshaperUnreachable", "peerpods")
        self.upgrade("peerpods")
        self.ends("PodshaperDown", "peerpods")

    def test_5_wrong_ca(self):
        certificate, key, other = certificates(f"{RELEASE}-arch.{self.where}.svc")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "given", "namespace": self.where}, "type": "kubernetes.io/tls"}
        kubectl("create", "--filename", "-", stdin={**secret, "stringData": {"tls.crt": certificate, "tls.key": key}})
        self.upgrade("arch", tls={"mode": "existingSecret", "existingSecret": {"name": "given", "caBundle": other}})
        self.assertTrue(self.create_pod(pod(self.pods)))
        self.fires("PodshaperFailsOpen", "arch")

    def test_6_certificate_is_not_renewed(self):
        """A certificate for a day, in a Secret of the user."""
        webhook = "custom-scheduler-annotations"
        certificate, key, _ = certificates(f"{RELEASE}-{webhook}.{self.where}.svc")
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "short", "namespace": self.where}, "type": "kubernetes.io/tls"}
        self.create({**secret, "stringData": {"tls.crt": certificate, "tls.key": key}})
        tls = {"mode": "existingSecret", "existingSecret": {"name": "short", "caBundle": certificate}}
        self.upgrade(webhook, tls=tls)
        changed = json.loads(json.dumps(self.values))
        changed[webhook]["tls"] = tls
        objects = Objects(render(changed, release=RELEASE, namespace=self.where))
        for config_map in objects.of("ConfigMap"):
            if config_map["metadata"]["name"].endswith("-metrics-ca"):
                self.create(config_map)
        self.prometheus.end()
        monitors = [monitor for monitor in objects.of("ServiceMonitor") if monitor["metadata"]["name"] == f"{RELEASE}-{webhook}"]
        type(self).prometheus = Prometheus(monitors, objects.of("PrometheusRule"))
        self.fires("PodshaperCertificateExpires", webhook)


def owned_pod(namespace):
    """distributor is called for pods of a ReplicaSet."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "none", "uid": "11111111-1111-1111-1111-111111111111", "controller": True}
    owned = pod(namespace)
    owned["metadata"]["ownerReferences"] = [owner]
    return owned


def processes(webhook):
    """The processes of a webhook, which the namespaces of the cluster show."""
    found = subprocess.run(["pgrep", "--full", f"service-name={RELEASE}-{webhook}"], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def certificates(name):
    """A certificate for an hour with its key, and a CA that did not sign it."""
    with_openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]

    def issue(subject):
        options = ["-subj", f"/CN={subject}", "-addext", f"subjectAltName=DNS:{subject}", "-keyout", "/dev/stdout"]
        text = subprocess.run([*with_openssl, *options], capture_output=True, text=True, check=True).stdout
        return re.findall(r"(?s)-----BEGIN [\w ]+-----.*?-----END [\w ]+-----\n", text)

    def parts(subject):
        blocks = issue(subject)
        (certificate,) = [block for block in blocks if "CERTIFICATE" in block]
        (key,) = [block for block in blocks if "PRIVATE" in block]
        return certificate, key

    certificate, key = parts(name[:64])
    other, _ = parts("another CA")
    return certificate, key, other
