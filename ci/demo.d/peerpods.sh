# shellcheck shell=bash
# Sourced by ci/demo: a peer pod before and after, and a pod that isn't one.

# There is no hypervisor and no registry: the containers run without a VM, and sleep.
here() { sed 's|^handler: .*|handler: runc|; s|image: .*|image: podshaper/pause:1|' "examples/peerpods/$1"; }
# The fields of an object that people read.
brief() { python3 "$ci/demo.d/brief.py"; }

here runtimeclass.yaml | in_cluster kubectl apply --filename - >/dev/null
say "A pod for a VM of its own, as its author wrote it:"
here pod.yaml
here pod.yaml | in_cluster kubectl create --filename - >/dev/null
in_cluster kubectl wait --for=condition=Ready --timeout=60s pod/shop >/dev/null
say "The same pod, as it runs: its node gives it one VM, and the hypervisor knows the size."
in_cluster kubectl get pod shop --output json | brief
say "The same without the runtime class: untouched."
here pod.yaml | sed '/runtimeClassName/d; s/name: shop/name: plain/' |
  in_cluster kubectl create --dry-run=server --output json --filename - | brief
say "helm test podshaper --filter name=podshaper-peerpods-selftest"
# (The output of a test's pod is on standard error.)
in_cluster helm test podshaper --namespace podshaper --filter name=podshaper-peerpods-selftest 2>&1 | awk '/^peerpods/ && !seen++'
