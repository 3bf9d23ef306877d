#!/usr/bin/env bash
# What containers really do, on one machine, from a fresh clone to the first incident and its end:
#
#   deploy/quickstart-runtime.sh [IMAGE] [--once] [--data-dir DIR]
#
# Installs what is missing, builds, starts a NATS server, `tidewaiter serve` and the agent, starts a
# container, runs a program in it that is not of its image, shows the incident, cuts the container off
# from the network by the command line, and has a fresh one take its place by REST. Without IMAGE it
# makes one: Debian with old packages. Needs root: the agent looks into the kernel. Ctrl-C stops
# everything and cleans up, the container too.
#
#   IMAGE           oci:DIR:TAG, docker-archive:FILE, debian:12, …: whatever skopeo reads; with a shell
#   --once          stop after that
#   --data-dir DIR  keep data in DIR; otherwise in a temporary directory that is removed at the end
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$here/.."

# shellcheck source=deploy/quickstart-common.sh
. "$here/quickstart-common.sh"
read_arguments "$@"
image="${images[0]:-}"
agent="$CARGO_TARGET_DIR/release/tidewaiter-agent"
name="demo-$$"

nats_pid='' podman_pid='' agent_pid='' has_container=no incident=''
# Where the kernel keeps what is in force on this node.
pins=/sys/fs/bpf/tidewaiter/default-quickstart
# What podman runs with where cgroups are those of v1 as well, or rights are few: its service, too,
# for that makes the container that takes the other's place.
runtime=()
[ -e /sys/fs/cgroup/cgroup.controllers ] || runtime=(--runtime runc)

clean() {
  if [ $has_container = yes ]; then
    # What is in force would keep them from being removed.
    [ -z "$incident" ] || ask response release --incident "$incident" >/dev/null 2>&1 || true
    # The one that was replaced bears the name too, with an end.
    podman ps --all --quiet --filter "name=$name" \
      | timeout 60 xargs --no-run-if-empty podman rm --force --time 0 >/dev/null 2>&1 || true
    podman rmi --force "$tag" >/dev/null 2>&1 || true
  fi
  stop "$agent_pid" 'the agent'
  stop "$podman_pid" "podman's service"
  stop "$server_pid" 'tidewaiter'
  stop "$registry_pid" 'the registry'
  stop "$nats_pid" 'nats-server'
  [ ! -d "$pins" ] || rm -rf "$pins"
}
clean_at_end

# One server for both. In a fleet each node's agent has a key of its own, with which it can publish
# under its node's name and do nothing else: `tidewaiter nats accounts --agent NODE`.
start_nats() {
  local password
  nats_port=$(free_port)
  password=$(random_hex)
  cat >"$data/nats.conf" <<END
listen: 127.0.0.1:$nats_port
jetstream { store_dir: "$data/nats", max_file_store: 100GB }
authorization { user: tidewaiter, password: "$password" }
END
  setsid nats-server --config "$data/nats.conf" >"$data/nats.log" 2>&1 &
  nats_pid=$!
  wait_for "$nats_pid" 30 'nats-server' "$data/nats.log" bash -c "exec 3<>/dev/tcp/127.0.0.1/$nats_port"
  nats_url="nats://tidewaiter:$password@127.0.0.1:$nats_port"
}

# The registry that the image comes from: what a container runs is compared with what its image holds,
# and an image that no source has is not read.
start_registry() {
  registry="127.0.0.1:$(free_port)"
  # Not below `tidewaiter`: policy leaves alone what is the fabric's own.
  tag="$registry/demo/$name:1"
  cat >"$data/registry.yml" <<END
version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: $data/registry
http:
  addr: $registry
END
  setsid docker-registry serve "$data/registry.yml" >"$data/registry.log" 2>&1 &
  registry_pid=$!
  wait_for "$registry_pid" 30 'the registry' "$data/registry.log" curl --silent --fail "http://$registry/v2/"
  say "registry:   http://$registry, log in $data/registry.log"
}

start_server() {
  random_hex >"$data/hook.token"
  # Signs what nodes shall do: agents believe it, and nothing else that comes over NATS. A key is
  # never written over, so that of an earlier run in the same directory goes on.
  if [ ! -s "$data/response.pub" ]; then
    rm -f "$data/response.key"
    "$tidewaiter" response key "$data/response.key" >"$data/response.pub.part"
    mv "$data/response.pub.part" "$data/response.pub"
  fi
  trusted=$(cat "$data/response.pub")
  cat >"$data/tidewaiter.yaml" <<END
gateway:
  sources:
    - name: local
      kind: distribution
      registry: $registry
      plain_http: true
      allow_private: true
      hook_token: file:$data/hook.token
policy:
  signing_key_file: $data/response.key
data_dir: $data
http:
  listen: 127.0.0.1:0
bus:
  url: $nats_url
END
  serve
}

