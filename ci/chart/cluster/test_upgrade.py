"""What the webhook wrote in self-managed mode survives whatever merges."""

import json

from api import ClusterTest, as_list, get, helm, kubectl

from rendering import is_hook, peerpods, render

DATA = {"tls.crt": "Y3J0", "tls.key": "a2V5"}
BUNDLE = "QUJD"


class Upgrade(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.where = cls.namespace("chart-upgrade")
        cls.install("up", cls.where, peerpods(nodeSelector={"no": "where"}))
        kubectl(
            "patch",
            "secret",
            "up-peerpods-self-managed",
            "--namespace",
            cls.where,
            "--patch",
            json.dumps({"data": DATA}),
        )
        kubectl(
            "patch",
            "mutatingwebhookconfiguration",
            "up-peerpods",
            "--type=json",
            "--patch",
            json.dumps([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": BUNDLE}]),
        )

    def check(self, timeout):
        """What was written is still there, and what was changed arrived."""
        (webhook,) = get("mutatingwebhookconfiguration", "up-peerpods")["webhooks"]
        self.assertEqual(webhook["timeoutSeconds"], timeout)
        self.assertEqual(webhook["clientConfig"]["caBundle"], BUNDLE)
        self.assertEqual(get("secret", "up-peerpods-self-managed", "--namespace", self.where)["data"], DATA)

    def test_helm_upgrade_and_rollback(self):
        helm(
            "upgrade",
            "up",
            self.where,
            values=peerpods(nodeSelector={"no": "where"}, timeoutSeconds=7, namespaceSelector={"matchLabels": {"a": "b"}}),
        )
        self.check(timeout=7)
        helm("rollback", "up", self.where)
        self.check(timeout=5)

    def test_kubectl_apply_on_either_side(self):
        """As GitOps tools do it."""
        for timeout, flags in ((8, []), (9, ["--server-side", "--force-conflicts"])):
            objects = [
                o
                for o in render(peerpods(nodeSelector={"no": "where"}, timeoutSeconds=timeout), release="up", namespace=self.where)
                if not is_hook(o)
            ]
            kubectl("apply", *flags, "--filename", "-", stdin=as_list(objects))
            self.check(timeout=timeout)
