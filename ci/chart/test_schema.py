"""Sweeps over all values; the cases that the schema refuses are in charts/podshaper/tests/schema_test.yaml."""

import copy
import json
import os
import re
import unittest
from concurrent.futures import ThreadPoolExecutor

import yaml

from rendering import CHART, Refused, peerpods, render

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

def paths(tree, path=()):
    for key, value in tree.items():
        yield (*path, key), value
        if isinstance(value, dict):
            yield from paths(value, (*path, key))


def put(values, path, value):
    """A copy of the values with this one at that path."""
    changed = copy.deepcopy(values)
    where = changed
    for key in path[:-1]:
        where = where.setdefault(key, {})
    where[path[-1]] = value
    return changed


def outcome(values):
    try:
        render(values)
        return "rendered"
    except Refused as refused:
        return str(refused)


def leaves(tree, path=()):
    for key, value in tree.items():
        # The resources of a container are passed on as a whole.
        if isinstance(value, dict) and value and key not in ("requests", "limits"):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def settings(tree, path=()):
    """The paths that a test sets. helm-unittest writes a path with dots as one key."""
    for key, value in tree.items():
        place = (*path, *re.sub(r"\[\d+\]", "", str(key)).split(".")) if not path else (*path, key)
        yield place
        if isinstance(value, dict):
            yield from settings(value, place)


def rendering_tests():
    """The values of each test that expects objects."""
    for suite in (CHART / "tests").glob("*.yaml"):
        content = yaml.safe_load(suite.read_text(encoding="utf-8"))
        for test in content["tests"]:
            if not any("failedTemplate" in check for check in test["asserts"]):
                yield from (content.get("set", {}), test.get("set", {}))


class Schema(unittest.TestCase):
    def test_null_and_empty_are_refused_or_rendered(self):
        """The schema refuses them, or they render. A template error would show internals of the chart."""
        everything = peerpods(
            nodeCapacity={"enabled": True},
            networkPolicy={"enabled": True},
            metrics={
                "auth": True,
                "monitor": {
                    "enabled": True,
                    "tokenSecret": {"name": "scraper"},
                    "endpoint": {"authorization": {"credentials": {"name": "scraper", "key": "token"}}},
                },
            },
        )
        cases = []
        for path, value in paths(VALUES):
            for place in [path, ("peerpods", *path[1:])] if path[0] == "defaults" else [path]:
                for odd in [None] + [kind() for kind in (dict, list, str) if isinstance(value, kind)]:
                    cases.append((place, odd, put(everything, place, odd)))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for (place, odd, _), answer in zip(cases, pool.map(lambda case: outcome(case[2]), cases), strict=True):
                with self.subTest(".".join(place), value=odd):
                    self.assertRegex(answer, "^rendered$|values don't meet the specifications of the schema")

    def test_every_block_knows_every_default(self):
        """The list of names is written out for each block, so that a misspelt one is named in the message."""
        common = set(SCHEMA["$defs"]["webhook"]["properties"])
        self.assertEqual(set(VALUES["defaults"]), common)
        for name, block in SCHEMA["properties"].items():
            for pattern in block.get("patternProperties", {}):
                self.assertEqual(set(re.findall(r"\w+", pattern)) - {"enabled", "tls", "fullnameOverride", "webhookConfigurationName"}, common, name)

    def test_every_value_is_in_the_schema_and_the_other_way_round(self):
        own = set(SCHEMA["properties"]["peerpods"]["properties"])
        self.assertLessEqual(own, set(VALUES["peerpods"]))

    def test_every_value_has_a_rendering_test(self):
        places = {place for values in rendering_tests() for place in settings(values)}
        # A block has the values of `defaults`, and `tls`.
        places |= {("defaults", *place[1:]) for place in places if place[0] in SCHEMA["properties"]}
        places |= {place[1:] for place in places if place[1:2] == ("tls",)}
        untested = {".".join(leaf) for leaf in leaves(VALUES) if leaf not in places}
        self.assertEqual(untested, set())


if __name__ == "__main__":
    unittest.main()
