// controller-runtime is a webhook as kubebuilder lays one out: the typed pod is decoded, changed and encoded again,
// and the patch is what differs.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"podshaper.dev/ci/bench-servers/sizing"
)

type mutator struct {
	decoder admission.Decoder
}

func (m *mutator) Handle(_ context.Context, req admission.Request) admission.Response {
	var pod corev1.Pod
	if err := m.decoder.Decode(req, &pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if !sizing.Applies(&pod) {
		return admission.Allowed("")
	}
	mutate(&pod)
	mutated, err := json.Marshal(&pod)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(req.Object.Raw, mutated)
}

func mutate(pod *corev1.Pod) {
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	for name, value := range sizing.Annotations(pod) {
		pod.Annotations[name] = value
	}
	for i := range pod.Spec.InitContainers {
		pod.Spec.InitContainers[i].Resources = corev1.ResourceRequirements{}
	}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Resources = corev1.ResourceRequirements{}
	}
	pod.Spec.Containers[0].Resources = sizing.VM()
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9443", "address of the webhook")
	cert := flag.String("cert", "tls.crt", "certificate, PEM")
	key := flag.String("key", "tls.key", "its key in the same folder, PEM")
	flag.Parse()
	if err := run(*listen, *cert, *key); err != nil {
		log.Fatalf("controller-runtime: %v", err)
	}
}

func run(listen, cert, key string) error {
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return err
	}
	ctrl.SetLogger(zap.New())
	// Nothing is watched, so no API server is ever called.
	manager, err := ctrl.NewManager(&rest.Config{Host: "https://127.0.0.1:1"}, ctrl.Options{
		Scheme:  clientgoscheme.Scheme,
		Metrics: metricsserver.Options{BindAddress: "127.0.0.1:0"},
		WebhookServer: webhook.NewServer(webhook.Options{
			Host: host, Port: port,
			CertDir: filepath.Dir(cert), CertName: filepath.Base(cert), KeyName: filepath.Base(key),
			TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }},
		}),
	})
	if err != nil {
		return err
	}
	manager.GetWebhookServer().Register("/mutate-v1-pod", &webhook.Admission{
		Handler: &mutator{decoder: admission.NewDecoder(manager.GetScheme())},
	})
	return manager.Start(ctrl.SetupSignalHandler())
}
