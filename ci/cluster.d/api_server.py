"""The API server of KUBECONFIG, for scripts that send more requests than kubectl does: its own come one after the other."""

import base64
import http.client
import json
import ssl
import subprocess
import tempfile
import threading
import urllib.parse

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"


class ApiError(Exception):
    """A response that is no success."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class ApiServer:
    """A client with one connection a thread."""

    def __init__(self):
        view = subprocess.run(["kubectl", "config", "view", "--raw", "--flatten", "--minify", "-o", "json"], capture_output=True, check=True)
        config = json.loads(view.stdout)
        (cluster,), (user,) = ([entry[kind] for entry in config[f"{kind}s"]] for kind in ("cluster", "user"))
        self._address = urllib.parse.urlsplit(cluster["server"]).netloc
        decoded = [base64.b64decode(owner[f"{key}-data"]) for owner, key in ((cluster, "certificate-authority"), (user, "client-certificate"), (user, "client-key"))]
        self.authority = decoded[0].decode()
        self._tls = ssl.create_default_context(cadata=self.authority)
        # Only from a file.
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(b"\n".join(decoded[1:]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)
        self._threads = threading.local()

    def request(self, method, path, body=None, media_type="application/json"):
        """The status and the object of the response; ApiError if the API server refuses the request."""
        connection = getattr(self._threads, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection(self._address, context=self._tls, timeout=60)
            self._threads.connection = connection
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": media_type})
            with connection.getresponse() as response:
                answer = response.read()
        except (OSError, http.client.HTTPException):
            # The connection cannot be used again.
            connection.close()
            self._threads.connection = None
            raise
        if response.status >= 300:
            raise ApiError(response.status, json.loads(answer)["message"])
        return response.status, json.loads(answer)

    def get(self, path):
        return self.request("GET", path)[1]
