#!/usr/bin/env bash
# Everything that must hold: tests/run.sh [--quick]
#
# Installs what is missing, then checks formatting, lints, documentation, tests, and the licences
# and advisories of dependencies. Every part runs even if one before it failed; the table at the
# end says what each took. --quick leaves out documentation, the end-to-end tests and cargo-deny.
#
# Everything is built in one place with one profile, so that RocksDB's C++ is compiled once per
# machine: CARGO_TARGET_DIR, by default ~/.cache/tidewaiter/target.
#
#   TIDEWAITER_TEST_DATA     a folder of sample images and advisories; without it, the tests that
#                            need them say so and pass
#   TIDEWAITER_CHAOS_ROUNDS  rounds of the test that kills processes (8), and the seed that repeats
#   TIDEWAITER_CHAOS_SEED    a run of it (printed)
#   TIDEWAITER_SINGLE_FLIGHT_ROUNDS
#                            how often two scanners meet at one layer (3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quick=no
for argument in "$@"; do
  case "$argument" in
    --quick) quick=yes ;;
    -h | --help)
      sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *)
      echo "tests/run.sh: unknown argument \`$argument\`, see --help" >&2
      exit 1
      ;;
  esac
done

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/tidewaiter/target}"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}" CARGO_INCREMENTAL=0
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin:/sbin"
tools="$HOME/.cache/tidewaiter/tools"

names=() results=() seconds=()
failed=no

note() { # NAME RESULT SECONDS
  names+=("$1") results+=("$2") seconds+=("$3")
}

part() { # NAME COMMAND…
  local name="$1" start=$SECONDS result=passed
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  "$@" || result=FAILED
  [ $result = passed ] || failed=yes
  note "$name" $result $((SECONDS - start))
}

skip() { # NAME REASON
  printf '\n== %s: skipped: %s\n' "$1" "$2"
  note "$1" "skipped: $2" 0
}

summary() {
  local index
  printf '\n%-14s %9s  %s\n' part seconds result
  for index in "${!names[@]}"; do
    printf '%-14s %9s  %s\n' "${names[$index]}" "${seconds[$index]}" "${results[$index]}"
  done
  printf '%-14s %9s\n' all "$SECONDS"
}
interrupted() {
  summary
  exit 130
}
trap interrupted INT TERM

doc() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --release --no-deps --workspace --quiet; }

tests() {
  if [ $quick = yes ]; then
    # The end-to-end tests stand in the package `tests`, of which only the rules are run.
    cargo test --locked --release --workspace --exclude tests --no-fail-fast \
      && cargo test --locked --release --package tests --test tidy
  else
    # The end-to-end tests start the program itself.
    cargo build --locked --release --workspace --bin tidewaiter \
      && cargo test --locked --release --workspace --no-fail-fast
  fi
}

# Finds cargo-deny, or builds it: unoptimized, for it runs only seconds, and in its own folder.
deny_is_there() {
  export PATH="$tools/bin:$PATH"
  ! cargo deny --version >/dev/null 2>&1 || return 0
  echo "installing cargo-deny (once, into $tools)"
  local result=0
  CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 CARGO_TARGET_DIR="$tools/target" timeout 10m \
    cargo install --quiet --locked --root "$tools" cargo-deny --version '^0.20' || result=$?
  rm -rf "$tools/target"
  return $result
}

deny() {
  # Without network there is no advisory database; everything else can still be checked.
  if cargo deny --locked --log-level error fetch db 2>/dev/null; then
    cargo deny --locked --log-level error check
  else
    echo 'the advisory database cannot be fetched: checking licences, bans and sources only'
    cargo deny --locked --offline --log-level error check licenses bans sources
  fi
}

echo "building in $CARGO_TARGET_DIR, quick: $quick, test data: ${TIDEWAITER_TEST_DATA:-none}"
part packages deploy/prepare.sh build test
if [ $failed = yes ]; then
  summary
  exit 1
fi
part format cargo fmt --all --check
part clippy cargo clippy --locked --release --workspace --all-targets -- -D warnings
if [ $quick = yes ]; then
  skip documentation '--quick'
else
  part documentation doc
fi
part tests tests
if [ $quick = yes ]; then
  skip cargo-deny '--quick'
elif deny_is_there; then
  part cargo-deny deny
else
  skip cargo-deny 'it could not be installed, see above'
fi

summary
[ $failed = no ]
