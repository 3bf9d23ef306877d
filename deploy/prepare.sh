#!/usr/bin/env bash
# Installs what this machine lacks: deploy/prepare.sh [build] [test] [demo] [runtime]
#
#   build   a compiler for Rust, and those for RocksDB's and AWS-LC's C and C++ and the agent's C
#   test    the servers and tools that the tests run
#   demo    what the quickstart runs and makes its image with
#   runtime what the quickstart of the agent runs containers with
#
# Nothing is done for what is there already, so a second run takes a moment.
set -euo pipefail

# Of crates: cc (AWS-LC), g++ and libclang (RocksDB), clang, make, libelf and zlib (the agent's kernel
# side and its loader). Everything else is Rust.
build_packages=(ca-certificates clang curl g++ libclang-dev libelf-dev make pkg-config zlib1g-dev)
test_packages=(ca-certificates curl debootstrap debian-archive-keyring docker-registry nats-server
  python3 rpm ruby skopeo)
demo_packages=(ca-certificates curl debootstrap debian-archive-keyring docker-registry gzip
  nats-server skopeo tar)
runtime_packages=(ca-certificates podman runc)
# Packages that start a server as soon as they are installed.
servers=(docker-registry nats-server)

say() { printf '%s\n' "prepare: $*" >&2; }
fail() {
  say "$*"
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "\`$*\` needs root, and there is no sudo: run it as root, then start again"
  fi
}

is_installed() {
  [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]
}

# A package counts as there when its command is: people install from elsewhere, too.
is_there() {
  case "$1" in
    g++ | clang | make | curl | podman | runc | skopeo | debootstrap | docker-registry | nats-server \
      | python3 | gzip | tar | npm | rpm | ruby)
      PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null
      ;;
    libclang-dev) compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || is_installed "$1" ;;
    *) is_installed "$1" ;;
  esac
}

install_packages() {
  local package missing=() started=()
  for package in "$@"; do
    is_there "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null \
    || fail "install these by hand, there is no apt here: ${missing[*]}"
  say "installing ${missing[*]}"
  # RUNLEVEL=1 keeps init scripts from starting servers; systemd does not look at it.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 \
    || say 'apt could not refresh all of its lists: going on with what it has'
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
  if [ -d /run/systemd/system ]; then
    for package in "${servers[@]}"; do
      case " ${missing[*]} " in *" $package "*) started+=("$package") ;; esac
    done
    for package in "${started[@]}"; do
      say "the package has started a $package of its own: stopping it, only the program is wanted"
      as_root systemctl --quiet disable --now "$package" || true
    done
  fi
}

install_rust() {
  export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  local wanted have
  wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml")"
  if ! command -v cargo >/dev/null; then
    say "installing Rust with rustup (https://rustup.rs)"
    curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs \
      | sh -s -- -y --quiet --no-modify-path --profile minimal --component clippy,rustfmt >&2 \
      || fail "rustup could not be fetched: install Rust $wanted or newer by hand, then start again"
  fi
  have="$(cargo --version | cut -d' ' -f2)"
  # Somebody's toolchain is theirs: it is never updated from here.
  if [ "$(printf '%s\n' "$wanted" "$have" | sort --version-sort | head -n1)" != "$wanted" ]; then
    fail "this needs Rust $wanted or newer, and cargo says \`${have:-nothing}\`: try \`rustup update stable\`"
  fi
  if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    say "rustfmt or clippy is missing, tests/run.sh needs them: try \`rustup component add rustfmt clippy\`"
  fi
}

for part in "$@"; do
  case "$part" in
    build)
      install_packages "${build_packages[@]}"
      install_rust
      ;;
    test) install_packages "${test_packages[@]}" ;;
    demo) install_packages "${demo_packages[@]}" ;;
    runtime) install_packages "${runtime_packages[@]}" ;;
    *) fail "\`$part\` is none of: build, test, demo, runtime" ;;
  esac
done
