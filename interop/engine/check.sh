#!/bin/sh
# The second implementation of the arithmetic, against the golden digests:
#
#   interop/engine/check.sh                    all of every model in vectors/engine/golden
#   interop/engine/check.sh smollm2-135m       all of one
#   interop/engine/check.sh --bounded          4 prompts, 16 tokens each, of SmolLM2; and the tables
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
    set -- --tables --prompts 4 --tokens 16 smollm2-135m "$@"
fi
exec "$env/bin/python" "$here/check.py" "$@"
