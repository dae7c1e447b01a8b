// net-http is a webhook of Go's own HTTPS server and Kubernetes' types: the pod is decoded to decide about it, the patch
// is written by hand.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"maps"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"podshaper.dev/ci/bench-servers/sizing"
)

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

func patch(pod *corev1.Pod) []operation {
	var operations []operation
	add := func(path string, value any) {
		operations = append(operations, operation{Op: "add", Path: path, Value: value})
	}
	annotations := sizing.Annotations(pod)
	if pod.Annotations == nil {
		add("/metadata/annotations", annotations)
	} else {
		for _, name := range slices.Sorted(maps.Keys(annotations)) {
			add("/metadata/annotations/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name), annotations[name])
		}
	}
	drop := func(list string, containers []corev1.Container) {
		for i, container := range containers {
			if len(container.Resources.Requests)+len(container.Resources.Limits)+len(container.Resources.Claims) > 0 {
				operations = append(operations, operation{Op: "remove", Path: fmt.Sprintf("/spec/%s/%d/resources", list, i)})
			}
		}
	}
	drop("initContainers", pod.Spec.InitContainers)
	drop("containers", pod.Spec.Containers)
	add("/spec/containers/0/resources", sizing.VM())
	return operations
}

func mutate(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(w, "no AdmissionReview", http.StatusBadRequest)
		return
	}
	var pod corev1.Pod
	if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	response := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if sizing.Applies(&pod) {
		encoded, err := json.Marshal(patch(&pod))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		jsonPatch := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = encoded, &jsonPatch
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response}); err != nil {
		log.Printf("net-http: %v", err)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9443", "address of the webhook")
	cert := flag.String("cert", "tls.crt", "certificate, PEM")
	key := flag.String("key", "tls.key", "its key, PEM")
	flag.Parse()
	http.HandleFunc("POST /mutate-v1-pod", mutate)
	server := http.Server{Addr: *listen, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13}}
	log.Fatalf("net-http: %v", server.ListenAndServeTLS(*cert, *key))
}
