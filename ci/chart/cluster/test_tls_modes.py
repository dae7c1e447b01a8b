"""Every change of tls.mode, with what the webhook or cainjector has written into the webhook configuration."""

import base64
import itertools
import json

from api import HELMS, LONG, ClusterTest, Failed, exists, get, helm, kubectl, long

from matrix import TLS
from originals import definition
from rendering import peerpods

ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
MODES = {"selfManaged": TLS["self-managed"], "certManager": TLS["cert-manager"], "existingSecret": TLS["existing-secret"]}
# Who writes caBundle, by the field manager; with an existing Secret the chart contains it.
WRITERS = {"selfManaged": "podshaper-peerpods", "certManager": "cert-manager-cainjector"}


class WithHelm4(ClusterTest):
    PROGRAM = HELMS["Helm 4"]
    # To existingSecret, the release takes caBundle over from its writer.
    TAKE_OVER = ("--force-conflicts",)

    @classmethod
    def setUpClass(cls):
        for kind in ("Certificate", "Issuer"):
            crd = definition("cert-manager.io", kind.lower() + "s", kind, "v1", ANYTHING)
            if not exists("crd", crd["metadata"]["name"]):
                cls.create(crd)
                kubectl("wait", "--for=condition=Established", "crd", crd["metadata"]["name"])

    def values(self, mode):
        return {**MODES[mode], **peerpods(nodeSelector={"no": "where"})}

    def write_bundle(self, release, manager):
        bundle = base64.b64encode(manager.encode()).decode()
        patch = [{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
        configuration = ["mutatingwebhookconfiguration", f"{release}-peerpods"]
        kubectl("patch", *configuration, "--type=json", "--field-manager", manager, "--patch", json.dumps(patch))

    def check(self, release, where, mode):
        """The objects are those of the mode, and nothing of another mode is in use."""
        configuration = get("mutatingwebhookconfiguration", f"{release}-peerpods")
        annotations = configuration["metadata"].get("annotations", {})
        self.assertEqual("cert-manager.io/inject-ca-from" in annotations, mode == "certManager")
        self.assertEqual(exists("secret", f"{release}-peerpods-self-managed", where), mode == "selfManaged")
        self.assertEqual(exists("certificate", f"{release}-peerpods", where), mode == "certManager")
        if mode == "existingSecret":
            expected = base64.b64encode(MODES[mode]["tls"]["existingSecret"]["caBundle"].encode()).decode()
            self.assertEqual(configuration["webhooks"][0]["clientConfig"].get("caBundle"), expected)
        pods = get("deployment", f"{release}-peerpods", "--namespace", where)["spec"]["template"]["spec"]
        (container,) = pods["containers"]
        self.assertEqual(any("--self-managed-secret" in arg for arg in container["args"]), mode == "selfManaged")
        volumes = {volume["name"]: volume for volume in pods.get("volumes", [])}
        self.assertEqual("tls" in volumes, mode != "selfManaged")

    def change(self, old, new):
        release = f"{old[:2]}-{new[:2]}".lower()
        where = self.namespace(f"chart-tls-{release}")
        self.install(release, where, self.values(old), program=self.PROGRAM)
        if manager := WRITERS.get(old):
            self.write_bundle(release, manager)
        options = self.TAKE_OVER if new == "existingSecret" else ()
        if options:
            with self.assertRaisesRegex(Failed, "conflict.*caBundle"):
                helm("upgrade", release, where, values=self.values(new), program=self.PROGRAM)
        helm("upgrade", release, where, *options, values=self.values(new), program=self.PROGRAM)
        self.check(release, where, new)
        if manager := WRITERS.get(new):
            self.write_bundle(release, manager)
        # A change of another value keeps the mode.
        helm("upgrade", release, where, values={**self.values(new), "defaults": {"timeoutSeconds": 7}}, program=self.PROGRAM)
        self.check(release, where, new)

    def test_every_change(self):
        changes = itertools.permutations(MODES, 2) if LONG else [("selfManaged", "existingSecret")]
        for old, new in changes:
            with self.subTest(old=old, new=new):
                self.change(old, new)


@long
class WithHelm3(WithHelm4):
    PROGRAM = HELMS["Helm 3"]
    TAKE_OVER = ()
