"""Every way of keeping certificates with every set of options."""

from rendering import peerpods

TLS = {
    "selfManaged": {},
    "certManager": {},
    "certManager with an issuer": {
        "mode": "certManager",
        "certManager": {"issuerRef": {"name": "pki", "kind": "ClusterIssuer"}},
    },
    "existingSecret": {
        "existingSecret": {"name": "mine", "caBundle": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"}
    },
}
OPTIONS = {
    "defaults": {},
    "everything": {
        "image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "resources": {"limits": {"cpu": 1}},
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "hostNetwork": True,
        "namespaceSelector": {
            "matchLabels": {"team": "a"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["x", "y"]}],
        },
        "objectSelector": {"matchExpressions": [{"key": "shape", "operator": "Exists"}]},
        "matchConditions": [{"name": "small", "expression": "size(object.spec.containers) < 5"}],
        "webhookAnnotations": {"a.b/c": "d"},
        "podAnnotations": {"a.b/c": "d"},
        "podLabels": {"team": "a"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraArgs": ["--max-in-flight=100"],
        "podDisruptionBudget": {"minAvailable": "50%"},
        "metrics": {"auth": True, "monitor": {"enabled": True, "labels": {"prometheus": "main"}}},
        "networkPolicy": {
            "enabled": True,
            "webhookFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "metricsFrom": [{"namespaceSelector": {}}],
            "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}],
        },
        "tlsMinVersion": "VersionTLS12",
        "tlsCipherSuites": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "config": {"sizing": "effective", "headroom": {"memory": "+256Mi"}},
        "nodeCapacity": {"enabled": True, "count": 20},
    },
    "least": {
        "replicas": None,
        "resources": None,
        "topologySpreadConstraints": None,
        "priorityClassName": None,
        "nodeSelector": {"kubernetes.io/os": None},
        "podDisruptionBudget": {"enabled": False},
    },
    "pod monitor": {
        "metrics": {"monitor": {"enabled": True, "kind": "PodMonitor"}},
        "networkPolicy": {"enabled": True},
    },
}


def matrix():
    """Each point: (name, values)."""
    for mode, tls in TLS.items():
        for name, options in OPTIONS.items():
            yield f"{mode}, {name}", {"tls": {"mode": mode, **tls}, **peerpods(**options)}
