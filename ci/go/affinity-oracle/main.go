// affinity-oracle says which nodes Kubernetes' own scheduler would let pods run on.
//
// It reads a JSON list of v1.Node, then one v1.Pod a line, and answers each pod with a line: for each node whether the pod's
// node selector and required node affinity select it, and whether the pod tolerates its taints.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"log"
	"os"

	v1 "k8s.io/api/core/v1"
	toleration "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

type answer struct {
	// Selected lists the nodes that the node selector and affinity allow.
	Selected []bool `json:"selected"`
	// Tolerated lists the nodes with taints that the pod tolerates.
	Tolerated []bool `json:"tolerated"`
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	var nodes []v1.Node
	if err := decoder.Decode(&nodes); err != nil {
		log.Fatalf("affinity-oracle: the nodes: %v", err)
	}
	for decoder.More() {
		var pod v1.Pod
		if err := decoder.Decode(&pod); err != nil {
			log.Fatalf("affinity-oracle: a pod: %v", err)
		}
		affinity := nodeaffinity.GetRequiredNodeAffinity(&pod)
		var result answer
		for i := range nodes {
			node := &nodes[i]
			// A term that can't be parsed selects nothing, which is what counts.
			selected, _ := affinity.Match(node)
			_, untolerated := toleration.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, nil, false)
			result.Selected = append(result.Selected, selected)
			result.Tolerated = append(result.Tolerated, !untolerated)
		}
		if err := errors.Join(encoder.Encode(result), out.Flush()); err != nil {
			log.Fatalf("affinity-oracle: stdout: %v", err)
		}
	}
}
