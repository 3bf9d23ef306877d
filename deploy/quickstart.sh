#!/usr/bin/env bash
# Tidewaiter on one machine, from a fresh clone to the first verdict:
#
#   deploy/quickstart.sh [IMAGE…] [--once] [--data-dir DIR]
#
# Installs what is missing, builds, starts `tidewaiter serve` and a local registry that reports
# every push to it, pushes images, and prints the verdicts. Without IMAGE it makes one: Debian with
# old Python and npm packages. Ctrl-C stops everything and cleans up.
#
#   IMAGE           debian:12, oci:DIR:TAG, docker-archive:FILE, …: whatever skopeo reads
#   --once          stop after the verdicts
#   --data-dir DIR  keep data in DIR; otherwise in a temporary directory that is removed at the end
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$here/.."

# shellcheck source=deploy/quickstart-common.sh
. "$here/quickstart-common.sh"
read_arguments "$@"
osv=https://osv-vulnerabilities.storage.googleapis.com

feeds_wanted=()

clean() {
  # The registry first: it would report to nobody.
  stop "$registry_pid" 'the registry'
  stop "$server_pid" 'tidewaiter'
}
clean_at_end

now_ms() { date +%s%3N; }

start_server() {
  registry="127.0.0.1:$(free_port)"
  # Not an argument and not in the configuration: nobody who reads either may send events.
  random_hex >"$data/hook.token"
  cat >"$data/tidewaiter.yaml" <<END
data_dir: $data
http:
  listen: 127.0.0.1:0
gateway:
  sources:
    - name: local
      kind: distribution
      registry: $registry
      plain_http: true
      allow_private: true
      hook_token: file:$data/hook.token
END
  serve
}

start_registry() {
  cat >"$data/registry.yml" <<END
version: 0.1
log:
  level: warn
storage:
  delete:
    enabled: true
  filesystem:
    rootdirectory: $data/registry
http:
  addr: $registry
  secret: $(random_hex)
notifications:
  endpoints:
    - name: tidewaiter
      url: $server/hooks/local
      headers:
        Authorization: [Bearer $(cat "$data/hook.token")]
      timeout: 2s
      threshold: 5
      backoff: 1s
END
  setsid docker-registry serve "$data/registry.yml" >"$data/registry.log" 2>&1 &
  registry_pid=$!
  wait_for "$registry_pid" 30 'the registry' "$data/registry.log" curl --silent --fail "http://$registry/v2/"
  say "registry:   http://$registry, its access log in $data/registry.log"
}

load_advisories() {
  if curl --silent --fail --max-time 5 --output /dev/null "$osv/ecosystems.txt"; then
    say "fetching advisories for Debian, PyPI and npm from OSV.dev"
    feeds_wanted=(Debian PyPI npm)
    ask db update --ecosystem Debian --ecosystem PyPI --ecosystem npm
  else
    say "OSV.dev cannot be reached: using the few dozen advisories of deploy/demo/advisories,"
    say "which cover the demonstration's packages and nothing else"
    feeds_wanted=(advisories)
    ask db import "$here/demo/advisories" --replace
  fi
  wait_for "$server_pid" 120 'the advisory revision' "$data/tidewaiter.log" has_advisories
}

# Whether what was handed in is in force everywhere: every feed, and in every partition.
has_advisories() {
  local feeds health revision
  feeds="$(get /v1/advisories)" && health="$(get /v1/health)" || return 1
  for feed in "${feeds_wanted[@]}"; do
    [[ "$feeds" == *"\"name\":\"$feed\""* ]] || return 1
  done
  [[ "$health" =~ \"revision\":([1-9][0-9]*) ]] || return 1
  revision="${BASH_REMATCH[1]}"
  [[ "$health" == *"\"swept\":$revision,"* ]]
}

# A name in our registry: what remains of IMAGE without transport, path and digest. Two images of
# one name get different ones.
declare -A named
name_of() { # IMAGE NUMBER; sets `name`
  local tag
  name="${1#*://}" && name="${name%@*}" && name="${name%.tar}"
  case "$name" in oci:* | dir:* | *-archive:*) name="${name#*:}" ;; esac
  name="${name##*/}"
  tag="${name#*:}"
  [ "$tag" != "$name" ] || tag=latest
  name="$(printf '%s' "${name%%:*}" | tr '[:upper:]' '[:lower:]' | tr -cd 'a-z0-9._-')"
  name="${name:-image}:$tag"
  [ -z "${named[$name]:-}" ] || name="${name%%:*}-$2:$tag"
  named[$name]=yes
  name="$registry/demo/$name"
}

judge() { # IMAGE NUMBER
  local name pushed result=0
  name_of "$1" "$2"
  step "$1"
  pushed=$(now_ms)
  skopeo copy --quiet --insecure-policy --dest-tls-verify=false "$(source_of "$1")" "docker://$name"
  say "pushed as $name in $(seconds_since "$pushed") s"
  pushed=$(now_ms)
  ask check "$name" --wait 10m || result=$?
  case $result in
    0 | 2 | 3) say "from push to verdict: $(seconds_since "$pushed") s" ;;
    *)
      tail -n 20 "$data/tidewaiter.log" >&2
      fail "no verdict on $name; the server's log is above"
      ;;
  esac
}

seconds_since() { # MILLISECONDS
  local past=$(($(now_ms) - $1))
  printf '%d.%02d\n' $((past / 1000)) $((past % 1000 / 10))
}

how_to_go_on() {
  cat <<END

-- how to go on
Everything over REST      curl -H "Authorization: Bearer \$(cat $data/admin.token)" $server/v1/images
Another image             skopeo copy --dest-tls-verify=false docker://debian:12 docker://$registry/demo/debian:12
its verdict               $tidewaiter check $registry/demo/debian:12 --wait 5m --server $server --token-file $data/admin.token
Who has this one?         $tidewaiter images --cve CVE-2018-18074 --server $server --token-file $data/admin.token
More advisories           $tidewaiter db import DIRECTORY --server $server --token-file $data/admin.token
Without any server        $tidewaiter scan IMAGE
END
}

step 'preparing this machine'
"$here/prepare.sh" build demo

step 'building (the first time takes a while: RocksDB is C++)'
cargo build --locked --release --workspace --bin tidewaiter

use_data_dir

if [ ${#images[@]} = 0 ]; then
  make_demo_image
  images=("oci:$demo:demo")
fi

step 'starting'
start_server
start_registry
load_advisories
number=0
for image in "${images[@]}"; do
  number=$((number + 1))
  judge "$image" $number
done
how_to_go_on

if [ $once = no ]; then
  printf '\nCtrl-C stops everything%s.\n' "${temporary:+ and removes $temporary}"
  # As long as both live; a signal ends the wait.
  wait -n $server_pid $registry_pid || true
  tail -n 20 "$data/tidewaiter.log" >&2
  fail 'a server has stopped; the end of its log is above'
fi
