"""What each value does."""

import hashlib
import json
import unittest

import yaml

from rendering import Refused, container, peerpods, pod_spec, render, webhook

DIGEST = "sha256:" + "0123456789abcdef" * 4


class Image(unittest.TestCase):
    def test_a_tag_replaces_the_charts_version_and_a_digest_the_tag(self):
        self.assertEqual(container(peerpods(image={"tag": "1.2.3"}))["image"], "ghcr.io/podshaper/peerpods:1.2.3")
        self.assertEqual(
            container(peerpods(image={"tag": "1.2.3", "digest": DIGEST}))["image"],
            f"ghcr.io/podshaper/peerpods@{DIGEST}",
        )
        self.assertEqual(
            container(peerpods(image={"repository": "localhost:5000/a/b"}))["image"].split(":")[:2],
            ["localhost", "5000/a/b"],
        )

    def test_every_pod_runs_the_same_image(self):
        objects = render(peerpods(image={"digest": DIGEST}, nodeCapacity={"enabled": True}))
        images = {
            c["image"]
            for o in objects
            if o["kind"] in ("Deployment", "DaemonSet")
            for c in o["spec"]["template"]["spec"]["containers"]
        }
        images.add(objects.one("Pod")["spec"]["containers"][0]["image"])
        self.assertEqual(images, {f"ghcr.io/podshaper/peerpods@{DIGEST}"})


class Selection(unittest.TestCase):
    """The user's selectors and conditions come on top of the exclusions."""

    SELECTOR = {
        "matchLabels": {"team": "a"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}],
    }

    def test_selectors_add_up(self):
        plain = webhook(peerpods())
        for selector in ("namespaceSelector", "objectSelector"):
            narrowed = webhook(peerpods(**{selector: self.SELECTOR}))[selector]
            self.assertEqual(narrowed["matchLabels"], {"team": "a"})
            self.assertEqual(
                narrowed["matchExpressions"], plain[selector]["matchExpressions"] + self.SELECTOR["matchExpressions"]
            )

    def test_conditions_add_up(self):
        condition = {"name": "small", "expression": "size(object.spec.containers) < 5"}
        self.assertEqual(
            webhook(peerpods(matchConditions=[condition]))["matchConditions"],
            webhook(peerpods())["matchConditions"] + [condition],
        )


class Pod(unittest.TestCase):
    def test_its_labels_cannot_be_taken_over(self):
        values = peerpods(podLabels={"app.kubernetes.io/name": "x", "podshaper.dev/skip": "false", "team": "a"})
        labels = render(values).one("Deployment")["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(
            (labels["app.kubernetes.io/name"], labels["podshaper.dev/skip"], labels["team"]), ("peerpods", "true", "a")
        )

    def test_constraints_keep_a_label_selector_of_the_users(self):
        mine = {
            "maxSkew": 2,
            "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"a": "b"}},
        }
        self.assertEqual(pod_spec(peerpods(topologySpreadConstraints=[mine]))["topologySpreadConstraints"], [mine])

    def test_a_minimum_replaces_the_maximum_of_a_disruption_budget(self):
        for minimum in (0, 1, "50%"):
            budget = render(peerpods(podDisruptionBudget={"minAvailable": minimum})).one("PodDisruptionBudget")["spec"]
            self.assertEqual(budget["minAvailable"], minimum)
            self.assertNotIn("maxUnavailable", budget)

    def test_on_the_hosts_network_a_new_pod_may_take_an_old_ones_ports(self):
        objects = render(peerpods(hostNetwork=True, ports={"webhook": 10250}))
        deployment = objects.one("Deployment")["spec"]
        self.assertEqual(deployment["strategy"]["rollingUpdate"], {"maxUnavailable": 1, "maxSurge": 1})
        self.assertEqual(deployment["template"]["spec"]["dnsPolicy"], "ClusterFirstWithHostNet")

    def test_own_flags_come_before_the_users(self):
        self.assertEqual(
            container(peerpods(extraArgs=["--pod-vm-extended-resource=a/b"]))["args"][-1],
            "--pod-vm-extended-resource=a/b",
        )

    def test_tls_settings_are_environment_variables(self):
        env = container(
            peerpods(tlsMinVersion="VersionTLS12", tlsCipherSuites="A,B", extraEnv=[{"name": "X", "value": "1"}])
        )["env"]
        self.assertEqual(
            env[1:],
            [
                {"name": "TLS_MIN_VERSION", "value": "VersionTLS12"},
                {"name": "TLS_CIPHER_SUITES", "value": "A,B"},
                {"name": "X", "value": "1"},
            ],
        )


