"""Pods from `kubectl get pods -o json` as bars: for each owner, how many are in each group."""

import collections
import json
import sys

GROUP = "placement.podshaper.dev/group"
WIDTH = 60
COLOURS = ("\033[36m", "\033[33m", "\033[35m", "\033[32m") if sys.stdout.isatty() else ("", "", "", "")
PLAIN = "\033[0m" if sys.stdout.isatty() else ""

owners = collections.defaultdict(collections.Counter)
for pod in json.load(sys.stdin)["items"]:
    if "deletionTimestamp" not in pod["metadata"]:
        group = pod["metadata"].get("annotations", {}).get(GROUP, "unplaced")
        owners[pod["metadata"]["ownerReferences"][0]["name"]][group] += 1
groups = sorted({group for counts in owners.values() for group in counts})
most = max((sum(counts.values()) for counts in owners.values()), default=1)
print(f"{sys.argv[1]}:")
for owner, counts in sorted(owners.items()):
    bars, marks = "", "█▒░▓"
    for index, group in enumerate(groups):
        length = round(counts[group] * min(WIDTH, most) / most)
        bars += COLOURS[index % 4] + marks[index % 4] * length + PLAIN
    figures = ", ".join(f"{group} {counts[group]}" for group in groups)
    print(f"  {owner:32} {bars}  {figures}")
