#!/bin/sh
# development keys for every service, each in a volume of its own; what is there stays
set -eu

[ -e /keys/authority/ca.pem ] || fedgate pki init --federation compose --dir /keys/authority

issue() {  # role, name
    [ -e "/keys/$2/cert.pem" ] ||
        fedgate pki issue --dir /keys/authority --role "$1" --name "$2" --out "/keys/$2"
}

issue orchestrator orchestrator
issue operator operator
for number in 1 2 3; do
    issue gateway "gateway-$number"
done
