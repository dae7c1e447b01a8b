"""The three ways of keeping certificates."""

import base64
import unittest

from matrix import TLS
from rendering import Refused, container, peerpods, pod_spec, render, webhook

PEM = TLS["existingSecret"]["existingSecret"]["caBundle"]
MOUNT = {"name": "tls", "mountPath": "/tmp/k8s-webhook-server/serving-certs", "readOnly": True}


def by(mode, **block):
    return {"tls": {"mode": mode.split()[0], **TLS[mode]}, **peerpods(**block)}


class SelfManaged(unittest.TestCase):
    def test_an_upgrade_has_nothing_to_overwrite_what_the_webhook_wrote_with(self):
        objects = render(by("selfManaged"))
        self.assertEqual(set(objects.one("Secret")), {"apiVersion", "kind", "metadata", "type"})
        self.assertNotIn("caBundle", webhook(by("selfManaged"))["clientConfig"])

    def test_it_may_write_its_secret_and_its_configuration_and_nothing_else(self):
        objects = render(by("selfManaged"))
        (role,) = (r for r in objects.of("Role") if r["metadata"]["name"] == "rel-peerpods")
        self.assertEqual(
            role["rules"],
            [
                {
                    "apiGroups": [""],
                    "resources": ["secrets"],
                    "resourceNames": [objects.one("Secret")["metadata"]["name"]],
                    "verbs": ["get", "watch", "patch", "create"],
                }
            ],
        )
        self.assertEqual(
            objects.one("ClusterRole")["rules"],
            [
                {
                    "apiGroups": ["admissionregistration.k8s.io"],
                    "resources": ["mutatingwebhookconfigurations"],
                    "resourceNames": [objects.one("MutatingWebhookConfiguration")["metadata"]["name"]],
                    "verbs": ["get", "watch", "patch"],
                }
            ],
        )

    def test_the_flags_name_what_is_there(self):
        objects, args = render(by("selfManaged")), container(by("selfManaged"))["args"]
        self.assertIn("--self-managed-secret=" + objects.one("Secret")["metadata"]["name"], args)
        self.assertIn(
            "--webhook-configuration=" + objects.one("MutatingWebhookConfiguration")["metadata"]["name"], args
        )
        self.assertIn("--service-name=" + objects.one("Service")["metadata"]["name"], args)
        self.assertNotIn("--cert-", " ".join(args))


class ModeChange(unittest.TestCase):
    def test_no_two_modes_share_a_secret(self):
        """cert-manager leaves its Secret behind, and Helm refuses to take over what it didn't create."""
        kept = render(by("selfManaged")).one("Secret")["metadata"]["name"]
        issued = {c["spec"]["secretName"] for c in render(by("certManager")).of("Certificate")}
        self.assertNotIn(kept, issued)


class Files(unittest.TestCase):
    """What certManager and existingSecret have in common."""

    def test_the_secret_is_mounted_where_the_flag_says(self):
        for mode, secret in (("certManager", "rel-peerpods-tls"), ("existingSecret", "mine")):
            with self.subTest(mode):
                self.assertEqual(container(by(mode))["volumeMounts"], [MOUNT])
                self.assertEqual(pod_spec(by(mode))["volumes"], [{"name": "tls", "secret": {"secretName": secret}}])
                args = container(by(mode))["args"]
                self.assertLessEqual({"--cert-dir=" + MOUNT["mountPath"], "--cert-hold=60s"}, set(args))
                self.assertNotIn("--self-managed", " ".join(args))

    def test_no_permission_and_no_token_where_none_is_used(self):
        for mode in ("certManager", "existingSecret"):
            with self.subTest(mode):
                self.assertIs(pod_spec(by(mode))["automountServiceAccountToken"], False)
                self.assertEqual(render(by(mode)).of("ClusterRole"), [])
                self.assertIs(pod_spec(by(mode, metrics={"auth": True}))["automountServiceAccountToken"], True)


class CertManager(unittest.TestCase):
    def test_a_chain_of_its_own(self):
        objects = render(by("certManager"))
        self.assertEqual(objects.one("Issuer", "-self-signed")["spec"], {"selfSigned": {}})
        ca, leaf = objects.one("Certificate", "-ca")["spec"], objects.one("Certificate", "rel-peerpods")["spec"]
        self.assertEqual((ca["isCA"], ca["issuerRef"]["name"]), (True, "rel-peerpods-self-signed"))
        self.assertEqual(ca["privateKey"]["rotationPolicy"], "Never", "the old CA must go on verifying")
        self.assertEqual(objects.one("Issuer", "-ca")["spec"], {"ca": {"secretName": ca["secretName"]}})
        self.assertEqual(leaf["issuerRef"], {"name": "rel-peerpods-ca"})
        self.assertEqual(leaf["dnsNames"], ["rel-peerpods.sys.svc"])
        self.assertEqual(leaf["duration"], "2160h")

    def test_the_users_issuer(self):
        objects = render(by("certManager with an issuer"))
        self.assertEqual(objects.of("Issuer"), [])
        self.assertEqual(objects.one("Certificate")["spec"]["issuerRef"], {"name": "pki", "kind": "ClusterIssuer"})

    def test_the_ca_is_injected(self):
        for mode in ("certManager", "certManager with an issuer"):
            objects = render(by(mode, webhookAnnotations={"a.b/c": "d"}))
            self.assertEqual(
                objects.one("MutatingWebhookConfiguration")["metadata"]["annotations"],
                {"cert-manager.io/inject-ca-from": "sys/rel-peerpods", "a.b/c": "d"},
            )
            objects.one("Certificate", "rel-peerpods")


class ExistingSecret(unittest.TestCase):
    def test_the_ca_bundle_is_the_users(self):
        bundle = webhook(by("existingSecret"))["clientConfig"]["caBundle"]
        self.assertEqual(base64.b64decode(bundle).decode(), PEM)

    def test_a_block_may_name_its_own(self):
        own = {"tls": {"mode": "existingSecret"}, **peerpods(tls={"existingSecret": {"name": "own", "caBundle": PEM}})}
        self.assertEqual(pod_spec(own)["volumes"][0]["secret"]["secretName"], "own")

    def test_both_halves_are_needed(self):
        for half in ({"name": "mine"}, {"caBundle": PEM}):
            with self.assertRaisesRegex(Refused, "needs tls.existingSecret.name and .caBundle, here or under peerpods"):
                render({"tls": {"mode": "existingSecret", "existingSecret": half}, **peerpods()})


if __name__ == "__main__":
    unittest.main()
