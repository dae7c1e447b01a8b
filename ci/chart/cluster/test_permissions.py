"""What a webhook's account may do: its Secret and its configuration in self-managed mode, nothing otherwise."""

from api import ClusterTest, Failed, as_list, kubectl, request

from matrix import TLS
from rendering import peerpods

GROUPS = {"mutatingwebhookconfigurations": "admissionregistration.k8s.io"}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]


class Permissions(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.where = cls.namespace("chart-permissions")
        cls.install("may", cls.where, peerpods(nodeSelector={"no": "where"}))
        cls.install(
            "not", cls.where, {**TLS["existing-secret"], **peerpods(nodeSelector={"no": "where"})}
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
            self.may("may", "secrets", "may-peerpods-self-managed"), {"get", "watch", "patch", "create"}
        )
        self.assertEqual(
            self.may("may", "mutatingwebhookconfigurations", "may-peerpods"), {"get", "watch", "patch"}
        )

    def test_it_may_have_its_secret_back_and_make_no_other(self):
        token = kubectl("create", "token", "may-peerpods", "--namespace", self.where).strip()
        secrets = f"/api/v1/namespaces/{self.where}/secrets"

        def make(name, method="PATCH", path="/{}?fieldManager=test"):
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
            media = "application/json" if method == "POST" else "application/apply-patch+yaml"
            return request(method, secrets + path.format(name), body, token, media)[0]

        kubectl("delete", "secret", "may-peerpods-self-managed", "--namespace", self.where)
        self.assertEqual(make("may-peerpods-self-managed", "POST", ""), 403)
        self.assertEqual(make("may-peerpods-self-managed"), 201)
        self.assertEqual(make("another"), 403)

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
        """With a field selector: the only watch that a permission by name allows."""

        def watched(selector):
            path = f"/api/v1/namespaces/{self.where}/secrets?watch=true&timeoutSeconds=1{selector}"
            return kubectl("get", "--raw", path, "--as", f"system:serviceaccount:{self.where}:may-peerpods")

        self.assertIn('"ADDED"', watched("&fieldSelector=metadata.name%3Dmay-peerpods-self-managed"))
        with self.assertRaisesRegex(Failed, "cannot watch resource"):
            watched("")
