# shellcheck shell=bash
# Sourced by ci/demo: 80/20 over fake nodes, scaled up, down and rolled out.

spread() {
  in_cluster kubectl get pods --selector app=nginx --output json | python3 "$ci/demo.d/bars.py" "$1"
}
scale() {
  in_cluster kubectl scale deployment/nginx-deployment --replicas="$1" >/dev/null
  in_cluster kubectl rollout status deployment/nginx-deployment --timeout=120s >/dev/null
  in_cluster kubectl wait deployment/nginx-deployment --for="jsonpath={.status.replicas}=$1" --timeout=120s >/dev/null
  spread "$1 pods"
}

"$ci/cluster" nodes 2 --prefix default --label type=default --pods 500
"$ci/cluster" nodes 2 --prefix spot --label type=spot --taint spot=true:NoSchedule --pods 500
say "80 % of a Deployment's pods belong on default nodes, 20 % on spot nodes:"
sed '/^ *#/d' examples/distributor/poddistributor.yaml
in_cluster kubectl apply --filename - <examples/distributor/poddistributor.yaml >/dev/null
# Pods on fake nodes need a toleration, and cannot pull images.
sed -e 's|image: .*|image: podshaper/pause:1|' -e 's|^    spec:|    spec:\n      tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]|' \
  examples/distributor/workload.yaml | in_cluster kubectl apply --filename - >/dev/null
scale 10
scale 200
scale 37
say "A rollout: each revision has its shares, all the way."
in_cluster kubectl rollout restart deployment/nginx-deployment >/dev/null
until in_cluster kubectl rollout status deployment/nginx-deployment --timeout=1s >/dev/null 2>&1; do spread "on the way"; done
spread "rolled out"
in_cluster kubectl get poddistributors,placements
