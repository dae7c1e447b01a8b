"""What `peerpods advertise` can do to nodes with its token: one resource, on its own node."""

from api import ClusterTest, eventually, get, kubectl, request

from rendering import peerpods

ACCOUNT = "cap-peerpods-node-capacity"
VM = "kata.peerpods.io/vm"
CAPACITY = {"cpu": "4", "memory": "8Gi", VM: "3"}


class NodeCapacity(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.where = cls.namespace("chart-capacity")
        cls.mine, cls.other = (f"chart-{name}-{cls.RUN}" for name in ("mine", "other"))
        for name in (cls.mine, cls.other):
            cls.create(
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": name, "labels": {"a": "b"}},
                    "status": {"capacity": CAPACITY, "allocatable": CAPACITY},
                }
            )
        cls.install(
            "cap", cls.where, peerpods(nodeSelector={"no": "where"}, nodeCapacity={"enabled": True, "nodeSelector": {"no": "where"}})
        )
        cls.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "advertiser", "namespace": cls.where},
                "spec": {
                    "nodeName": cls.mine,
                    "serviceAccountName": ACCOUNT,
                    "containers": [{"name": "main", "image": "example.com/main"}],
                },
            }
        )
        cls.bound = kubectl(
            "create",
            "token",
            ACCOUNT,
            "--namespace",
            cls.where,
            "--bound-object-kind=Pod",
            "--bound-object-name=advertiser",
        ).strip()
        cls.unbound = kubectl("create", "token", ACCOUNT, "--namespace", cls.where).strip()
        eventually(lambda: cls.patch({"status": {"capacity": {"cpu": "40"}}}, dry_run=True)[0] == 422)

    @classmethod
    def patch(cls, body, node=None, token=None, subresource="/status", dry_run=False):
        query = "?dryRun=All" if dry_run else ""
        return request("PATCH", f"/api/v1/nodes/{node or cls.mine}{subresource}{query}", body, token or cls.bound)

    def test_it_sets_changes_and_removes_its_resource(self):
        for number in ("10", "0", None):
            status, node = self.patch({"status": {"capacity": {VM: number}, "allocatable": {VM: number}}})
            self.assertEqual(status, 200, node)
            self.assertEqual(node["status"]["capacity"].get(VM), number)

    def test_everything_else_is_denied(self):
        own = {"status": {"capacity": {VM: "9"}}}
        before = get("node", self.mine)["spec"]
        for why, body, where in (
            ("only the status of the node that the pod runs on", own, {"node": self.other}),
            ("only the status of the node that the pod runs on", own, {"token": self.unbound}),
            (f"only {VM}", {"status": {"capacity": {"cpu": "400"}}}, {}),
            (f"only {VM}", {"status": {"capacity": {VM: "9", "cpu": "400"}}}, {}),
            (f"only {VM}", {"status": {"allocatable": {"memory": None}}}, {}),
            (f"only {VM}", {"status": {"allocatable": {"example.com/gpu": "1"}}}, {}),
            (f"only {VM}", {"status": {"capacity": None}}, {}),
            ("may be changed", {"status": None}, {}),
            ("only capacity and allocatable", {"status": {"nodeInfo": {"kernelVersion": "1"}}}, {}),
            (
                "only capacity and allocatable",
                {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}},
                {},
            ),
            ("only capacity and allocatable", {"status": {"images": [{"names": ["a"], "sizeBytes": 1}]}}, {}),
            ("only the node's status", {"metadata": {"labels": {"a": "c"}}}, {}),
            ("only the node's status", {"metadata": {"annotations": {"a": "b"}}}, {}),
            ("only the node's status", {"metadata": {"finalizers": ["a.b/c"]}}, {}),
            ("cannot patch resource", {"spec": {"unschedulable": True}}, {"subresource": ""}),
        ):
            with self.subTest(body, **where):
                status, answer = self.patch(body, **where)
                self.assertIn(status, (403, 422), answer)
                self.assertIn(why, answer["message"])
        self.patch({"spec": {"unschedulable": True}})
        self.assertEqual(get("node", self.mine)["spec"], before, "the status of a node doesn't carry its spec")

    def test_others_are_not_concerned(self):
        kubectl(
            "patch",
            "node",
            self.other,
            "--subresource=status",
            "--type=merge",
            "--patch",
            '{"status": {"capacity": {"cpu": "5"}}}',
        )

    def test_the_policy_is_well_typed(self):
        policy = eventually(lambda: get("validatingadmissionpolicy", ACCOUNT).get("status"))
        self.assertEqual(policy["typeChecking"], {})
