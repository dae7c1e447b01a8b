"""How a block is laid over `defaults`."""

import unittest

from rendering import container, peerpods, pod_spec, render, webhook


class Merging(unittest.TestCase):
    def test_defaults_hold_where_the_block_is_silent(self):
        values = {"defaults": {"timeoutSeconds": 7, "failurePolicy": "Ignore"}, **peerpods()}
        self.assertEqual(webhook(values)["timeoutSeconds"], 7)
        self.assertEqual(webhook(values)["failurePolicy"], "Fail", "peerpods' own default wins over defaults")

    def test_maps_merge(self):
        resources = container(peerpods(resources={"limits": {"cpu": "1"}}))["resources"]
        self.assertEqual(
            resources, {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
        )
        tls = {"tls": {"selfManaged": {"leafLifetime": "30d"}}, **peerpods(tls={"selfManaged": {"caLifetime": "60d"}})}
        self.assertLessEqual({"--leaf-lifetime=30d", "--ca-lifetime=60d"}, set(container(tls)["args"]))

    def test_lists_replace(self):
        values = {"defaults": {"tolerations": [{"key": "a"}, {"key": "b"}]}, **peerpods(tolerations=[{"key": "c"}])}
        self.assertEqual(pod_spec(values)["tolerations"], [{"key": "c"}])

    def test_false_zero_and_empty_win(self):
        budget = {
            "defaults": {"podDisruptionBudget": {"enabled": True}},
            **peerpods(podDisruptionBudget={"enabled": False}),
        }
        self.assertEqual(render(budget).of("PodDisruptionBudget"), [])
        self.assertEqual(render(peerpods(replicas=0)).one("Deployment")["spec"]["replicas"], 0)
        priority = {"defaults": {"priorityClassName": "high"}, **peerpods(priorityClassName="")}
        self.assertNotIn("priorityClassName", pod_spec(priority))
        self.assertNotIn("topologySpreadConstraints", pod_spec(peerpods(topologySpreadConstraints=[])))
        self.assertEqual(
            webhook(
                {"defaults": {"matchConditions": [{"name": "a", "expression": "true"}]}, **peerpods(matchConditions=[])}
            )["matchConditions"],
            webhook(peerpods())["matchConditions"],
        )

    def test_an_empty_map_changes_nothing(self):
        self.assertEqual(render(peerpods(resources={}, nodeSelector={}, metrics={}, tls={})), render(peerpods()))

    def test_null_removes(self):
        self.assertNotIn("replicas", render(peerpods(replicas=None)).one("Deployment")["spec"])
        self.assertNotIn("resources", container(peerpods(resources=None)))
        self.assertEqual(
            container(peerpods(resources={"limits": None}))["resources"], {"requests": {"cpu": "10m", "memory": "32Mi"}}
        )
        self.assertNotIn("nodeSelector", pod_spec(peerpods(nodeSelector={"kubernetes.io/os": None})))

    def test_null_in_place_of_a_blocks_own_default_means_defaults(self):
        self.assertEqual(webhook(peerpods(failurePolicy=None))["failurePolicy"], "Ignore")

    def test_numbers_stay_numbers(self):
        args = container(peerpods(ports={"webhook": 10250}, extraArgs=["--max-body-bytes=20000000"]))["args"]
        self.assertLessEqual({"--webhook-bind-address=:10250", "--max-body-bytes=20000000"}, set(args))
        config = render(peerpods(config={"gpus": {"a.b/on": 1000000}, "headroom": {"vcpus": 0.5}, "overhead": False})).one("ConfigMap")["data"][
            "config.yaml"
        ]
        self.assertEqual(config, 'gpus:\n  a.b/on: 1000000\nheadroom:\n  vcpus: 0.5\noverhead: false')


if __name__ == "__main__":
    unittest.main()