start_agent() {
  local socket="$data/podman.sock"
  setsid podman "${runtime[@]}" system service --time=0 "unix://$socket" >"$data/podman.log" 2>&1 &
  podman_pid=$!
  wait_for "$podman_pid" 30 "podman's service" "$data/podman.log" test -S "$socket"
  cat >"$data/agent.yaml" <<END
node: quickstart
data_dir: $data/agent
bus:
  url: $nats_url
engines:
  podman: ["$socket"]
response:
  keys: ["$trusted"]
END
  say 'what can be seen and enforced here:'
  "$agent" probe --config "$data/agent.yaml"
  setsid "$agent" run --config "$data/agent.yaml" >"$data/agent.log" 2>&1 &
  agent_pid=$!
  wait_for "$agent_pid" 60 'the agent' "$data/agent.log" grep -q 'tier `[bp]' "$data/agent.log"
  say "agent:      node quickstart, log in $data/agent.log"
}

run_container() {
  podman "${runtime[@]}" run --detach --name "$name" \
    --ulimit nofile=1024:1024 --ulimit nproc=2048:2048 "$tag" sleep 86400 >"$data/container.id"
}

# Whether the container's image was read: only then is it known what is not of it.
is_scanned() { get /v1/images | grep -q "demo/$name"; }

is_known() { get /v1/containers | grep -q "$(cat "$data/container.id")"; }

# Whether this container has one: others run on the machine too.
has_incident() {
  get "/v1/incidents?container=$(cat "$data/container.id")" >"$data/incidents.json" \
    && grep -q '"id":' "$data/incidents.json"
}

# What the first incident says of itself.
first() { # FIELD
  grep --only-matching "\"$1\":\"[^\"]*\"" "$data/incidents.json" | head -n 1 | cut -d '"' -f 4
}

# Whether a response to the incident has come to its end.
is_done() { ask response show "$incident" 2>/dev/null | grep -q "^$1 (enforced): done"; }

order() { # JSON
  printf 'Authorization: Bearer %s\n' "$(cat "$data/admin.token")" \
    | curl --silent --show-error --fail --header @- --json "$1" "$server/v1/incidents/$incident/orders"
}

[ "$(id -u)" = 0 ] || fail 'the agent looks into the kernel: run it as root'

step 'preparing this machine'
"$here/prepare.sh" build demo runtime

step 'building (the first time takes a while: RocksDB is C++)'
cargo build --locked --release --workspace --bin tidewaiter --bin tidewaiter-agent

use_data_dir

if [ -z "$image" ]; then
  make_demo_image
  image="oci:$demo:demo"
fi
step 'starting'
start_nats
start_registry
start_server
start_agent

step "a container of $image"
has_container=yes
skopeo copy --quiet --insecure-policy --dest-tls-verify=false "$(source_of "$image")" "docker://$tag"
podman pull --quiet --tls-verify=false "$tag" >/dev/null
run_container
wait_for "$agent_pid" 30 'the container in the inventory' "$data/agent.log" is_known
say "container $name is known to the fabric: GET /v1/containers"
wait_for "$agent_pid" 60 'its image among the scanned' "$data/tidewaiter.log" is_scanned
say "its image was sighted, and scanned from $registry: GET /v1/images"

step 'a program that is not of its image'
# A copy with another content, as whatever somebody downloads.
podman exec "$name" sh -c 'cp /bin/ls /tmp/dropped && printf x >>/tmp/dropped && chmod +x /tmp/dropped && /tmp/dropped / >/dev/null'
started=$(date +%s%3N)
wait_for "$agent_pid" 120 'the incident' "$data/tidewaiter.log" has_incident
incident=$(first id)
say "seen after $(($(date +%s%3N) - started)) ms: $(first severity): $(first title)"
say "all of it: GET /v1/incidents/$incident"

step 'cut off from the network, by the command line'
# It is the only container of its image: without --force the last that serves stays in service.
ask response act quarantine --incident "$incident" --force --reason 'to look at it in peace'
wait_for "$agent_pid" 60 "the agent's answer" "$data/agent.log" is_done quarantine

step 'a fresh one in its place, by REST'
order '{"order": "act", "action": "replace", "force": true, "reason": "a clean copy"}'
printf '\n'
wait_for "$agent_pid" 120 "the agent's answer" "$data/agent.log" is_done replace
ask response show "$incident"
podman ps --all --filter "name=$name"

cat <<END

-- how to go on
Incidents              curl -H "Authorization: Bearer \$(cat $data/admin.token)" $server/v1/incidents
Containers             curl -H "Authorization: Bearer \$(cat $data/admin.token)" $server/v1/containers
What was done          $tidewaiter response list --server $server --token-file $data/admin.token
Take it back           $tidewaiter response release --incident $incident --server $server --token-file $data/admin.token
By rules of your own   $tidewaiter response policy put FILE --server $server --token-file $data/admin.token
What they would do     $tidewaiter policy replay FILE --server $server --token-file $data/admin.token
What containers do     $agent watch
Something else in it   podman exec -it $name sh
END

if [ $once = no ]; then
  printf '\nCtrl-C stops everything%s.\n' "${temporary:+ and removes $temporary}"
  wait -n $server_pid $agent_pid || true
  tail -n 20 "$data/tidewaiter.log" "$data/agent.log" >&2
  fail 'a part has stopped; the end of the logs is above'
fi
