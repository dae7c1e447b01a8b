"""A Prometheus that scrapes the API server, and webhooks as the monitors of the chart say."""

import base64
import json
import os
import pathlib
import re
import subprocess
import tempfile
import urllib.parse
import urllib.request

import yaml

from api import eventually, get, kubectl

ADDRESS = "127.0.0.1:9090"


def secret_value(namespace, reference):
    data = get("secret", reference["name"], "--namespace", namespace)["data"]
    return base64.b64decode(data[reference["key"]]).decode()


def ca_text(namespace, reference):
    if "secret" in reference:
        return secret_value(namespace, reference["secret"])
    config_map = reference["configMap"]
    return get("configmap", config_map["name"], "--namespace", namespace)["data"][config_map["key"]]


def scrape_config(monitor):
    """The job of a ServiceMonitor or a PodMonitor, as the operator writes it."""
    namespace = monitor["metadata"]["namespace"]
    if monitor["kind"] == "PodMonitor":
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        role, labelled, port = "pod", "pod", "pod_container_port_name"
    else:
        (endpoint,) = monitor["spec"]["endpoints"]
        role, labelled, port = "endpointslice", "service", "endpointslice_port_name"

    def keep(label, value):
        return {"source_labels": [f"__meta_kubernetes_{label}"], "regex": re.escape(value), "action": "keep"}

    selected = [
        keep(f"{labelled}_label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}", value)
        for key, value in monitor["spec"]["selector"]["matchLabels"].items()
    ]
    job = {
        "job_name": f"{monitor['kind']}/{namespace}/{monitor['metadata']['name']}",
        "honor_labels": endpoint.get("honorLabels", False),
        "scheme": endpoint.get("scheme", "http"),
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["interval"],
        "kubernetes_sd_configs": [{"role": role, "kubeconfig_file": os.environ["KUBECONFIG"], "namespaces": {"names": [namespace]}}],
        "relabel_configs": [
            *selected,
            keep(port, endpoint["port"]),
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        ],
    }
    if tls := endpoint.get("tlsConfig"):
        job["tls_config"] = {"server_name": tls["serverName"], "ca": ca_text(namespace, tls["ca"])}
    if authorization := endpoint.get("authorization"):
        job["authorization"] = {"credentials": secret_value(namespace, authorization["credentials"])}
    return job


def api_server():
    """The job of the API server's own metrics."""
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]

    def text(value):
        return base64.b64decode(value).decode()

    return {
        "job_name": "apiserver",
        "scheme": "https",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [urllib.parse.urlsplit(cluster["server"]).netloc]}],
        "tls_config": {
            "ca": text(cluster["certificate-authority-data"]),
            "cert": text(user["client-certificate-data"]),
            "key": text(user["client-key-data"]),
        },
        # The other series of an API server would fill the memory of the test.
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": "apiserver_admission_webhook_.*", "action": "keep"}],
    }


class Prometheus:
    def __init__(self, monitors, rules):
        self.folder = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.folder.name)
        groups = [group for rule in rules for group in rule["spec"]["groups"]]
        (path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
        config = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [api_server(), *map(scrape_config, monitors)],
        }
        (path / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self.log = open(path / "log", "w+", encoding="utf-8")
        options = [f"--config.file={path}/prometheus.yaml", f"--storage.tsdb.path={path}/data", f"--web.listen-address={ADDRESS}"]
        self.process = subprocess.Popen([os.environ["PROMETHEUS"], *options], stdout=self.log, stderr=self.log)
        eventually(self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(self.log.read())
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}/-/ready") as answer:
                return answer.status == 200
        except OSError:
            return False

    def ask(self, path, **query):
        url = f"http://{ADDRESS}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """The samples: (labels, value)."""
        return [(sample["metric"], float(sample["value"][1])) for sample in self.ask("query", query=expression)["result"]]

    def firing(self):
        """Each alert that fires: (alert, webhook)."""
        alerts = self.ask("alerts")["alerts"]
        return {(alert["labels"]["alertname"], alert["labels"]["webhook"]) for alert in alerts if alert["state"] == "firing"}

    def unhealthy(self):
        """Targets that are not scraped: (job, error)."""
        targets = self.ask("targets")["activeTargets"]
        return [(target["labels"]["job"], target["lastError"]) for target in targets if target["health"] != "up"]

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()
