"""The value sets of charts/podshaper/ci: every way of keeping certificates with every set of options, and each webhook."""

import yaml

from rendering import CHART


def files(kind):
    """Each file of that kind: (name, values)."""
    for path in sorted((CHART / "ci").glob(f"{kind}-*.yaml")):
        yield path.stem.removeprefix(f"{kind}-"), yaml.safe_load(path.read_text(encoding="utf-8"))


TLS = dict(files("tls"))
OPTIONS = dict(files("options"))


def matrix():
    """Each point: (name, values)."""
    for mode, tls in TLS.items():
        for name, options in OPTIONS.items():
            yield f"{mode}, {name}", {**tls, **options}
