#!/bin/sh
# The second implementation of the arithmetic, against the golden digests:
#
#   interop/engine/check.sh                    all of every model in vectors/engine/golden
#   interop/engine/check.sh smollm2-135m       all of one
#   interop/engine/check.sh --bounded          tables, choices, small files, a part of SmolLM2
#
# Other arguments go to check.py. Needs Python 3.11 with venv and pip; the model
# files must be in the cache (`peerproof models pull`).
set -eu
here=$(dirname "$(readlink -f "$0")")
env=${PEERPROOF_PYTHON_ENV:-$here/../../target/second-env}
[ -x "$env/bin/python" ] || python3 -m venv "$env"
"$env/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
if [ "${1:-}" = --bounded ]; then
    shift
    set -- --tables --prompts 3 --ruled 1 --tokens 16 small smollm2-135m "$@"
fi
exec "$env/bin/python" "$here/check.py" "$@"
