#!/usr/bin/env bash
# Counts the instructions of the hot path, and fails where there are more than there were: what the clock cannot tell on a
# machine that others use. `instructions.sh --write` keeps what it finds as the new numbers.
#
# A count is that of a whole run of both sides in one process, by callgrind; the difference of two runs of different lengths
# leaves what one operation costs. It depends on the compiler: instructions.txt says which one the numbers are from.
set -euo pipefail
cd "$(dirname "$0")"
margin=5 # percent
numbers=instructions.txt

if ! command -v valgrind >/dev/null; then
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get install -y valgrind >/dev/null
fi
cargo build --quiet --release --no-default-features --bin hot-path

# Instructions of a run of $2 operations. Nothing spins, so that nothing depends on time.
count() {
    local log
    log=$(VDI_SPIN_US=0 valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/hot-path "$1" "$2" 2>&1) ||
        { echo "$log" >&2; return 1; }
    sed -n 's/^==[0-9]*== Collected : //p' <<<"$log"
}

names() {
    case $1 in
        flush) echo "Flush: sent, got, completed, its routine" ;;
        write) echo "Write: the same, with a buffer" ;;
        look) echo "GetCommand that finds nothing at once" ;;
        handle) echo "handle: got, mapped, the lease given up" ;;
        ring) echo "record: pushed, popped" ;;
    esac
}

compiler=$(rustc --version | cut -d' ' -f2)
found=
failed=0
printf '%-42s  %8s  %8s  %8s\n' operation counted committed limit
for what in flush write look handle ring; do
    short=$(count "$what" 10016) long=$(count "$what" 30048)
    each=$(((long - short + 10016) / 20032))
    [ "$each" -gt 0 ] || { echo "$what: nothing was counted" >&2; exit 1; }
    committed=$(awk -v what="$what" '$1 == what { print $2 }' "$numbers" 2>/dev/null || true)
    limit=$((${committed:-0} * (100 + margin) / 100))
    verdict=
    if [ "${1:-}" != --write ] && [ "$each" -gt "$limit" ]; then
        verdict='  MORE THAN THE LIMIT'
        failed=1
    fi
    printf '%-42s  %8s  %8s  %8s%s\n' "$(names "$what")" "$each" "${committed:--}" "${committed:+$limit}" "$verdict"
    found+="$what $each"$'\n'
done
if [ "${1:-}" = --write ]; then
    printf '# Instructions of an operation, as instructions.sh counts them; rustc %s, x86-64.\n%s' "$compiler" "$found" >"$numbers"
elif [ "$failed" = 1 ]; then
    echo "rustc here: $compiler; $(head -n 1 "$numbers" | sed 's/^# //')" >&2
    exit 1
fi
