"""What only arch has: its configuration file, credentials, the rights that options need, and the workloads that it sees."""

import unittest

import yaml
from rendering import Refused, container, render, webhook


def arch(**block):
    return {"arch": {"enabled": True, **block}}


def rights(**block):
    roles = [r for r in render(arch(**block)).of("ClusterRole") if r["metadata"]["name"] == "rel-arch"]
    return {(resource, verb) for role in roles for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


class Arch(unittest.TestCase):
    def config(self, **block):
        return yaml.safe_load(render(arch(**block)).one("ConfigMap")["data"]["config.yaml"])

    def test_the_sketch_goes_into_the_file(self):
        taint = {"key": "arch", "value": "arm64", "effect": "NoSchedule"}
        nodes = {"amd64": {}, "arm64": {"taintsToTolerate": [taint], "requireNodeLabels": [{"pool": "arm"}]}}
        config = self.config(architectures=nodes, pullAlwaysCacheTime="1h", registries={"plainHttp": ["r:5000"]})
        self.assertEqual(config["architectures"], nodes)
        self.assertEqual((config["ifNotPresentCacheTime"], config["pullAlwaysCacheTime"]), ("7d", "1h"))
        self.assertEqual(config["registries"], {"plainHttp": ["r:5000"]})
        self.assertIsNone(self.config().get("pullAlwaysCacheTime"))
        self.assertNotIn("enabled", self.config())

    def test_credentials_are_mounted(self):
        pod = render(arch(dockerConfigSecretName="pull")).one("Deployment")["spec"]["template"]["spec"]
        (volume,) = (v for v in pod["volumes"] if v["name"] == "docker-config")
        self.assertEqual(volume["secret"]["secretName"], "pull")
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        self.assertEqual(mounts["docker-config"], "/root/.docker")
        self.assertNotIn("docker-config", str(render(arch()).one("Deployment")))

    def test_rights_only_where_they_are_used(self):
        own = {("mutatingwebhookconfigurations", verb) for verb in ("get", "watch", "patch")}
        self.assertEqual(rights(), own)
        self.assertEqual(rights(pullSecrets={"enabled": True}), own | {("secrets", "get")})
        waits = {("pods", verb) for verb in ("get", "list", "watch", "patch")}
        self.assertEqual(rights(onUnknown="gate"), own | waits)
        self.assertEqual(rights(liftGated=True), own | waits)
        lifts = {v["name"]: v.get("value") for v in container(arch(liftGated=True))["env"]}
        self.assertEqual((lifts["ARCH_LIFT_GATED"], lifts.get("ARCH_PULL_SECRETS")), ("true", None))
        variables = {v["name"]: v.get("value") for v in container(arch(pullSecrets={"enabled": True}))["env"]}
        self.assertEqual(variables["ARCH_PULL_SECRETS"], "true")

    def test_workloads_are_seen_to_know_their_images(self):
        def seen(**block):
            return {resource for rule in webhook(arch(**block))["rules"] for resource in rule["resources"]}

        self.assertEqual(seen(), {"pods", "deployments", "statefulsets", "jobs", "cronjobs"})
        self.assertEqual(seen(prefetch={"enabled": False}), {"pods"})
        self.assertEqual({r for rule in webhook({"peerpods": {"enabled": True}})["rules"] for r in rule["resources"]}, {"pods"})

    def test_registries_can_be_reached(self):
        policy = render(arch(networkPolicy={"enabled": True})).one("NetworkPolicy")
        ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        self.assertLessEqual({53, 443}, ports)

    def test_what_cannot_work_is_refused(self):
        for block, place in (
            ({"onUnknown": "guess"}, "'/arch/onUnknown'"),
            ({"onUnknown": "default-architectures"}, "'/arch/defaultArchitectures'"),
            ({"ifNotPresentCacheTime": "7 days"}, "'/arch/ifNotPresentCacheTime'"),
            ({"architectures": {"arm64": {"taints": []}}}, "additional properties 'taints' not allowed"),
            ({"architectures": {"ARM": {}}}, "invalid propertyName 'ARM'"),
            ({"registries": {"insecure": []}}, "additional properties 'insecure' not allowed"),
            ({"cachetime": "1d"}, "additional properties 'cachetime' not allowed"),
        ):
            with self.subTest(block), self.assertRaises(Refused) as refused:
                render(arch(**block))
            self.assertIn(place, str(refused.exception))
