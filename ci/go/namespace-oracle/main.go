// namespace-oracle says whether the admission plugins PodNodeSelector and PodTolerationRestriction of Kubernetes admit pods.
//
// It reads cases as JSON, one a line: the annotations of a namespace, and a pod as mutating webhooks leave it. It answers each with a line:
// the error of the first plugin that refuses the pod, or an empty text.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/plugin/pkg/admission/podnodeselector"
	"k8s.io/kubernetes/plugin/pkg/admission/podtolerationrestriction"
	config "k8s.io/kubernetes/plugin/pkg/admission/podtolerationrestriction/apis/podtolerationrestriction"
)

const name = "ns"

type question struct {
	Annotations map[string]string `json:"annotations"`
	Pod         v1.Pod            `json:"pod"`
}

func admit(asked *question) (string, error) {
	var pod api.Pod
	if err := legacyscheme.Scheme.Convert(&asked.Pod, &pod, nil); err != nil {
		return "", err
	}
	namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: asked.Annotations}}
	factory := informers.NewSharedInformerFactory(fake.NewSimpleClientset(), 0)
	if err := factory.Core().V1().Namespaces().Informer().GetStore().Add(namespace); err != nil {
		return "", err
	}
	selector := podnodeselector.NewPodNodeSelector(nil)
	tolerations := podtolerationrestriction.NewPodTolerationsPlugin(&config.Configuration{})
	selector.SetExternalKubeInformerFactory(factory)
	tolerations.SetExternalKubeInformerFactory(factory)
	// The informer is not started: its store is complete.
	ready := func() bool { return true }
	selector.SetReadyFunc(ready)
	tolerations.SetReadyFunc(ready)
	attributes := admission.NewAttributesRecord(&pod, nil, api.Kind("Pod").WithVersion("version"), name, "pod",
		api.Resource("pods").WithVersion("version"), "", admission.Create, &metav1.CreateOptions{}, false, nil)
	for _, plugin := range []admission.ValidationInterface{selector, tolerations} {
		if err := plugin.Validate(context.Background(), attributes, nil); err != nil {
			return err.Error(), nil
		}
	}
	return "", nil
}

func main() {
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	decoder, encoder := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<20)), json.NewEncoder(out)
	for decoder.More() {
		var asked question
		if err := decoder.Decode(&asked); err != nil {
			log.Fatalf("namespace-oracle: %v", err)
		}
		problem, err := admit(&asked)
		if err != nil {
			log.Fatalf("namespace-oracle: %v", err)
		}
		if err := errors.Join(encoder.Encode(problem), out.Flush()); err != nil {
			log.Fatalf("namespace-oracle: stdout: %v", err)
		}
	}
}
