#!/usr/bin/env bash
# What the agent carries, and what that costs: load-tests/agent-load.sh [SECONDS]
#
# Starts programs in a container, first at a set rate, then as fast as the machine can, and sends
# datagrams to addresses that nobody sent to before, which the kernel's first-seen filter lets through,
# at rates that double until the agent tells of the first drop. Prints per step what was done, what the
# agent told, what it dropped by class, and its processor time as a part of one core. The agent writes
# to a NATS server of its own, so that its cost is that of a node at work; what it told is counted by
# another one that runs beside it in a second pass.
#
#   AGENT       the agent; by default that of ~/.cache/tidewaiter/target
#   EXEC_RATES  programs per second (1000), RATES datagrams per second (1000 2000 … 128000)
#   BUDGET      events per second, class and container that the kernel side lets through, instead of
#               the agent's own default: with a large one the first drop is that of the buffers
#
# Needs root, podman, runc, nats-server, cc and python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds="${1:-10}"
agent="${AGENT:-${CARGO_TARGET_DIR:-$HOME/.cache/tidewaiter/target}/release/tidewaiter-agent}"
work="$(mktemp -d)"
agent_pid='' nats_pid=''

podman() {
  command podman --runtime runc --root "$work/store" --runroot "$work/run" --tmpdir "$work/t" "$@"
}

end() { # PID
  [ -n "$1" ] || return 0
  kill -TERM "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
}

clean() {
  local result=$?
  trap - EXIT
  end "$agent_pid"
  end "$nats_pid"
  podman rm --all --force --time 0 >/dev/null 2>&1 || true
  podman system reset --force >/dev/null 2>&1 || true
  rm -rf "$work"
  exit $result
}
trap clean EXIT
trap 'exit 130' INT TERM

# What makes the load: `load exec RATE SECONDS` starts itself, `load send RATE SECONDS FIRST` sends to
# addresses from a number on. RATE 0 is as fast as it goes. Prints how often it did it.
make_image() {
  mkdir -p "$work"/root/{bin,proc,sys,dev,tmp}
  cat >"$work/load.c" <<'END'
#include <arpa/inet.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int count, char **words) {
  if (count < 2) return 0;
  if (!strcmp(words[1], "wait")) { for (;;) pause(); }
  double rate = atof(words[2]), start = now(), end = start + atof(words[3]);
  unsigned first = count > 4 ? strtoul(words[4], NULL, 10) : 0;
  int sender = socket(AF_INET, SOCK_DGRAM, 0);
  long done = 0, failed = 0;
  while (now() < end) {
    if (rate > 0 && done > (now() - start) * rate) { usleep(500); continue; }
    if (!strcmp(words[1], "exec")) {
      char *child[] = {"/bin/load", NULL};
      pid_t pid;
      failed += posix_spawn(&pid, child[0], NULL, NULL, child, environ) != 0;
      waitpid(pid, NULL, 0);
    } else {
      unsigned number = first + done;
      struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(1024 + number % 60000)};
      to.sin_addr.s_addr = htonl(0x7f000000u | (2 + number / 60000));
      failed += sendto(sender, "x", 1, 0, (struct sockaddr *)&to, sizeof to) < 0;
    }
    done++;
  }
  printf("%ld %.0f %ld\n", done, done / (now() - start), failed);
  return 0;
}
END
  cc -O2 -static -o "$work/root/bin/load" "$work/load.c"
  tar -C "$work/root" -cf "$work/root.tar" .
  podman import --quiet "$work/root.tar" localhost/load:1 >/dev/null
}

start_nats() {
  nats-server --addr 127.0.0.1 --port 0 --ports_file_dir "$work" --jetstream --store_dir "$work/nats" \
    >"$work/nats.log" 2>&1 &
  nats_pid=$!
  local file="$work/nats-server_$nats_pid.ports"
  until [ -s "$file" ]; do sleep 0.05; done
  nats="$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["nats"][0])' "$file")"
}

configure() {
  cat >"$work/agent.yaml" <<END
node: load
data_dir: $work/agent
bus:
  url: $nats
engines:
  docker: []
  containerd: []
  podman: []
END
  [ -z "${BUDGET:-}" ] || printf 'sensor:\n  events_per_s_max: %d\n' "$BUDGET" >>"$work/agent.yaml"
}

start_agent() { # run|watch
  "$agent" "$1" --config "$work/agent.yaml" >"$work/told" 2>"$work/agent.log" &
  agent_pid=$!
  # The one says that it sees, the other shows it.
  until grep -q 'tier `bpf`' "$work/agent.log" || [ -s "$work/told" ]; do
    kill -0 "$agent_pid" 2>/dev/null || { cat "$work/agent.log" >&2; exit 1; }
    podman exec load /bin/load
  done
}

# Hundredths of a second that the agent has worked.
ticks() { awk '{ print $14 + $15 }' "/proc/$agent_pid/stat"; }

# How many events the recording has, and what its log says was dropped, by class.
told() {
  local drops
  drops="$(sed -n 's/.* \([0-9]*\) events of class `\(.*\)` were counted and not told.*/\2 \1/p' "$work/agent.log" \
    | awk '{ sum[$1] += $2 } END { for (class in sum) printf "%s %d ", class, sum[class] }')"
  echo "$(wc -l <"$work/told")" "${drops:-nothing}"
}

step() { # WHAT RATE FIRST
  local before after done rate failed events drops
  start_agent run
  before=$(ticks)
  read -r done rate failed < <(podman exec load /bin/load "$1" "$2" "$seconds" "$3")
  sleep 1
  after=$(ticks)
  end "$agent_pid"
  start_agent watch
  podman exec load /bin/load "$1" "$2" "$seconds" "$3" >/dev/null
  sleep 1
  end "$agent_pid"
  agent_pid=''
  read -r events drops < <(told)
  awk -v what="$1" -v wanted="$2" -v rate="$rate" -v failed="$failed" -v events="$events" \
    -v drops="$drops" -v ticks=$((after - before)) -v seconds="$seconds" -v done="$done" 'BEGIN {
      printf "%-5s %9s %9d %8d %9d %8.1f %%  %s\n", what, wanted ? wanted : "most", rate, failed, events,
        ticks / seconds, drops }'
  [ "$drops" = nothing ]
}

make_image
start_nats
configure
podman run --detach --name load --network none --ulimit nofile=1024:1024 --ulimit nproc=2048:2048 \
  localhost/load:1 /bin/load wait >/dev/null
printf '%-5s %9s %9s %8s %9s %10s  %s\n' what wanted/s done/s failed told 'of a core' dropped
for rate in ${EXEC_RATES:-1000} 0; do
  step exec "$rate" 0 || true
done
first=0
for rate in ${RATES:-1000 2000 4000 8000 16000 32000 64000 128000}; do
  step send "$rate" "$first" || { echo "the first drop was at $rate datagrams per second"; break; }
  first=$((first + rate * seconds * 3))
done