class Config(unittest.TestCase):
    CONFIG = {"sizing": "effective", "runtimeClasses": {"kata-tdx": {"headroom": {"memory": "10%"}}}}

    def test_it_is_a_file_that_the_flag_names(self):
        objects = render(peerpods(config=self.CONFIG))
        (file,) = objects.one("ConfigMap")["data"]
        self.assertEqual(yaml.safe_load(objects.one("ConfigMap")["data"][file]), self.CONFIG)
        self.assertEqual(
            container(peerpods(config=self.CONFIG))["volumeMounts"],
            [{"name": "config", "mountPath": "/etc/podshaper", "readOnly": True}],
        )
        self.assertIn(f"--config=/etc/podshaper/{file}", container(peerpods(config=self.CONFIG))["args"])

    def test_a_change_rolls_the_pods(self):
        def annotations(config):
            return (
                render(peerpods(config=config)).one("Deployment")["spec"]["template"]["metadata"].get("annotations", {})
            )

        self.assertEqual(annotations({}), {})
        self.assertEqual(len(annotations(self.CONFIG)["podshaper.dev/config"]), len(hashlib.sha256().hexdigest()))
        self.assertNotEqual(annotations(self.CONFIG), annotations({"sizing": "compat"}))


class Metrics(unittest.TestCase):
    def test_authentication(self):
        objects = render(peerpods(metrics={"auth": True}))
        self.assertIn("--metrics-auth=always", container(peerpods(metrics={"auth": True}))["args"])
        rules = objects.one("ClusterRole", "rel-peerpods")["rules"]
        self.assertEqual(
            [r["verbs"] for r in rules if r["resources"][0] in ("tokenreviews", "subjectaccessreviews")],
            [["create"], ["create"]],
        )
        self.assertEqual(
            objects.one("ClusterRole", "-metrics-reader")["rules"],
            [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
        )

    def test_monitors(self):
        for kind, field in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
            monitor = render(
                peerpods(
                    metrics={
                        "monitor": {
                            "enabled": True,
                            "kind": kind,
                            "labels": {"prometheus": "a"},
                            "endpoint": {"path": "/m"},
                        }
                    }
                )
            ).one(kind)
            self.assertEqual(monitor["spec"][field], [{"port": "metrics", "interval": "30s", "path": "/m"}])
            self.assertEqual(monitor["metadata"]["labels"]["prometheus"], "a")

    def test_a_monitor_of_authenticated_metrics_verifies_the_server(self):
        values = peerpods(
            metrics={
                "auth": True,
                "monitor": {"enabled": True, "endpoint": {"tlsConfig": {"insecureSkipVerify": False}}},
            }
        )
        (endpoint,) = render(values).one("ServiceMonitor")["spec"]["endpoints"]
        self.assertEqual(endpoint["scheme"], "https")
        self.assertEqual(
            endpoint["tlsConfig"],
            {
                "serverName": "rel-peerpods.sys.svc",
                "insecureSkipVerify": False,
                "ca": {"secret": {"name": "rel-peerpods-self-managed", "key": "ca.crt"}},
            },
        )


class NetworkPolicy(unittest.TestCase):
    def test_the_api_server_is_reachable_only_if_it_is_called(self):
        policy = {"networkPolicy": {"enabled": True}}
        self.assertEqual(
            render(peerpods(**policy)).one("NetworkPolicy")["spec"]["egress"],
            [{"ports": [{"port": 443}, {"port": 6443}]}],
        )
        alone = render({"tls": {"mode": "certManager"}, **peerpods(**policy)}).one("NetworkPolicy")["spec"]
        self.assertNotIn("egress", alone)
        dns = [{"ports": [{"port": 53, "protocol": "UDP"}]}]
        more = {"tls": {"mode": "certManager"}, **peerpods(networkPolicy={"enabled": True, "egress": dns})}
        self.assertEqual(render(more).one("NetworkPolicy")["spec"]["egress"], dns)
        self.assertEqual(alone["policyTypes"], ["Ingress", "Egress"])

    def test_sources_may_be_limited(self):
        source = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
        ingress = render(peerpods(networkPolicy={"enabled": True, "webhookFrom": source})).one("NetworkPolicy")["spec"][
            "ingress"
        ]
        self.assertEqual(ingress, [{"ports": [{"port": "webhook"}], "from": source}, {"ports": [{"port": "metrics"}]}])


class NodeCapacity(unittest.TestCase):
    def spec(self, **capacity):
        objects = render(peerpods(podVMExtendedResource="example.com/vm", nodeCapacity={"enabled": True, **capacity}))
        return objects.one("DaemonSet")["spec"]["template"]["spec"], objects

    def test_nodes_advertise_what_pods_ask_for(self):
        spec, objects = self.spec()
        self.assertEqual(
            spec["containers"][0]["args"][:4],
            ["advertise", "--resource=example.com/vm", "--count=10", "--node-name=$(NODE_NAME)"],
        )
        self.assertEqual(spec["nodeSelector"], {"node.kubernetes.io/worker": ""})
        self.assertIn("example.com/vm may be changed", json.dumps(objects.one("ValidatingAdmissionPolicy")))

    def test_another_resource_and_count(self):
        spec, objects = self.spec(resource="a.b/c", count=0)
        self.assertLessEqual({"--resource=a.b/c", "--count=0"}, set(spec["containers"][0]["args"]))
        self.assertIn("resource == 'a.b/c'", json.dumps(objects.one("ValidatingAdmissionPolicy")))

    def test_the_policy_is_about_its_service_account(self):
        spec, objects = self.spec()
        (condition,) = objects.one("ValidatingAdmissionPolicy")["spec"]["matchConditions"]
        self.assertIn(f"'system:serviceaccount:sys:{spec['serviceAccountName']}'", condition["expression"])
        binding = objects.one("ValidatingAdmissionPolicyBinding")["spec"]
        self.assertEqual(
            binding,
            {"policyName": objects.one("ValidatingAdmissionPolicy")["metadata"]["name"], "validationActions": ["Deny"]},
        )


class Selftest(unittest.TestCase):
    def sent(self, values):
        """The namespace of the test and the pod that it sends."""
        objects = render(values)
        args = objects.one("Pod")["spec"]["containers"][0]["args"]
        (pod,) = (json.loads(a.removeprefix("--pod=")) for a in args if a.startswith("--pod="))
        (namespace,) = (a.removeprefix("--namespace=") for a in args if a.startswith("--namespace="))
        self.assertEqual(namespace, objects.one("Namespace")["metadata"]["name"])
        return objects.one("Namespace")["metadata"]["labels"], pod

    def test_the_pod_is_one_that_the_webhook_changes(self):
        _, pod = self.sent(peerpods(targetRuntimeClass="kata-a, kata-b"))
        self.assertEqual(pod["spec"]["runtimeClassName"], "kata-a")
        self.assertEqual(pod["spec"]["containers"][0]["resources"], {"requests": {"cpu": "1", "memory": "1Gi"}})

    def test_the_runtime_class_may_come_from_the_configuration(self):
        values = peerpods(targetRuntimeClass="", config={"runtimeClasses": {"kata-tdx": {}, "kata-snp": {}}})
        self.assertEqual(self.sent(values)[1]["spec"]["runtimeClassName"], "kata-snp")
        self.assertIn("--target-runtimeclass=", container(values)["args"])

    def test_it_is_decided_by_the_same_flags_as_the_webhook(self):
        values = peerpods(podVMExtendedResource="a.b/c", config={"sizing": "effective"})
        serve, selftest = container(values)["args"], render(values).one("Pod")["spec"]["containers"][0]["args"]
        self.assertLessEqual(
            {"--pod-vm-extended-resource=a.b/c", "--config=/etc/podshaper/config.yaml"}, set(serve) & set(selftest)
        )

    def test_namespace_and_pod_meet_the_selectors(self):
        selector = {
            "matchLabels": {"team": "a"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["x", "y"]},
                {"key": "shape", "operator": "Exists"},
                {"key": "not", "operator": "NotIn", "values": ["z"]},
                {"key": "never", "operator": "DoesNotExist"},
            ],
        }
        namespace, pod = self.sent(peerpods(namespaceSelector=selector, objectSelector=selector))
        for labels in (namespace, pod["metadata"]["labels"]):
            self.assertLessEqual({"team": "a", "tier": "x", "shape": ""}.items(), labels.items())
            self.assertFalse({"not", "never", "podshaper.dev/skip", "podshaper.dev/release"} & set(labels))

    def test_it_runs_only_when_asked(self):
        hooks = [o for o in render(peerpods()) if "selftest" in o["metadata"]["name"]]
        self.assertEqual(
            sorted(o["kind"] for o in hooks), ["Namespace", "Pod", "Role", "RoleBinding", "ServiceAccount"]
        )
        for hook in hooks:
            self.assertEqual(hook["metadata"]["annotations"]["helm.sh/hook"], "test")


class OwnTemplate(unittest.TestCase):
    def test_what_breaks_its_yaml_is_refused(self):
        with self.assertRaises(Refused):
            render(peerpods(targetRuntimeClass="a\nb: c"))


if __name__ == "__main__":
    unittest.main()
