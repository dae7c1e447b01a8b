# shellcheck shell=bash
# Sourced by ci/demo: an annotation's base and weights over fake nodes.

annotated() {
  in_cluster kubectl --namespace shop scale deployment/web --replicas="$1" >/dev/null
  in_cluster kubectl --namespace shop rollout status deployment/web --timeout=120s >/dev/null
  in_cluster kubectl --namespace shop wait deployment/web --for="jsonpath={.status.replicas}=$1" --timeout=120s >/dev/null
  in_cluster kubectl --namespace shop get pods --output json | python3 "$ci/demo.d/bars.py" "$1 pods"
}

for group in od4vcpu16gb spot4vcpu16gb spot8vcpu32gb; do
  "$ci/cluster" nodes 1 --prefix "$group" --label "nodesize=$group" --pods 500
done
say "One pod of a Deployment belongs on demand, the others share two kinds of spot nodes:"
sed -n 's/^    \(custom-pod-schedule-strategy: .*\)/\1/p' examples/custom-scheduler-annotations/deployment.yaml
# Pods on fake nodes need a toleration, and cannot pull images.
sed -e 's|image: .*|image: podshaper/pause:1|' -e 's|^    spec:|    spec:\n      tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]|' \
  examples/custom-scheduler-annotations/deployment.yaml | in_cluster kubectl apply --filename - >/dev/null
annotated 10
annotated 30
annotated 7
in_cluster kubectl --namespace shop get placements
say "A mistake is pointed at:"
in_cluster kubectl --namespace shop annotate deployment/web --overwrite custom-pod-schedule-strategy=nodesize=od4vcpu16gb,weight=-1
