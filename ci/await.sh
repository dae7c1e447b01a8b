# shellcheck shell=bash
# Sourced: waiting for a condition, never for a time.
#
#   await SECONDS WHAT COMMAND...   Until COMMAND succeeds; after SECONDS says that WHAT didn't come, and fails.

await() {
  local seconds=$1 what=$2 deadline=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      echo "waited $seconds s in vain: $what" >&2
      return 1
    fi
    sleep 0.1
  done
}
