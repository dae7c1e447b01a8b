// limit-range-oracle says whether Kubernetes' own LimitRanger and validation admit pods.
//
// It reads cases as JSON, one a line: LimitRanges of the namespace, and a pod. It answers each with a line: the pod with the defaults of
// the API server and of the LimitRanges, and what is wrong with it.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"log"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/plugin/pkg/admission/limitranger"
)

type question struct {
	LimitRanges []v1.LimitRange `json:"limitRanges"`
	Pod         v1.Pod          `json:"pod"`
}

type answer struct {
	// Pod is the pod as a webhook receives it.
	Pod      *v1.Pod  `json:"pod"`
	Problems []string `json:"problems"`
}

func admit(asked *question) (answer, error) {
	legacyscheme.Scheme.Default(&asked.Pod)
	var pod api.Pod
	if err := legacyscheme.Scheme.Convert(&asked.Pod, &pod, nil); err != nil {
		return answer{}, err
	}
	result := answer{Problems: []string{}}
	for i := range asked.LimitRanges {
		legacyscheme.Scheme.Default(&asked.LimitRanges[i])
		if err := limitranger.PodMutateLimitFunc(&asked.LimitRanges[i], &pod); err != nil {
			return answer{}, err
		}
	}
	for i := range asked.LimitRanges {
		if err := limitranger.PodValidateLimitFunc(&asked.LimitRanges[i], &pod); err != nil {
			result.Problems = append(result.Problems, err.Error())
		}
	}
	if pod.Name == "" {
		pod.Name = pod.GenerateName + "x"
	}
	options := podutil.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, nil, &pod.ObjectMeta, nil)
	for _, problem := range validation.ValidatePodCreate(&pod, options) {
		result.Problems = append(result.Problems, problem.Error())
	}
	result.Pod = &v1.Pod{}
	return result, legacyscheme.Scheme.Convert(&pod, result.Pod, nil)
}

func main() {
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	decoder, encoder := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<20)), json.NewEncoder(out)
	for decoder.More() {
		var asked question
		if err := decoder.Decode(&asked); err != nil {
			log.Fatalf("limit-range-oracle: %v", err)
		}
		result, err := admit(&asked)
		if err != nil {
			log.Fatalf("limit-range-oracle: %v", err)
		}
		if err := errors.Join(encoder.Encode(result), out.Flush()); err != nil {
			log.Fatalf("limit-range-oracle: stdout: %v", err)
		}
	}
}
