// patch-oracle applies JSON patches to Pods as the API server applies a webhook's.
//
// It reads one object {"pod": POD, "patch": OPERATIONS} a line, and answers each with a line: {"pod": PATCHED}, and in
// "unknown" what a strict decoder says about it (fields that this release doesn't know, fields given twice); or
// {"error": WHY}, where the API server would refuse the pod.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
)

type question struct {
	Pod   json.RawMessage `json:"pod"`
	Patch json.RawMessage `json:"patch"`
}

type answer struct {
	Pod     json.RawMessage `json:"pod,omitempty"`
	Unknown []string        `json:"unknown,omitempty"`
	Error   string          `json:"error,omitempty"`
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for decoder.More() {
		var q question
		if err := decoder.Decode(&q); err != nil {
			log.Fatalf("patch-oracle: stdin: %v", err)
		}
		if err := encoder.Encode(apply(q)); err != nil {
			log.Fatalf("patch-oracle: stdout: %v", err)
		}
		// Whoever asks one question at a time is waiting.
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				log.Fatalf("patch-oracle: stdout: %v", err)
			}
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatalf("patch-oracle: stdout: %v", err)
	}
}

// apply is what k8s.io/apiserver's mutatingDispatcher.callAttrMutatingHook does with a patch.
func apply(q question) answer {
	patch, err := jsonpatch.DecodePatch(q.Patch)
	if err != nil {
		return answer{Error: "undecodable patch: " + err.Error()}
	}
	patched := []byte(q.Pod)
	if len(patch) != 0 { // an empty patch leaves the object alone
		if patched, err = patch.Apply(q.Pod); err != nil {
			return answer{Error: "the patch doesn't apply: " + err.Error()}
		}
	}
	var pod corev1.Pod
	strict, err := kjson.UnmarshalStrict(patched, &pod)
	if err != nil {
		return answer{Error: "the result is no Pod: " + err.Error()}
	}
	result := answer{Pod: patched}
	for _, err := range strict {
		result.Unknown = append(result.Unknown, err.Error())
	}
	return result
}
