"""The definitions in the chart, compared with the generated files and between webhooks."""

import unittest

import yaml

from matrix import files
from rendering import CHART, ROOT, helm, render


class Definitions(unittest.TestCase):
    def test_each_is_the_generated_one_and_comes_once(self):
        rendered = render(dict(files("webhook"))["all"]).of("CustomResourceDefinition")
        generated = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "crds").glob("*.yaml")]

        def by_name(definition):
            return definition["metadata"]["name"]

        self.assertEqual(
            [(by_name(definition), definition["spec"]) for definition in sorted(rendered, key=by_name)],
            [(by_name(definition), definition["spec"]) for definition in sorted(generated, key=by_name)],
        )

    def test_none_comes_with_a_webhook_without_kinds(self):
        for name in ("arch", "peerpods"):
            self.assertEqual(render({name: {"enabled": True}}).of("CustomResourceDefinition"), [])


class Webhooks(unittest.TestCase):
    def test_lint(self):
        for name, values in files("webhook"):
            with self.subTest(name):
                helm(values, "lint", "--strict", "--quiet", str(CHART))


if __name__ == "__main__":
    unittest.main()
