# shellcheck shell=bash
# Sourced: waits for a condition, never for a fixed time.
#
#   await SECONDS WHAT COMMAND...   Waits until COMMAND succeeds. After SECONDS it prints WHAT and fails.

await() {
  local seconds=$1 what=$2 deadline=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      echo "not reached within $seconds s: $what" >&2
      return 1
    fi
    sleep 0.1
  done
}
