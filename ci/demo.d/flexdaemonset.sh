# shellcheck shell=bash
# Sourced by ci/demo: a DaemonSet over nodes of three sizes, and a running pod that follows its template.

sizes() {
  in_cluster kubectl get pods --selector app=agent --sort-by .spec.nodeName --output \
    'custom-columns=NODE:.spec.nodeName,CPU:.spec.containers[*].resources.requests.cpu,MEMORY:.spec.containers[*].resources.requests.memory,RESTARTS:.status.containerStatuses[*].restartCount'
}
agents() { sed 's|image: .*|image: podshaper/pause:1|' examples/flexdaemonset/daemonset.yaml; }

"$ci/cluster" nodes 1 --prefix edge --cpu 500m --memory 1Gi --ephemeral-storage 20Gi
"$ci/cluster" nodes 1 --prefix huge --cpu 96 --memory 768Gi --ephemeral-storage 2Ti --label class=huge
say "A DaemonSet gets 10 % of a node's cpu and 15 % of its memory, once for the pod; of huge nodes 2 %:"
sed '/^ *#/d' examples/flexdaemonset/template.yaml
in_cluster kubectl apply --filename - <examples/flexdaemonset/template.yaml >/dev/null
agents | in_cluster kubectl apply --filename - >/dev/null
in_cluster kubectl rollout status daemonset/agent --timeout=90s >/dev/null
say "Each pod was born with the size for its node, container by container:"
sizes
say "20 % from now on: running pods follow, and nothing restarts."
in_cluster kubectl patch flexdaemonsettemplate agent --type=merge --patch '{"spec": {"cpuPercentage": 20}}' >/dev/null
in_cluster kubectl wait flexdaemonsettemplate/agent --for='jsonpath={.status.observedGeneration}'=2 --timeout=60s >/dev/null
in_cluster kubectl wait flexdaemonsettemplate/agent --for=jsonpath='{.status.podsOutdated}'=0 --timeout=60s >/dev/null
sizes
in_cluster kubectl get flexdaemonsettemplates
