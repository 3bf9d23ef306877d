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
# Where Go is installed, the bus's own tests run a second time, on a current nats-server.
#
#   TIDEWAITER_TEST_DATA     a folder of sample images and advisories; ../shared/data where that is
#                            there. Without it, the tests that need them say so and pass
#   TIDEWAITER_DEMO_IMAGE    an image layout that deploy/demo/make-image.sh made; without one it is
#                            made, where Debian, PyPI and npm can be reached
#   TIDEWAITER_CHAOS_ROUNDS  rounds of the test that kills processes (8), and the seed that repeats
#   TIDEWAITER_CHAOS_SEED    a run of it (printed)
#   TIDEWAITER_SINGLE_FLIGHT_ROUNDS
#                            how often two scanners meet at one layer (3)
#   TIDEWAITER_RUNTIME_BEHAVIORS
#                            where it is set, every behavior of attackers is done in a container (it
#                            takes two minutes)
#   TIDEWAITER_RUNTIME_AWAY_S
#                            how long the broker is away while containers go on, seconds (5)
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
if [ -z "${TIDEWAITER_TEST_DATA:-}" ] && [ -d ../shared/data ]; then
  TIDEWAITER_TEST_DATA="$(cd ../shared/data && pwd)"
fi
[ -z "${TIDEWAITER_TEST_DATA:-}" ] || export TIDEWAITER_TEST_DATA
log="$(mktemp)"
trap 'rm -f "$log"' EXIT

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
  # What a test could not look at is no success to be silent about.
  if grep -q '^skipped' "$log"; then
    printf '\nskipped by tests:\n'
    grep '^skipped' "$log" | sort | uniq | sed 's/^/  /'
  fi
}
interrupted() {
  summary
  exit 130
}
trap interrupted INT TERM

# Our own crates are optimized less than what users get: the same code, compiled in half the time.
# Named with the version, for others need a crate that has the name of one of them.
own=()
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml)"
for crate in services/* shared/* load-tests tests; do
  own+=(--config "profile.release.package.\"$(basename "$crate")@$version\".opt-level=1")
done
compile() { cargo "${own[@]}" "$@"; }

# The image that package managers' own lists are compared with; kept for the next time.
demo_image() {
  local image
  image="$HOME/.cache/tidewaiter/demo-image-$(sha256sum deploy/demo/make-image.sh | cut -c1-12)"
  if [ ! -f "$image/oci-layout" ]; then
    rm -rf "$image.part"
    mkdir -p "$(dirname "$image")"
    (umask 022 && timeout 10m deploy/demo/make-image.sh "$image.part") || return 1
    mv "$image.part" "$image"
  fi
  export TIDEWAITER_DEMO_IMAGE="$image"
}

doc() { RUSTDOCFLAGS='-D warnings' compile doc --locked --release --no-deps --workspace --quiet; }

tests() {
  if [ $quick = yes ]; then
    # The end-to-end tests stand in the package `tests`, of which only the rules are run.
    compile test --locked --release --workspace --exclude tests --no-fail-fast -- --show-output \
      && compile test --locked --release --package tests --test tidy
  else
    # The end-to-end tests start the programs themselves.
    compile build --locked --release --workspace --bin tidewaiter --bin tidewaiter-agent \
      && compile test --locked --release --workspace --no-fail-fast -- --show-output
  fi 2>&1 | tee "$log"
}

# Finds a current nats-server, or builds it with Go. What that needs from the network may be away.
current_nats_is_there() {
  [ ! -x "$tools/bin/nats-server" ] || return 0
  echo "building a current nats-server (once, into $tools)"
  GOBIN="$tools/bin" timeout 10m go install github.com/nats-io/nats-server/v2@latest
}

# The bus on a current nats-server beside the one that the system has.
current_nats() {
  "$tools/bin/nats-server" --version
  TIDEWAITER_NATS_SERVER="$tools/bin/nats-server" compile test --locked --release --package bus
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
    # Of every platform: a build has fetched what this one needs, and the check may not fetch more.
    cargo fetch --locked --quiet
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
part clippy compile clippy --locked --release --workspace --all-targets -- -D warnings
if [ $quick = yes ]; then
  skip documentation '--quick'
else
  part documentation doc
fi
if [ $quick = no ] && [ -z "${TIDEWAITER_DEMO_IMAGE:-}" ]; then
  start=$SECONDS
  printf '\n== demo image: deploy/demo/make-image.sh\n'
  if demo_image; then
    note 'demo image' passed $((SECONDS - start))
  else
    skip 'demo image' 'it could not be made, see above'
  fi
fi
part tests tests
if [ $quick = yes ]; then
  skip current-nats '--quick'
elif ! command -v go >/dev/null; then
  skip current-nats 'there is no Go toolchain to build a current nats-server with'
elif current_nats_is_there; then
  part current-nats current_nats
else
  skip current-nats 'a current nats-server could not be built, see above'
fi
if [ $quick = yes ]; then
  skip cargo-deny '--quick'
elif deny_is_there; then
  part cargo-deny deny
else
  skip cargo-deny 'it could not be installed, see above'
fi

summary
[ $failed = no ]
