# shellcheck shell=bash
# Sourced: shows progress on a terminal and in logs.
#
#   step NAME COMMAND...   Runs COMMAND with its output in a log file. Prints NAME, the time and the result.
#                          If COMMAND fails: the last lines of the log, its path, and the exit status.
#
# With STEP_LOGS set, all logs stay in that folder. Otherwise only the log of a failed step stays, in TMPDIR.
# COMMAND may be a shell function: it runs in a subshell, under errexit as long as step isn't part of a condition.

step() {
  local name=$1 log started=$SECONDS status ticker='' mark=✓
  shift
  if [[ -n ${STEP_LOGS-} ]]; then
    mkdir -p "$STEP_LOGS"
    log=$STEP_LOGS/${name//[^[:alnum:]._-]/-}.log
  else
    log=$(mktemp "${TMPDIR:-/tmp}/podshaper.XXXXXX")
  fi
  if [[ -t 2 ]]; then
    _step_tick "$name" "$started" "$$" &
    ticker=$!
  else
    echo "  $name ..." >&2
  fi
  local errexit=$-
  set +e
  (
    [[ $errexit != *e* ]] || set -e
    "$@"
  ) </dev/null >"$log" 2>&1
  status=$?
  [[ $errexit != *e* ]] || set -e
  if [[ -n $ticker ]]; then
    kill "$ticker"
    wait "$ticker" 2>/dev/null || true
    printf '\r\e[K' >&2
  fi
  ((status == 0)) || mark=✗
  echo "$mark $name  $(_step_elapsed "$started")" >&2
  if ((status != 0)); then
    echo "  exit status $status; the last lines of $log:" >&2
    tail -n "${STEP_TAIL:-30}" "$log" | sed 's/^/  | /' >&2
  elif [[ -z ${STEP_LOGS-} ]]; then
    rm -f "$log"
  fi
  return "$status"
}

_step_elapsed() {
  local s=$((SECONDS - $1))
  if ((s < 60)); then echo "$s s"; else echo "$((s / 60)) min $((s % 60)) s"; fi
}

# Ends with the shell that started it, even if it gets no interrupt.
_step_tick() {
  while kill -0 "$3" 2>/dev/null; do
    printf '\r\e[K  %s  %s' "$1" "$(_step_elapsed "$2")" >&2
    sleep 1
  done
}
