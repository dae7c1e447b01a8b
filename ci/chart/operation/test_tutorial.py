"""Every command of the tutorial, in a shell, with the output that the page shows."""

import os
import re
import subprocess
import tempfile
import unittest

from api import kubectl

from rendering import CHART, HELM, ROOT

PAGE = ROOT / "docs/tutorial.md"
PUBLISHED = "oci://ghcr.io/podshaper/charts/podshaper"
# The cluster of the tests reaches no registry.
HERE = "--set defaults.image.pullPolicy=Never --set arch.images[0].match=registry.k8s.io/* --set arch.images[0].architectures={amd64}"
SECTION = re.compile(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)")
BLOCK = re.compile(r"(?ms)^```(sh|text)\n(.*?)^```")


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


class Tutorial(unittest.TestCase):
    def test_page_does_what_it_says(self):
        text = PAGE.read_text(encoding="utf-8")
        self.assertIn(PUBLISHED, text)
        with tempfile.TemporaryDirectory() as folder:
            output = ""
            for heading, section in SECTION.findall(text.replace(PUBLISHED, f"'{CHART}' {HERE}")):
                for language, block in BLOCK.findall(section):
                    with self.subTest(heading, language=language):
                        if language == "sh":
                            output = self.run_commands(block, folder)
                        else:
                            expected = lines(block)
                            self.assertEqual(lines(output)[-len(expected) :], expected)
            self.assertEqual(os.listdir(folder), [])
        self.assertNotIn("tutorial", kubectl("get", "namespaces", "--output", "name"))

    def run_commands(self, block, folder):
        path = f"{os.path.dirname(HELM)}:{os.environ['PATH']}"
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout
