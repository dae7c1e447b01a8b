# shellcheck shell=bash
# Sourced: the helm to use (HELM, or PATH's, or ours) and a python3 that has PyYAML.

if [ -z "${HELM-}" ] && ! HELM=$(command -v helm); then
  ../go/build helm
  HELM=$(../go/build --path helm)/helm
fi
export HELM

export PYTHONDONTWRITEBYTECODE=1
if ! python3 -c 'import yaml' 2>/dev/null; then
  PYTHONPATH=${XDG_CACHE_HOME:-$HOME/.cache}/podshaper/python
  export PYTHONPATH
  if ! python3 -c 'import yaml' 2>/dev/null; then
    installed=$(mktemp -d)
    python3 -m pip install --quiet --target "$installed" pyyaml==6.0.3 || {
      echo "python3 needs PyYAML (Debian: apt-get install python3-yaml)" >&2
      exit 1
    }
    mkdir -p "$(dirname "$PYTHONPATH")"
    # Another clone may have finished first; its folder stays.
    mv --no-target-directory "$installed" "$PYTHONPATH" 2>/dev/null || rm -rf "$installed"
  fi
fi
