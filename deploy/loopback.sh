#!/usr/bin/env bash
# A secured federation of five nodes on 127.0.0.1, and a job through it: deploy/loopback.sh [JOB.toml] [options of run]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$here/../.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" "$here/loopback.py" "$@"
