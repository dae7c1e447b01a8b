# shellcheck shell=bash
# Sourced by ci/demo: a registry with images for different architectures, and where their pods land.

step "a registry (from Go modules)" "$ci/go/build" registry
registry=$("$ci/go/build" --path registry)
address=$(in_cluster kubectl get nodes --selector 'kubernetes.io/hostname' --output jsonpath='{.items[?(@.status.nodeInfo.containerRuntimeVersion)].status.addresses[?(@.type=="InternalIP")].address}' | cut -d' ' -f1)
content=$(mktemp -d)
cat >"$content/config.yml" <<CONFIG
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $content/images}}
http: {addr: "$address:5000"}
CONFIG
in_cluster "$registry/registry" serve "$content/config.yml" >/dev/null 2>&1 &
until in_cluster bash -c "true >/dev/tcp/$address/5000" 2>/dev/null; do sleep 0.1; done
push() { in_cluster "$registry/registry-tools" push "$address:5000/$1" "${@:2}"; }
push both:1 linux/amd64 linux/arm64
push amd64-only:1 linux/amd64
push arm64-only:1 linux/arm64

for arch in amd64 arm64; do
  taint=()
  [[ $arch == amd64 ]] || taint=(--taint arch=arm64:NoSchedule)
  "$ci/cluster" nodes 1 --prefix "$arch" --arch "$arch" --label demo=arch "${taint[@]}"
done
say "A node of amd64 and one of arm64, which is tainted; arch knows both:"
cat <<'VALUES' | tee "$content/values.yaml"
arch:
  enabled: true
  architectures:
    amd64: {}
    arm64:
      taintsToTolerate:
      - {key: arch, value: arm64, effect: NoSchedule}
VALUES
in_cluster helm upgrade podshaper charts/podshaper --namespace podshaper --reuse-values --wait --timeout 2m \
  --values "$content/values.yaml" --set "arch.registries.plainHttp={$address:5000}" >/dev/null

run_pod() {
  local name=$1 containers=''
  for image in "${@:2}"; do containers+="{name: ${image%%:*}, image: '$address:5000/$image', imagePullPolicy: IfNotPresent}, "; done
  in_cluster kubectl create --filename - <<POD
apiVersion: v1
kind: Pod
metadata: {name: $name, labels: {demo: arch}}
spec:
  nodeSelector: {demo: arch}
  tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]
  containers: [$containers]
POD
}
say "Pods of images that run here or there:"
run_pod on-amd64 amd64-only:1
run_pod on-arm64 arm64-only:1
run_pod with-sidecar both:1 amd64-only:1
in_cluster kubectl wait pod --selector demo=arch --for=condition=PodScheduled --timeout=30s >/dev/null
in_cluster kubectl get pods --selector demo=arch --output 'custom-columns=POD:.metadata.name,RUNS ON:.metadata.annotations.podshaper\.dev/arch,NODE:.spec.nodeName'
say "A pod with images that have no common architecture is refused, with the reason:"
run_pod nowhere amd64-only:1 arm64-only:1 2>&1 || true
