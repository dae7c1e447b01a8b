# shellcheck shell=bash
# Sourced by every subcommand: the name of the cluster, its folders, and how to enter its namespaces.
# shellcheck disable=SC2034  # read by those who source this

PATH=$PATH:/usr/sbin:/sbin # not on everybody's PATH
CI=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CLUSTER=${PODSHAPER_CLUSTER:-main}
STATE=${PODSHAPER_STATE:-/var/lib/podshaper}
RUN=$STATE/$CLUSTER
export PODSHAPER_CLUSTER=$CLUSTER
export PODSHAPER_LOAD_IMAGE="$CI/cluster load"
export KUBECONFIG=$RUN/kubeconfig/admin
export PODSHAPER_RUN=$RUN PYTHONDONTWRITEBYTECODE=1

NODE=node1
NODE_IP=172.30.0.2
POD_CIDR=10.244.0.0/24
SERVICE_CIDR=10.96.0.0/16
API_SERVICE_IP=10.96.0.1
DNS_SERVICE_IP=10.96.0.10
CGROUP=podshaper-$CLUSTER # below each cgroup hierarchy's root
PARTS=(pause etcd kube cni helm)

. "$CI/progress.sh"
. "$CI/await.sh"

fail() {
  echo "ci/cluster: $*" >&2
  exit 1
}

[[ $CLUSTER =~ ^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$ ]] ||
  fail "PODSHAPER_CLUSTER=$CLUSTER: a name has 1 to 32 lower-case letters, digits and inner dashes"

# PID 1 of the cluster's namespaces carries $RUN as its argument (see init): the cluster exists as long as this process does.
alive() {
  local pid
  read -r pid 2>/dev/null <"$RUN/init.pid" && grep -qszxF -- "$RUN" "/proc/$pid/cmdline"
}

inside() {
  grep -qszxF -- "$RUN" /proc/1/cmdline
}

# Runs the calling script again under a lock. Background processes of the script do not hold the lock.
locked() {
  [[ -z ${PODSHAPER_LOCKED-} ]] || return 0
  flock --nonblock "$STATE" true || echo "  waiting for another cluster's start or end ..." >&2
  PODSHAPER_LOCKED=1 exec flock --close "$STATE" "$0" "$@"
}

# The parts of the cluster that `up` has started: control-plane, node.
finished() {
  [[ -e $RUN/finished/$1 ]]
}

require() {
  { inside || alive; } && finished "$1" && return
  fail "cluster $CLUSTER isn't up${2-}: run ci/cluster up"
}
