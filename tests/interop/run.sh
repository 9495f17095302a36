#!/usr/bin/env bash
# Tests this crate against the official SDKs and the JWT libraries that SuperTokens' documentation names, and with each
# signature algorithm against jose and openssl, the OAuth authority oidc-provider, and tokens in files. Prints a matrix
# and exits with 0 if every row is as expected. Needs Node 20, Python 3.11, Go and JDK 17; a missing tool fails only the rows
# that use it.
#
#   tests/interop/run.sh [--update-readme]
#
# Installs into target/interop, whose folder `cache` is reused by the next run.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/tests/interop
target=${CARGO_TARGET_DIR:-$PWD/target}
out=$target/interop

rm -rf "$out/programs" "$out/logs"
mkdir -p "$out/programs" "$out/logs" "$out/cache"
cp -r "$here"/{node,python,go,java,curl} "$out/programs"

export npm_config_cache=$out/cache/npm PIP_CACHE_DIR=$out/cache/pip
export GOMODCACHE=$out/cache/go/modules GOCACHE=$out/cache/go/build GOTOOLCHAIN=local
export GOFLAGS="-mod=readonly -modcacherw"
# tldextract, a dependency of the Python SDK, uses its bundled list of domain suffixes instead of fetching one.
export SUPERTOKENS_TLDEXTRACT_DISABLE_HTTP=1 TLDEXTRACT_CACHE=$out/cache/tldextract
cd "$out/programs"

need() { command -v "$1" > /dev/null || { echo "$1 is not installed" >&2; return 1; }; }

# Installs the Debian packages of missing commands.
debian() {
    local missing=()
    command -v mvn > /dev/null || ! command -v java > /dev/null || missing+=(maven)
    command -v curl > /dev/null || missing+=(curl)
    command -v openssl > /dev/null || missing+=(openssl)
    ! command -v python3 > /dev/null || python3 -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0
    apt-get update -qq
    apt-get install -qqy --no-install-recommends "${missing[@]}"
}

install_node() {
    need node && need npm && cd "node/$1" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
}
install_supertokens-24() { install_node supertokens-24 && cp ../sdk.js .; }
install_supertokens-23() { install_node supertokens-23 && cp ../sdk.js .; }
install_m2() { install_node m2; }
install_oidc-provider() { install_node oidc-provider; }
install_python() {
    need python3 && python3 -m venv python/venv &&
        python/venv/bin/pip install --quiet --no-compile --require-hashes --only-binary :all: \
            --requirement python/requirements.txt
}
install_go() { need go && cd go && go build -o sdk.bin ./sdk && go build -o m2.bin ./m2; }
install_java() {
    need java && need mvn && cd java && mvn --quiet --batch-mode --strict-checksums \
        -Dmaven.repo.local="$out/cache/maven" dependency:copy-dependencies -DoutputDirectory=lib
}

# Installs one part. On failure its rows show the reason, which is in `$1.failed`.
part() {
    local start=$SECONDS log=$out/logs/install-$1.log
    timeout 300 bash -euo pipefail -c "$(declare -f need install_node "install_$1"); install_$1" > "$log" 2>&1 &
    trap "kill $!" TERM # `timeout` forwards the signal to its children
    if wait $!; then
        echo "installed $1: $((SECONDS - start)) s"
    else
        { grep -m 1 -i 'error\|not installed' "$log" || tail -n 1 "$log" || true; } > "$out/programs/$1.failed"
        echo "NOT installed: $1: $((SECONDS - start)) s: $(cat "$out/programs/$1.failed")"
    fi
}
export out

need python3 || { echo "FAIL: the test driver needs python3, so nothing was tested" >&2; exit 1; }
debian > "$out/logs/debian.log" 2>&1 || echo "apt-get failed: $(tail -n 1 "$out/logs/debian.log")"
installing=()
for name in go python supertokens-24 supertokens-23 m2 oidc-provider java; do
    part "$name" &
    installing+=($!)
done
trap 'kill "${installing[@]}" 2> /dev/null || true' EXIT
(cd "$here/../.." && cargo build --quiet --example core --example m1 --example m2 --example mint)
echo "built the examples: $SECONDS s"
wait "${installing[@]}"
trap - EXIT

exec timeout --kill-after 10 300 python3 -B "$here/drive.py" --programs "$out/programs" --logs "$out/logs" \
    --examples "$target/debug/examples" --readme "$here/../../README.md" "$@"
