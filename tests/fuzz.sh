#!/usr/bin/env bash
# Fuzzes what reads hostile bytes: tests/fuzz.sh [--seconds N] [TARGET...]
#
# Builds each target of shared/*/fuzz and runs it for N seconds (60), one after the other, from the
# test data as seeds. What was found before is kept in fuzz/corpus and begins the next run; an input
# that breaks something is left in fuzz/artifacts, and this ends with 1. A table says how much each
# ran. It needs cargo-fuzz, which is installed if it is missing; no nightly compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root="$PWD"

seconds=60
if [ "${1:-}" = --seconds ]; then
  seconds="${2:?how many? usage: tests/fuzz.sh [--seconds N] [TARGET...]}"
  shift 2
fi
tools="$HOME/.cache/tidewaiter/tools"
export PATH="$tools/bin:$PATH" RUSTC_BOOTSTRAP=1
# Not where everything else is built: a compiler told so makes other things of the same crates.
export CARGO_TARGET_DIR="$HOME/.cache/tidewaiter/fuzz"
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --root "$tools" cargo-fuzz
seeds="$(mktemp -d)"
log="$(mktemp)"
trap 'rm -rf "$seeds" "$log"' EXIT

# Where the seeds of a target are, flat, in $seeds/TARGET.
collect() { # TARGET PATH...
  local target="$1" file
  shift
  mkdir -p "$seeds/$target"
  find "$@" -type f -size -200k -print0 | while IFS= read -r -d '' file; do
    cp "$file" "$seeds/$target/$(printf '%s' "$file" | cksum | tr -d ' ')"
  done
}

# Archives of all kinds that tar writes.
archives() {
  local format from="$root/shared/analyzers/testdata" at="$seeds/archives"
  mkdir -p "$at"
  truncate -s 100k "$at/holes"
  printf 'x' >>"$at/holes"
  for format in gnu pax ustar v7; do
    tar --format="$format" -cf "$at/$format.tar" -C "$from" dpkg/good npm/good
    tar --sparse --format=gnu -cf "$at/holes.tar" -C "$at" holes
    gzip --keep --force "$at/$format.tar"
    if command -v zstd >/dev/null; then zstd --quiet --force "$at/$format.tar" -o "$at/$format.tar.zst"; fi
  done
  cat "$at/gnu.tar.gz" "$at/pax.tar.gz" >"$at/members.gz"
}

seeds_of() {
  local data="$root/shared/analyzers/testdata"
  case "$1" in
    walk | inflate | layer) collect "$1" "$seeds/archives" ;;
    rpm) collect "$1" "$data/rpm" ;;
    zip) collect "$1" "$data/jar" "$data/python" ;;
    programs) collect "$1" "$data/golang" "$data/cargo" "$data/software" ;;
    sbom) collect "$1" "$data/sbom" "$root/shared/report/testdata/sbom" ;;
    secrets) collect "$1" "$data/secrets" ;;
    versions) collect "$1" "$root/shared/vulndb/testdata/versions" ;;
    locks) collect "$1" "$data"/*-lock "$data/requirements" "$data/pom" "$data/go-mod" "$data/pylock" "$data/package-resolved" ;;
    *) collect "$1" "$data" ;;
  esac
}

archives
worst=0
printf '| %-10s | %12s | %9s | %6s | %s |\n' target executions 'exec/s' edges result
printf '| %s | %s | %s | %s | %s |\n' ---------- ------------ --------- ------ ------
for folder in shared/*/fuzz; do
  for source in "$folder"/fuzz_targets/*.rs; do
    target="$(basename "$source" .rs)"
    [ "$#" = 0 ] || [[ " $* " == *" $target "* ]] || continue
    seeds_of "$target"
    corpus="$folder/corpus/$target"
    mkdir -p "$corpus"
    result=ok
    # What is unsafe is in dependencies that fuzz themselves; without a sanitizer there is more time
    # for what is ours.
    (cd "$folder/.." && cargo fuzz run --sanitizer none "$target" "$root/$corpus" "$seeds/$target" -- \
      -max_total_time="$seconds" -max_len=131072 -timeout=10 -rss_limit_mb=3000 -print_final_stats=1) >"$log" 2>&1 ||
      { result="broke: see $folder/artifacts/$target"; worst=1; }
    printf '| %-10s | %12s | %9s | %6s | %s |\n' "$target" \
      "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
      "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")" \
      "$(grep -ao 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)" "$result"
    [ "$result" = ok ] || tail -n 30 "$log" >&2
  done
done
exit "$worst"
