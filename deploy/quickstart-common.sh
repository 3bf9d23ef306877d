#!/usr/bin/env bash
# What the quickstart scripts have in common: they source it.
# shellcheck shell=bash disable=SC2034,SC2154
set -euo pipefail

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/tidewaiter/target}"
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin:/sbin"
tidewaiter="$CARGO_TARGET_DIR/release/tidewaiter"
demo="$HOME/.cache/tidewaiter/demo-image-$(sha256sum "$here/demo/make-image.sh" | cut -c1-12)"

images=() once=no data='' temporary='' server_pid='' registry_pid=''
read_arguments() { # ARGUMENT…
  while [ $# -gt 0 ]; do
    case "$1" in
      --once) once=yes ;;
      --data-dir)
        data="${2:?quickstart: --data-dir needs a directory}"
        shift
        ;;
      -h | --help)
        sed -n '2,/^set -/s/^# \{0,1\}//p' "$here/${0##*/}"
        exit 0
        ;;
      -*)
        echo "quickstart: unknown flag \`$1\`, see --help" >&2
        exit 1
        ;;
      *) images+=("$1") ;;
    esac
    shift
  done
}

say() { printf '%s\n' "$*"; }
step() { printf '\n-- %s\n' "$*"; }
fail() {
  printf 'quickstart: %s\n' "$*" >&2
  exit 1
}

# Stops one process of ours: asks, waits, and then does not ask any more.
stop() { # PID NAME
  [ -n "$1" ] && kill -0 "$1" 2>/dev/null || return 0
  kill -TERM "$1" 2>/dev/null || true
  local tries=150
  while kill -0 "$1" 2>/dev/null && [ $tries -gt 0 ]; do
    sleep 0.1
    tries=$((tries - 1))
  done
  if kill -0 "$1" 2>/dev/null; then
    say "$2 does not stop: killing it"
    kill -KILL "$1" 2>/dev/null || true
  fi
  wait "$1" 2>/dev/null || true
}

# What the script started is stopped whatever ends it: it says how in `clean`. A second Ctrl-C does
# not disturb that.
clean_at_end() {
  trap end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

end() {
  local result=$?
  trap - EXIT
  trap '' INT TERM HUP
  [ -z "$server_pid" ] || step 'stopping'
  clean
  [ -z "$temporary" ] || rm -rf "$temporary"
  exit $result
}

# A command that asks the server.
ask() { # ARGUMENTS
  "$tidewaiter" "$@" --server "$server" --token-file "$data/admin.token"
}

free_port() {
  local port
  while true; do
    # Below the range from which the kernel gives ports to clients.
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  printf '%s\n' $port
}

random_hex() { od --address-radix=n --format=x1 --read-bytes=32 /dev/urandom | tr -d ' \n'; }

# Waits until a command succeeds, as long as a process lives.
wait_for() { # PID SECONDS WHAT LOG COMMAND…
  local pid="$1" end=$((SECONDS + $2)) what="$3" log="$4"
  shift 4
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null || [ $SECONDS -ge $end ]; then
      tail -n 20 "$log" >&2
      fail "$what is not there; the log is above"
    fi
    sleep 0.1
  done
}

get() { # PATH
  # The token as a header from a file: an argument can be seen by everybody.
  printf 'Authorization: Bearer %s\n' "$(cat "$data/admin.token")" \
    | curl --silent --fail --header @- "$server$1"
}

# What skopeo calls an image: a transport where none is given.
source_of() { # IMAGE
  case "$1" in
    docker:* | oci:* | oci-archive:* | docker-archive:* | docker-daemon:* | containers-storage:* | dir:*) printf '%s\n' "$1" ;;
    *.tar) printf 'docker-archive:%s\n' "$1" ;;
    *) if [ -f "$1/oci-layout" ]; then printf 'oci:%s\n' "$1"; else printf 'docker://%s\n' "$1"; fi ;;
  esac
}

# Starts tidewaiter with the configuration in the data directory.
serve() {
  rm -f "$data/http.addr"
  # In a session of its own, so that Ctrl-C reaches this script alone, which then stops it in order.
  setsid "$tidewaiter" serve --config "$data/tidewaiter.yaml" >"$data/tidewaiter.log" 2>&1 &
  server_pid=$!
  wait_for "$server_pid" 60 'tidewaiter' "$data/tidewaiter.log" test -s "$data/http.addr"
  server="http://$(cat "$data/http.addr")"
  wait_for "$server_pid" 60 'tidewaiter' "$data/tidewaiter.log" curl --silent --fail "$server/readyz"
  say "tidewaiter: $server, log in $data/tidewaiter.log"
}

# Data is in the directory that was asked for, else in one that is removed at the end.
use_data_dir() {
  umask 077
  if [ -z "$data" ]; then
    temporary="$(mktemp -d)"
    data="$temporary"
  else
    mkdir -p "$data"
    data="$(cd "$data" && pwd)"
  fi
}

make_demo_image() {
  if [ ! -f "$demo/oci-layout" ]; then
    step 'making the demonstration image'
    rm -rf "$demo.part"
    mkdir -p "$(dirname "$demo")"
    (umask 022 && "$here/demo/make-image.sh" "$demo.part")
    mv "$demo.part" "$demo"
  fi
}
