// Package sizing decides about peer pods as the peer pods webhook does.
package sizing

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	runtimeClass = "kata-remote"

	vcpus  = "io.katacontainers.config.hypervisor.default_vcpus"
	memory = "io.katacontainers.config.hypervisor.default_memory"
	gpus   = "io.katacontainers.config.hypervisor.default_gpus"

	gpu = corev1.ResourceName("nvidia.com/gpu")
	vm  = corev1.ResourceName("kata.peerpods.io/vm")

	mib = 1 << 20
)

// Applies returns whether the pod runs in a VM of its own.
func Applies(pod *corev1.Pod) bool {
	return pod.Spec.RuntimeClassName != nil && *pod.Spec.RuntimeClassName == runtimeClass && len(pod.Spec.Containers) > 0
}

// Annotations says how large the VM is to be.
func Annotations(pod *corev1.Pod) map[string]string {
	result := map[string]string{}
	if cpu := size(pod, corev1.ResourceCPU); !cpu.IsZero() {
		result[vcpus] = strconv.FormatInt(cpu.Value(), 10)
	}
	if bytes := size(pod, corev1.ResourceMemory); !bytes.IsZero() {
		result[memory] = strconv.FormatInt((bytes.Value()+mib-1)/mib, 10)
	}
	if requests, _ := sums(pod, gpu); !requests.IsZero() {
		result[gpus] = strconv.FormatInt(requests.Value(), 10)
	}
	return result
}

// VM is what the first container gets in place of its resources.
func VM() corev1.ResourceRequirements {
	one := corev1.ResourceList{vm: *resource.NewQuantity(1, resource.DecimalSI)}
	return corev1.ResourceRequirements{Requests: one, Limits: one}
}

// size is the limits where they cover the requests, else the requests.
func size(pod *corev1.Pod, name corev1.ResourceName) resource.Quantity {
	requests, limits := sums(pod, name)
	if !requests.IsZero() && limits.Cmp(requests) >= 0 {
		return limits
	}
	return requests
}

func sums(pod *corev1.Pod, name corev1.ResourceName) (requests, limits resource.Quantity) {
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			requests.Add(containers[i].Resources.Requests[name])
			limits.Add(containers[i].Resources.Limits[name])
		}
	}
	return requests, limits
}
