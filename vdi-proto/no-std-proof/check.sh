#!/bin/sh
# Builds the program, looks at what it needs, and runs it. Needs a stable toolchain for x86_64-unknown-linux-gnu, cc and
# binutils. Exit status 0: vdi-proto links and runs without std, without alloc and without a C library.
set -eu
cd "$(dirname "$0")"
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --quiet --locked --release --target-dir "$target"
program=$target/release/vdi-proto-no-std-proof

fail() {
    echo "no-std-proof: $1" >&2
    exit 1
}
dynamic=$(readelf --dynamic --wide "$program")
case $dynamic in
    *NEEDED*) fail "the program needs a library: $dynamic" ;;
    *"no dynamic section"*) ;;
    *) fail "the program has a dynamic section: $dynamic" ;;
esac
headers=$(readelf --program-headers --wide "$program")
case $headers in
    *INTERP*) fail "the program needs a dynamic linker" ;;
    *LOAD*) ;;
    *) fail "readelf shows no program: $headers" ;;
esac
undefined=$(nm --undefined-only "$program")
[ -z "$undefined" ] || fail "undefined symbols: $undefined"
# Anything from std or alloc has its crate's name.
symbols=$(nm --demangle "$program")
case $symbols in
    *vdi_proto*) ;;
    *) fail "the program holds nothing of vdi-proto" ;;
esac
case $symbols in
    *std::*|*alloc::*) fail "the program holds something of std or alloc" ;;
esac
"$program" || fail "the program's step $? did not come out right"
echo "no-std-proof: no library, no undefined symbol, exit status 0"
