"""The check before an installation or an upgrade: it has the settings of the webhook, and few rights."""

import json
import unittest

import yaml

from rendering import peerpods, render

ARCH = {
    "arch": {
        "enabled": True,
        "dockerConfigSecretName": "docker",
        "proxySecretName": "proxy",
        "registries": {"proxy": "http://proxy:3128"},
        "extraEnv": [
            {"name": "SET", "value": "1"},
            {"name": "OF_A_SECRET", "valueFrom": {"secretKeyRef": {"name": "later", "key": "k"}}},
        ],
    }
}
WEBHOOKS = ("arch", "custom-scheduler-annotations", "distributor", "flexdaemonset", "peerpods")


def check_objects(objects):
    return [o for o in objects if o["metadata"]["name"].endswith("-check")]


class Check(unittest.TestCase):
    def test_pod_has_the_image_and_the_arguments_of_the_webhook(self):
        for name in WEBHOOKS:
            with self.subTest(name):
                objects = render({name: {"enabled": True, "extraArgs": ["--max-in-flight=9"]}})
                (pod,) = objects.one("Pod", "-check")["spec"]["containers"]
                (webhook,) = objects.one("Deployment")["spec"]["template"]["spec"]["containers"]
                self.assertIn("--max-in-flight=9", pod["args"])
                added = ["--check", "--check-configuration=/etc/podshaper/webhook-configuration.json"]
                self.assertEqual(pod["args"], webhook["args"] + added)
                self.assertEqual(pod["image"], webhook["image"])
                self.assertEqual(pod["env"], webhook["env"])

    def test_files_are_those_of_the_webhook(self):
        objects = render(ARCH)
        data = objects.one("ConfigMap", "-check")["data"]
        self.assertEqual(json.loads(data["webhook-configuration.json"]), objects.one("MutatingWebhookConfiguration"))
        self.assertEqual(yaml.safe_load(data["config.yaml"]), yaml.safe_load(objects.one("ConfigMap", "-arch")["data"]["config.yaml"]))

    def test_objects_of_the_user_may_come_later(self):
        spec = render(ARCH).one("Pod", "-check")["spec"]
        self.assertEqual([v["secret"]["optional"] for v in spec["volumes"] if "secret" in v], [True, True])
        names = [variable["name"] for variable in spec["containers"][0]["env"]]
        self.assertIn("SET", names)
        self.assertNotIn("OF_A_SECRET", names)

    def test_every_object_is_a_hook_that_is_deleted(self):
        values = peerpods(networkPolicy={"enabled": True})
        objects = check_objects(render(values))
        kinds = {"ServiceAccount", "ConfigMap", "ClusterRole", "ClusterRoleBinding", "NetworkPolicy", "Pod"}
        self.assertEqual({o["kind"] for o in objects}, kinds)
        for obj in objects:
            annotations = obj["metadata"]["annotations"]
            self.assertEqual(annotations["helm.sh/hook"], "pre-install,pre-upgrade")
            self.assertEqual(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded,hook-failed")
            self.assertEqual(annotations["helm.sh/hook-weight"], "-1" if obj["kind"] == "Pod" else "-2")

    def test_only_right_is_the_one_configuration(self):
        rules = render(peerpods()).one("ClusterRole", "-check")["rules"]
        self.assertEqual(
            rules,
            [
                {
                    "apiGroups": ["admissionregistration.k8s.io"],
                    "resources": ["mutatingwebhookconfigurations"],
                    "resourceNames": ["rel-peerpods"],
                    "verbs": ["create", "patch"],
                }
            ],
        )
        without = check_objects(render(peerpods(rbac={"create": False})))
        self.assertEqual([o["kind"] for o in without if "Role" in o["kind"]], [])

    def test_account_of_the_user_is_used(self):
        objects = render(peerpods(serviceAccount={"create": False, "name": "given"}))
        self.assertEqual([o for o in check_objects(objects) if o["kind"] == "ServiceAccount"], [])
        self.assertEqual(objects.one("Pod", "-check")["spec"]["serviceAccountName"], "given")
        self.assertEqual(objects.one("ClusterRoleBinding", "-check")["subjects"][0]["name"], "given")

    def test_switch_removes_every_object(self):
        self.assertEqual(check_objects(render(peerpods(check={"enabled": False}))), [])
