#!/usr/bin/env bash
# What the agent costs a container that works: load-tests/agent-redis.sh [PAIRS] [REQUESTS]
#
# Starts redis in a container, and lets redis-benchmark ask it in the same container, in alternating
# pairs with and without the agent on the machine. Prints a line per pair, and the medians: requests
# per second, and processor time of redis per request, which other work on the machine disturbs less.
#
#   AGENT      the agent; by default that of ~/.cache/tidewaiter/target
#   REDIS_ROOT where redis-server and redis-benchmark are unpacked, if not installed
#
# Needs root, podman, runc, redis-server and redis-tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pairs="${1:-5}" requests="${2:-300000}"
agent="${AGENT:-${CARGO_TARGET_DIR:-$HOME/.cache/tidewaiter/target}/release/tidewaiter-agent}"
redis="${REDIS_ROOT:-}"
work="$(mktemp -d)"
agent_pid=''

podman() {
  command podman --runtime runc --root "$work/store" --runroot "$work/run" --tmpdir "$work/t" "$@"
}

stop_agent() {
  [ -n "$agent_pid" ] || return 0
  kill -TERM "$agent_pid" 2>/dev/null || true
  wait "$agent_pid" 2>/dev/null || true
  agent_pid=''
}

clean() {
  local result=$?
  trap - EXIT
  stop_agent
  podman rm --all --force --time 0 >/dev/null 2>&1 || true
  podman system reset --force >/dev/null 2>&1 || true
  rm -rf "$work"
  exit $result
}
trap clean EXIT
trap 'exit 130' INT TERM

make_image() {
  local program library
  mkdir -p "$work"/root/{bin,lib64,proc,sys,dev,tmp,usr/lib}
  for program in redis-server redis-benchmark; do
    cp "$(command -v "$redis/usr/bin/$program" "$program" | head -n 1)" "$work/root/bin/"
    for library in $(LD_LIBRARY_PATH="$(echo "$redis"/usr/lib/*-linux-gnu)" ldd "$work/root/bin/$program" \
      | grep -o '/[^ )]*'); do
      case "$library" in
        */ld-*) mkdir -p "$work/root$(dirname "$library")" && cp "$library" "$work/root$library" ;;
        *) cp "$library" "$work/root/usr/lib/" ;;
      esac
    done
  done
  tar -C "$work/root" -cf "$work/root.tar" .
  podman import --quiet "$work/root.tar" localhost/redis:1 >/dev/null
}

start_agent() {
  cat >"$work/agent.yaml" <<END
node: load
data_dir: $work/agent
bus:
  url: nats://127.0.0.1:1
engines:
  docker: []
  containerd: []
  podman: []
END
  : >"$work/agent.log"
  "$agent" run --config "$work/agent.yaml" 2>"$work/agent.log" &
  agent_pid=$!
  until grep -q 'tier `bpf`' "$work/agent.log"; do
    kill -0 "$agent_pid" 2>/dev/null || { cat "$work/agent.log" >&2; exit 1; }
    sleep 0.05
  done
}

# Hundredths of a second that redis has worked.
ticks() { awk '{ print $14 + $15 }' "/proc/$server/stat"; }

# Requests per second, and nanoseconds of redis's processor time per request.
ask() {
  local before after rate
  before=$(ticks)
  rate=$(podman exec redis /bin/redis-benchmark -t set -n "$requests" -c 20 --csv \
    | tr -d '"' | awk -F, '$1 == "SET" { print $2 }')
  after=$(ticks)
  awk -v rate="$rate" -v ticks=$((after - before)) -v requests="$requests" \
    'BEGIN { printf "%.0f %.0f\n", rate, ticks * 1e7 / requests }'
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

make_image
podman run --detach --name redis --network none --ulimit nofile=1024:1024 --ulimit nproc=2048:2048 \
  --env LD_LIBRARY_PATH=/usr/lib localhost/redis:1 /bin/redis-server --save '' >/dev/null
server=$(podman inspect --format '{{.State.Pid}}' redis)
ask >/dev/null

printf '%4s %14s %14s %14s %14s\n' pair 'without: 1/s' 'ns/request' 'with: 1/s' 'ns/request'
for pair in $(seq "$pairs"); do
  # Every other pair begins with the agent, so that neither side is always the first.
  for side in $([ $((pair % 2)) = 0 ] && echo with without || echo without with); do
    if [ "$side" = with ]; then start_agent; fi
    ask >"$work/$side.$pair"
    stop_agent
  done
  read -r rate cost <"$work/without.$pair"
  read -r rate_with cost_with <"$work/with.$pair"
  printf '%4s %14s %14s %14s %14s\n' "$pair" "$rate" "$cost" "$rate_with" "$cost_with"
done
for column in 1 2; do
  without=$(cut -d' ' -f$column "$work"/without.* | median)
  with=$(cut -d' ' -f$column "$work"/with.* | median)
  name=$([ $column = 1 ] && echo 'requests per second' || echo 'ns of redis per request')
  awk -v name="$name" -v a="$without" -v b="$with" \
    'BEGIN { printf "median %s: %s without, %s with, %+.1f %%\n", name, a, b, (b - a) * 100 / a }'
done
