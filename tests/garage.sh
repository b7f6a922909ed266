#!/usr/bin/env bash
# The tests of buckets against garage, a server of S3 of another make, which ignores conditions on requests.
#
#     tests/garage.sh
#
# Builds garage from crates.io once (some minutes, into target/garage), runs it in a directory of its own, and removes that.
set -euo pipefail
cd "$(dirname "$0")/.."
version=2.5.0
tools=$PWD/${CARGO_TARGET_DIR:-target}/garage
if [ ! -x "$tools/bin/garage" ]; then
    cargo install garage --version "$version" --locked --root "$tools" --no-default-features --features bundled-libs,sqlite
fi
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cat > "$work/garage.toml" <<TOML
metadata_dir = "$work/meta"
data_dir = "$work/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:3901"
rpc_public_addr = "127.0.0.1:3901"
rpc_secret = "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:3900"
root_domain = ".s3.garage.localhost"
TOML
garage() { "$tools/bin/garage" -c "$work/garage.toml" "$@"; }
"$tools/bin/garage" -c "$work/garage.toml" server > "$work/log" 2>&1 &
server=$!
for _ in $(seq 100); do
    garage status > /dev/null 2>&1 && break
    sleep 0.2
done
node=$(garage node id -q | cut -d@ -f1)
garage layout assign -z here -c 10G "$node" > /dev/null
garage layout apply --version 1 > /dev/null
garage bucket create builds > /dev/null
garage key create tests > "$work/key"
garage bucket allow --read --write --owner builds --key tests > /dev/null
export ROOTCELLAR_TEST_S3_ENDPOINT=http://127.0.0.1:3900
export ROOTCELLAR_TEST_S3_REGION=garage
export ROOTCELLAR_TEST_S3_BUCKET=builds
ROOTCELLAR_TEST_S3_ACCESS_KEY_ID=$(sed -n 's/^Key ID: *//p' "$work/key")
ROOTCELLAR_TEST_S3_SECRET_ACCESS_KEY=$(sed -n 's/^Secret key: *//p' "$work/key")
export ROOTCELLAR_TEST_S3_ACCESS_KEY_ID ROOTCELLAR_TEST_S3_SECRET_ACCESS_KEY
cargo test --package rootcellar-tests --test bucket -- s3 parts touch credentials
