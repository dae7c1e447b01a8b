"""What the webhooks can change in pods with their tokens: the fields that they write. Updates of others are not evaluated."""

import json

from api import ClusterTest, eventually, get, kubectl, request

RELEASE = "writes"
GATE = "podshaper.dev/arch"
PLACED = {
    "metadata": {
        "labels": {"podshaper.dev/placed": "distributor"},
        "annotations": {
            "placement.podshaper.dev/slot": "1",
            "placement.podshaper.dev/estimated": None,
            "controller.kubernetes.io/pod-deletion-cost": "5",
        },
    }
}
WRITERS = ("arch", "custom-scheduler-annotations", "distributor", "flexdaemonset")
# The message of the policy, and the patch.
FORBIDDEN = (
    ("spec", [{"op": "replace", "path": "/spec/containers/0/image", "value": "example.com/other"}]),
    ("spec", [{"op": "replace", "path": "/spec/initContainers/0/image", "value": "example.com/other"}]),
    ("spec", [{"op": "add", "path": "/spec/activeDeadlineSeconds", "value": 1}]),
    ("labels and annotations", [{"op": "add", "path": "/metadata/labels/app", "value": "bank"}]),
    ("labels and annotations", [{"op": "remove", "path": "/metadata/labels/app"}]),
    ("labels and annotations", [{"op": "add", "path": "/metadata/labels/tier", "value": "front"}]),
    ("labels and annotations", [{"op": "add", "path": "/metadata/annotations/iam.example.com~1role", "value": "admin"}]),
    ("labels and annotations", [{"op": "add", "path": "/metadata/labels/podshaper.dev.example.com~1a", "value": "b"}]),
    ("finalizers and owners", [{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/stay"]}]),
    (
        "finalizers and owners",
        [
            {
                "op": "add",
                "path": "/metadata/ownerReferences",
                "value": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"}],
            }
        ],
    ),
)
TOLERATION = [{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "a", "operator": "Exists"}}]
UNGATED = [
    {"op": "remove", "path": "/spec/schedulingGates/0"},
    {"op": "remove", "path": "/metadata/labels/podshaper.dev~1arch-gated"},
    {"op": "add", "path": "/metadata/annotations/podshaper.dev~1arch", "value": "amd64"},
    {
        "op": "add",
        "path": "/spec/affinity",
        "value": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
                    ]
                }
            }
        },
    },
    *TOLERATION,
]


def pod(name, namespace, **spec):
    resources = {"requests": {"cpu": "100m"}}
    container = {"name": "main", "image": "example.com/main", "resources": resources}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": "shop", "podshaper.dev/skip": "true"},
            "annotations": {"a": "b"},
        },
        "spec": {"containers": [container], "initContainers": [{**container, "name": "first"}], **spec},
    }


class PodWrites(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.where, cls.pods = cls.namespace("chart-writes"), cls.namespace("chart-written")
        nowhere = {"enabled": True, "nodeSelector": {"no": "where"}}
        values = {name: {**nowhere} for name in WRITERS}
        values["arch"] |= {"liftGated": True, "prefetch": {"enabled": False}}
        values["crds"] = {"enabled": False}
        cls.install(RELEASE, cls.where, values)
        node = f"chart-written-{cls.RUN}"
        amounts = {"cpu": "4", "memory": "8Gi", "pods": "10"}
        status = {"capacity": amounts, "allocatable": amounts}
        cls.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "status": status})
        cls.create(pod("running", cls.pods, nodeName=node))
        gated = pod("gated", cls.pods, schedulingGates=[{"name": GATE}])
        gated["metadata"]["labels"]["podshaper.dev/arch-gated"] = "true"
        cls.create(gated)
        cls.tokens = {
            name: kubectl("create", "token", f"{RELEASE}-{name}", "--namespace", cls.where).strip() for name in WRITERS
        }
        # Since 1.32; served by default since 1.33.
        cls.resizes = any(resource["name"] == "pods/resize" for resource in json.loads(kubectl("get", "--raw", "/api/v1"))["resources"])
        for name in WRITERS:
            eventually(lambda name=name: cls.patch(name, FORBIDDEN[0][1])[0] == 422)

    @classmethod
    def patch(cls, webhook, body, name="running", subresource="", dry_run=True):
        query = "?dryRun=All" if dry_run else ""
        media = "json-patch" if isinstance(body, list) else "strategic-merge-patch" if subresource else "merge-patch"
        path = f"/api/v1/namespaces/{cls.pods}/pods/{name}{subresource}{query}"
        return request("PATCH", path, body, cls.tokens[webhook], f"application/{media}+json")

    def test_each_webhook_writes_its_fields(self):
        recorded = {"metadata": {"annotations": {"podshaper.dev/flexdaemonset": "{}"}}}
        resized = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "200m"}}}]}}
        for webhook, body, where in (
            ("distributor", PLACED, {}),
            ("custom-scheduler-annotations", PLACED, {}),
            ("arch", UNGATED, {"name": "gated"}),
            ("flexdaemonset", recorded, {}),
            ("flexdaemonset", resized, {"subresource": "/resize"}),
        ):
            with self.subTest(webhook, **where):
                status, answer = self.patch(webhook, body, **where)
                served = self.resizes or "subresource" not in where
                self.assertEqual(status, 200 if served else 404, answer)

    def test_other_fields_are_denied(self):
        for webhook in WRITERS:
            others = [] if webhook == "arch" else [("the spec may not", TOLERATION)]
            for why, body in (*FORBIDDEN, *others):
                with self.subTest(webhook, body=body):
                    status, answer = self.patch(webhook, body)
                    self.assertEqual(status, 422, answer)
                    self.assertIn(f"{RELEASE}-{webhook}-pods", answer["message"])
                    self.assertIn(why, answer["message"])

    def test_gates_belong_to_arch(self):
        for webhook in WRITERS[1:]:
            status, answer = self.patch(webhook, UNGATED[:1], name="gated")
            self.assertEqual(status, 422, answer)
            self.assertIn("the spec may not be changed", answer["message"])

    def test_a_resize_changes_resources_only(self):
        if not self.resizes:
            self.skipTest("the API server has no pods/resize")
        image = {"spec": {"containers": [{"name": "main", "image": "example.com/other"}]}}
        status, answer = self.patch("flexdaemonset", image, subresource="/resize")
        images = [container["image"] for container in answer.get("spec", {}).get("containers", [])]
        self.assertTrue(status == 422 or images == ["example.com/main"], answer)

    def test_updates_of_tenants_are_not_evaluated(self):
        """A tenant may change what the policies deny to the webhooks."""
        kubectl("create", "rolebinding", "tenant", "--namespace", self.pods, "--clusterrole=edit", "--user=tenant")
        for _, body in FORBIDDEN:
            arguments = ("--type=json", "--patch", json.dumps(body), "--dry-run=server", "--as=tenant")
            with self.subTest(body=body):
                kubectl("patch", "pod", "running", "--namespace", self.pods, *arguments)

    def test_the_policies_are_well_typed(self):
        for name in WRITERS:
            status = eventually(lambda name=name: get("validatingadmissionpolicy", f"{RELEASE}-{name}-pods").get("status"))
            self.assertEqual(status["typeChecking"], {}, name)
