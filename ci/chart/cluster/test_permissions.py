"""What a webhook's account may do: its Secret and its configuration in self-managed mode, nothing otherwise."""

from api import ClusterTest, Failed, as_list, kubectl

from matrix import TLS
from rendering import peerpods

GROUPS = {"mutatingwebhookconfigurations": "admissionregistration.k8s.io"}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]


class Permissions(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.where = cls.namespace("chart-permissions")
        cls.install("may", cls.where, peerpods(replicas=0))
        cls.install(
            "not", cls.where, {"tls": {"mode": "existingSecret", **TLS["existingSecret"]}, **peerpods(replicas=0)}
        )

    def may(self, release, resource, name="", namespace=None):
        """The verbs that the release's webhook may use."""
        reviews = as_list(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": f"system:serviceaccount:{self.where}:{release}-peerpods",
                    "groups": ["system:serviceaccounts", "system:authenticated"],
                    "resourceAttributes": {
                        "verb": verb,
                        "group": GROUPS.get(resource, ""),
                        "resource": resource,
                        "name": name,
                        "namespace": "" if resource in GROUPS else namespace or self.where,
                    },
                },
            }
            for verb in VERBS
        )
        answers = kubectl(
            "create", "--filename", "-", "--output", 'jsonpath={.status.allowed}{"\\n"}', stdin=reviews
        ).split()
        return {verb for verb, allowed in zip(VERBS, answers, strict=True) if allowed == "true"}

    def test_self_managed(self):
        self.assertEqual(
            self.may("may", "secrets", "may-peerpods-self-managed"), {"get", "list", "watch", "update", "patch"}
        )
        self.assertEqual(
            self.may("may", "mutatingwebhookconfigurations", "may-peerpods"), {"get", "list", "watch", "patch"}
        )

    def test_nothing_else(self):
        for resource, name, namespace in (
            ("secrets", "", None),
            ("secrets", "not-peerpods-tls", None),
            ("secrets", "may-peerpods-self-managed", "default"),
            ("mutatingwebhookconfigurations", "", None),
            ("mutatingwebhookconfigurations", "not-peerpods", None),
            ("pods", "", None),
            ("configmaps", "", None),
            ("nodes", "", None),
        ):
            with self.subTest(resource, name=name, namespace=namespace):
                self.assertEqual(self.may("may", resource, name, namespace), set())

    def test_nothing_at_all_with_an_existing_secret(self):
        for resource, name in (
            ("secrets", "mine"),
            ("secrets", "not-peerpods-tls"),
            ("mutatingwebhookconfigurations", "not-peerpods"),
        ):
            with self.subTest(resource, name=name):
                self.assertEqual(self.may("not", resource, name), set())

    def test_its_secret_can_be_watched_by_name(self):
        """Which takes a list and a watch with a field selector: the only ones that a permission by name allows."""

        def listed(*selector):
            return kubectl(
                "get",
                "secrets",
                "--namespace",
                self.where,
                "--output",
                "name",
                "--as",
                f"system:serviceaccount:{self.where}:may-peerpods",
                *selector,
            ).split()

        self.assertEqual(
            listed("--field-selector=metadata.name=may-peerpods-self-managed"), ["secret/may-peerpods-self-managed"]
        )
        with self.assertRaisesRegex(Failed, "cannot list resource"):
            listed()
