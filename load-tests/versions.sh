#!/usr/bin/env bash
# Compares the order of versions with what ecosystems' own programs say: load-tests/versions.sh
#
# Draws pairs of versions, half of them of real packages, half near each other, has each ecosystem's own program or
# library compare them, and prints a table of tool, pairs right, pairs tried. It ends with 1 where one differs. A
# tool that cannot be installed here is a row that says so. Pairs and tools are those of the tests of `vulndb`
# (`ecosystems/tests/oracles.rs`); this asks programs that are started for each pair about as many as the others.
#
#   PAIRS                  how many pairs such a program is asked about; by default 12000
#   TIDEWAITER_TEST_DATA   a folder of advisories, whose versions are real, and of sample images, of which Alpine's
#                          has apk; without it all versions are made up, and apk is not asked
#   GHC                    `yes` installs GHC, too, for Hackage's versions: it takes 2 GB
#
# It needs root to install what is missing: rpm, ruby, php, node, maven, R, elixir, go; packaging and conan come from
# PyPI into a folder that is gone afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -n "${TIDEWAITER_TEST_DATA:-}" ]; then
  TIDEWAITER_TEST_DATA="$(cd "$TIDEWAITER_TEST_DATA" && pwd)"
  export TIDEWAITER_TEST_DATA
fi
export TIDEWAITER_ORACLE_PAIRS="${PAIRS:-12000}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/tidewaiter/target}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

say() { printf '%s\n' "versions: $*" >&2; }

# install COMMAND-OR-FILE PACKAGE...
install() {
  if [ -e "$1" ] || command -v "$1" >/dev/null; then return; fi
  shift
  apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 || say "cannot install $*"
}

install rpm rpm
install ruby ruby
install php php-cli
install /usr/share/php/Composer/Semver/autoload.php php-composer-semver
install npm nodejs npm
install mvn maven
install Rscript r-base-core
install elixir elixir
install go golang-go
[ "${GHC:-no}" != yes ] || install ghc ghc
if python3 -m venv "$work/python" && "$work/python/bin/pip" install --quiet packaging conan >&2; then
  export PATH="$work/python/bin:$PATH"
else
  say "cannot install packaging and conan"
fi

row() { printf '| %-26s | %7s | %7s | %s\n' "$@"; }

status=0
cargo test --release --locked -p vulndb --lib -- --nocapture --test-threads=1 oracles:: >"$work/said" 2>"$work/log" ||
  status=$?
row tool right tried note
row -------------------------- ------- ------- ----
sed -n -E 's/^.*[^a-z]?skipped: (.*)$/skipped: \1/p; s/^(.* \.\.\. )?([^:]*): ([0-9]+) of ([0-9]+) pairs right, (.*)$/\2\t\3\t\4\t\5/p' \
  "$work/said" | while IFS=$'\t' read -r tool right tried note; do row "$tool" "${right:-}" "${tried:-}" "${note:-}"; done
if [ "$status" != 0 ]; then
  sed -n '/^thread/,/^\]/p' "$work/log" >&2
  tail -n 5 "$work/said" >&2
fi
exit "$status"
