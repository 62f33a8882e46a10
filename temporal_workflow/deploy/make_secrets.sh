#!/bin/sh
# Make the secrets that docker-compose.yml mounts: random, readable by their owner alone, never overwritten.
# Each is given to the user that reads it inside its container, which takes root.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
[ -e secrets/.gitignore ] || echo '*' >secrets/.gitignore

random() { head -c 32 /dev/urandom | base64; }

[ -e secrets/database_password ] || random | tr -d '/+=\n' >secrets/database_password
[ -e secrets/grafana_password ] || random | tr -d '/+=\n' >secrets/grafana_password
[ -e secrets/mqtt_password ] || random | tr -d '/+=\n' >secrets/mqtt_password
[ -e secrets/webhook_secret ] || printf 'whsec_%s\n' "$(random)" >secrets/webhook_secret
[ -e secrets/codec_key ] || random >secrets/codec_key
[ -e secrets/pgpass ] || printf 'postgresql:5432:audio:audio:%s\n' "$(cat secrets/database_password)" >secrets/pgpass
[ -e secrets/temporal_password ] || cp secrets/database_password secrets/temporal_password
if [ "$(id -u)" = 0 ]; then
    chown 10001 secrets/codec_key secrets/pgpass secrets/mqtt_password secrets/webhook_secret
    chown 1000 secrets/temporal_password
    chown 472 secrets/grafana_password
else
    echo "Run this once more as root: the containers' users (10001, 1000, 472) cannot read the secrets yet." >&2
fi
