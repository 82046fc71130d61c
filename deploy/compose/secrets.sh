#!/usr/bin/env bash
# Makes the passwords of compose.yaml, once: nothing is overwritten, nothing is shown.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
for file in secrets store.env; do
    if [ -e "$file" ]; then
        echo "error: $file is there already; nothing is overwritten" >&2
        exit 2
    fi
done
mkdir secrets
password=$(head -c 32 /dev/urandom | base64 | tr -d '+/=\n')
printf '%s' "$password" >secrets/postgres-password
printf 'SLIMFED_STORE=postgresql+psycopg://slimfed:%s@postgres/slimfed\n' "$password" >store.env
chmod 644 secrets/postgres-password # the database's own user reads it; the folder is yours alone
echo "written: secrets/postgres-password, store.env" >&2
