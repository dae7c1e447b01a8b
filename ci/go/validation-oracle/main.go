// validation-oracle validates pods as the API server does when they are created.
//
// It reads one pod a line and answers each with a line: {"pod": the pod with the API server's defaults, as a webhook gets it,
// "errors": those of the validation}, or {"undecodable": the error} for a pod that reaches no webhook.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/registry/core/pod"
)

type answer struct {
	Pod         json.RawMessage `json:"pod,omitempty"`
	Errors      []string        `json:"errors,omitempty"`
	Undecodable string          `json:"undecodable,omitempty"`
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for decoder.More() {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			log.Fatalf("validation-oracle: stdin: %v", err)
		}
		if err := encoder.Encode(validate(raw)); err != nil {
			log.Fatalf("validation-oracle: stdout: %v", err)
		}
		// The caller may wait for the answer before it writes the next pod.
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				log.Fatalf("validation-oracle: stdout: %v", err)
			}
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatalf("validation-oracle: stdout: %v", err)
	}
}

func validate(raw []byte) answer {
	codec := legacyscheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion)
	object, err := runtime.Decode(codec, raw)
	if err != nil {
		return answer{Undecodable: err.Error()}
	}
	created, ok := object.(*api.Pod)
	if !ok {
		return answer{Undecodable: "not a pod"}
	}
	// Plugins run after PrepareForCreate. Validation comes last.
	pod.Strategy.PrepareForCreate(context.Background(), created)
	defaulted, err := runtime.Encode(codec, created)
	if err != nil {
		log.Fatalf("validation-oracle: encode: %v", err)
	}
	result := answer{Pod: defaulted}
	for _, err := range pod.Strategy.Validate(context.Background(), created) {
		result.Errors = append(result.Errors, err.Error())
	}
	return result
}
