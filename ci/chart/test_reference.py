"""The reference lists every annotation and label that the sources name."""

import re
import subprocess
import unittest

from rendering import ROOT

KEYS = re.compile(
    r'"((?:podshaper\.dev|placement\.podshaper\.dev|flexdaemonsets\.xai|io\.katacontainers\.config\.hypervisor|controller\.kubernetes\.io)'
    r'(?:/|(?<=hypervisor)\.)[\w.-]+|custom-pod-schedule-strategy)"'
)
VERSION = re.compile(r"/v\d\w*$")


def sources():
    listed = subprocess.run(["git", "ls-files", "*.rs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / path for path in listed.split() if "/src/" in path and not path.startswith(("ci/", "shared/testing/"))]


class Reference(unittest.TestCase):
    def test_every_key_is_listed(self):
        # Modules of tests have keys of other projects.
        texts = [path.read_text(encoding="utf-8").split("#[cfg(test)]")[0] for path in sources() if "test" not in path.name]
        keys = {key for text in texts for key in KEYS.findall(text) if not VERSION.search(key)}
        self.assertGreater(len(keys), 15)
        page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
        missing = {key for key in keys if key.removeprefix("io.katacontainers.config.hypervisor.") not in page}
        self.assertEqual(missing, set())


if __name__ == "__main__":
    unittest.main()
