# shellcheck shell=bash
# Sourced: sees to it that python3 has PyYAML, from a cache of ours if need be.
if ! python3 -c 'import yaml' 2>/dev/null; then
  PYTHONPATH=${XDG_CACHE_HOME:-$HOME/.cache}/podshaper/python
  export PYTHONPATH
  python3 -c 'import yaml' 2>/dev/null || python3 -m pip install --quiet --target "$PYTHONPATH" pyyaml==6.0.3 || {
    echo "python3 needs PyYAML (Debian: apt-get install python3-yaml)" >&2
    exit 1
  }
fi
