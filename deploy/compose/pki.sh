#!/bin/sh
# development keys for every service, each in a volume of its own; what is there stays
set -eu

# keys of a version without an intermediate authority: nothing but these keys hangs on them
[ ! -e /keys/authority/ca.pem ] || [ -d /keys/authority/intermediate ] || find /keys -type f -delete

[ -e /keys/authority/ca.pem ] || fedgate pki init --federation compose --dir /keys/authority

issue() {  # role, name, further options
    role=$1 name=$2
    shift 2
    [ -e "/keys/$name/cert.pem" ] ||
        fedgate pki issue --dir /keys/authority --role "$role" --name "$name" --out "/keys/$name" "$@"
}

# DIALLED is how gateways elsewhere name the orchestrator's machine
issue orchestrator orchestrator --host orchestrator --host localhost ${DIALLED:+--host "$DIALLED"}
issue operator operator
[ -e /keys/signing/plan-signing.key ] ||
    fedgate plan keygen --name operator --out /keys/signing
issue admin admin  # who lets others in: `fedgate enroll`
[ -e /keys/enrolment/key.pem ] || cp /keys/authority/intermediate/*.pem /keys/enrolment/
for number in 1 2 3; do
    issue gateway "gateway-$number"
    cp /keys/signing/plan-signing.pub "/keys/gateway-$number/plan-signers"
done
