"""Which pods depend on a webhook that fails closed and is down."""

from api import ClusterTest, Failed, eventually, get, helm, kubectl

from rendering import peerpods
from second_webhook import chart_with_second_webhook

RUNTIME_CLASS = "chart-selection"


def pod(namespace, *, labels=None, annotations=None, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "pod-",
            "namespace": namespace,
            "labels": labels or {},
            "annotations": annotations or {},
        },
        "spec": {
            "containers": [{"name": "main", "image": "example.com/main"}],
            "runtimeClassName": RUNTIME_CLASS,
            **spec,
        },
    }


def refused(obj, webhook="peerpods"):
    """Whether the API server wanted to ask the webhook."""
    try:
        kubectl("create", "--dry-run=server", "--filename", "-", stdin=obj)
        return False
    except Failed as refusal:
        if f'failed calling webhook "{webhook}.podshaper.dev"' not in str(refusal):
            raise
        return True


class Selection(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.create(
            {
                "apiVersion": "node.k8s.io/v1",
                "kind": "RuntimeClass",
                "metadata": {"name": RUNTIME_CLASS},
                "handler": "runc",
            }
        )
        cls.plain = cls.namespace("chart-plain", {"team": "a"})
        cls.release = cls.namespace("chart-release")
        cls.other_release = cls.namespace("chart-other-release", {"podshaper.dev/release": "other"})
        cls.skipped = cls.namespace("chart-skipped", {"podshaper.dev/skip": "true"})
        cls.install("sel", cls.release, peerpods(nodeSelector={"no": "where"}))
        eventually(lambda: refused(pod(cls.plain)))

    def test_what_is_excluded(self):
        for obj, seen in (
            (pod(self.plain), True),
            (pod(self.plain, labels={"podshaper.dev/skip": "false"}), True),
            (pod(self.plain, annotations={"a.b/c": "d"}), True),
            (pod("default"), True),
            (pod(self.plain, runtimeClassName=None), False),
            (pod(self.plain, labels={"podshaper.dev/skip": "true"}), False),
            (pod(self.plain, annotations={"kubernetes.io/config.mirror": "hash"}, nodeName="node"), False),
            (pod(self.skipped), False),
            (pod(self.release), False),
            (pod(self.other_release), False),
            (pod("kube-system"), False),
        ):
            with self.subTest(obj["metadata"]):
                self.assertIs(refused(obj), seen)

    def test_selectors_and_conditions_of_the_user_narrow_it(self):
        self.addCleanup(helm, "upgrade", "sel", self.release, values=peerpods(nodeSelector={"no": "where"}))
        helm(
            "upgrade",
            "sel",
            self.release,
            values=peerpods(
                nodeSelector={"no": "where"},
                namespaceSelector={"matchLabels": {"team": "a"}},
                objectSelector={"matchExpressions": [{"key": "shape", "operator": "Exists"}]},
                matchConditions=[{"name": "named-main", "expression": "object.spec.containers[0].name == 'main'"}],
            ),
        )
        chosen = pod(self.plain, labels={"shape": ""})
        eventually(lambda: refused(chosen) and not refused(pod("default", labels={"shape": ""})))
        self.assertFalse(refused(pod(self.plain)))
        self.assertFalse(
            refused(pod(self.plain, labels={"shape": "", "podshaper.dev/skip": "true"})), "nothing lifts the exclusions"
        )
        chosen["spec"]["containers"][0]["name"] = "other"
        self.assertFalse(refused(chosen))


class Deadlock(ClusterTest):
    """Two releases, each with a webhook that wants every pod and fails closed, both down."""

    @classmethod
    def setUpClass(cls):
        directory, chart = chart_with_second_webhook()
        cls.addClassCleanup(directory.cleanup)
        # only namespaces of this test, so that the rest of the cluster goes on
        values = {
            "everypod": {
                "enabled": True,
                "replicas": 1,
                "namespaceSelector": {"matchLabels": {"chart-test": "deadlock"}},
            }
        }
        cls.ordinary = cls.namespace("chart-ordinary", {"chart-test": "deadlock"})
        cls.releases = [cls.namespace(name, {"chart-test": "deadlock"}) for name in ("chart-one", "chart-two")]
        for release, namespace in zip(("one", "two"), cls.releases, strict=True):
            cls.install(release, namespace, values, chart=chart)
        # each by the other's
        for namespace in cls.releases:
            eventually(lambda there=namespace: refused(pod(there, runtimeClassName=None), "everypod"))

    def pods(self, namespace):
        return {
            p["metadata"]["uid"]
            for p in get("pods", "--namespace", namespace)["items"]
            if "deletionTimestamp" not in p["metadata"]
        }

    def test_their_pods_come_back(self):
        before = {namespace: eventually(lambda there=namespace: self.pods(there)) for namespace in self.releases}
        for namespace in self.releases:
            kubectl("delete", "pods", "--all", "--now", "--wait=false", "--namespace", namespace)
        for namespace in self.releases:
            eventually(lambda there=namespace: self.pods(there) - before[there])

    def test_other_pods_do_not(self):
        self.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "ordinary", "namespace": self.ordinary},
                "spec": {
                    "selector": {"matchLabels": {"a": "b"}},
                    "template": {
                        "metadata": {"labels": {"a": "b"}},
                        "spec": {"containers": [{"name": "main", "image": "example.com/main"}]},
                    },
                },
            }
        )
        kubectl(
            "wait",
            "--for=condition=ReplicaFailure",
            "deployment/ordinary",
            "--namespace",
            self.ordinary,
            "--timeout=30s",
        )
        self.assertEqual(self.pods(self.ordinary), set())
