#!/usr/bin/env bash
# Fuzzes what reads hostile bytes: tests/fuzz.sh [--seconds N] [TARGET...]
#
# Builds each target of shared/*/fuzz and services/*/fuzz and runs it for N seconds (60), one after the other, from the
# test data as seeds. What was found before is kept in fuzz/corpus and begins the next run; an input
# that breaks something is left in fuzz/artifacts, and this ends with 1. A table says how much each
# ran. It needs cargo-fuzz, which is installed if it is missing, and python3; no nightly compiler.
set -euo pipefail
shopt -s nullglob
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

# Images in tar files, of both kinds.
images() {
  python3 - "$1" <<'PY'
import hashlib, io, json, os, pathlib, sys, tarfile
to = pathlib.Path(sys.argv[1])
to.mkdir(parents=True, exist_ok=True)
def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
digest = lambda content: hashlib.sha256(content).hexdigest()
layer = tar([("etc/os-release", b"ID=debian\n")])
config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"], "Cmd": ["sh"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(layer)]}, "history": [{"created_by": "ADD x"}]}).encode()
part = lambda kind, content: {"mediaType": kind, "digest": "sha256:" + digest(content), "size": len(content)}
oci = "application/vnd.oci.image."
manifest = json.dumps({"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
    "config": part(oci + "config.v1+json", config), "layers": [part(oci + "layer.v1.tar", layer)]}).encode()
index = json.dumps({"schemaVersion": 2, "manifests": [part(oci + "manifest.v1+json", manifest) |
    {"platform": {"os": "linux", "architecture": "amd64"}}]}).encode()
blob = lambda content: ("blobs/sha256/" + digest(content), content)
layout = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index), blob(manifest), blob(config), blob(layer)]
saved = json.dumps([{"Config": digest(config) + ".json", "RepoTags": ["a:1"], "Layers": ["a/layer.tar"]}]).encode()
docker = [(digest(config) + ".json", config), ("a/layer.tar", layer), ("manifest.json", saved)]
for name, content in [("layout", tar(layout)), ("docker", tar(docker)), ("both", tar(layout + docker))]:
    (to / (name + ".tar")).write_bytes(content)
for name, content in [("manifest", manifest), ("index", index), ("config", config)]:
    (to / (name + ".json")).write_bytes(content)
answers = {"bearer": b'Bearer realm="https://auth.example/token",service="a",scope="repository:a/b:pull"\n{"token":"abc","expires_in":300}',
    "basic": b'Basic realm="a, \\"b\\""\n{"access_token":"abc"}', "page": b'</v2/_catalog?last=b&n=100>; rel="next"\n{"repositories":["a","b/c"],"tags":["1"]}'}
for name, content in answers.items():
    (to / (name + ".answer")).write_bytes(content)
PY
}

# The texts in the tests of these sources, a file each.
texts() { # TARGET DIRECTORY
  mkdir -p "$seeds/$1"
  python3 - "$seeds/$1" "$2" <<'PY'
import pathlib, re, sys
to, number = pathlib.Path(sys.argv[1]), 0
for file in sorted(pathlib.Path(sys.argv[2]).rglob("*.rs")):
    for text in re.findall(r'r#"(.*?)"#|"((?:[^"\\]|\\.){40,})"', file.read_text(), re.S):
        text = text[0] or text[1].replace("\\n", "\n").replace('\\"', '"')
        (to / f"text-{number}").write_text(text)
        number += 1
PY
}

# What agents send, a line each.
batches() {
  mkdir -p "$1"
  python3 - "$1" "$root/services/behavior/testdata" <<'PY'
import pathlib, sys
to, number = pathlib.Path(sys.argv[1]), 0
for file in sorted(pathlib.Path(sys.argv[2]).rglob("*.jsonl")):
    for line in file.read_bytes().splitlines():
        (to / str(number)).write_bytes(line + b"\n")
        number += 1
PY
}

# Keystores with a key and a certificate each.
keystores() {
  mkdir -p "$1"
  python3 - "$1" <<'PY'
import pathlib, struct, sys
to = pathlib.Path(sys.argv[1])
text = lambda said: struct.pack(">H", len(said)) + said
sized = lambda content: struct.pack(">I", len(content)) + content
alias = text(b"alias") + struct.pack(">Q", 1_700_000_000_000)
certificate = text(b"X.509") + sized(bytes(64))
key = struct.pack(">I", 1) + alias + sized(bytes(48)) + struct.pack(">I", 1) + certificate
trusted = struct.pack(">I", 2) + alias + certificate
for name, magic, version in [("jks", 0xfeedfeed, 2), ("first.jks", 0xfeedfeed, 1), ("jceks", 0xcececece, 2)]:
    (to / name).write_bytes(struct.pack(">III", magic, version, 2) + key + trusted + bytes(20))
object_id = lambda *numbers: b"\x06" + bytes([len(numbers)]) + bytes(numbers)
sequence = lambda content: b"\x30\x82" + struct.pack(">H", len(content)) + content
data = object_id(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1)
for bag in (1, 2, 3):
    bags = sequence(object_id(0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, bag) + bytes(64))
    (to / f"{bag}.p12").write_bytes(sequence(b"\x02\x01\x03" + sequence(data + bags)))
PY
}

seeds_of() {
  local data="$root/shared/analyzers/testdata"
  case "$1" in
    walk | inflate | layer) collect "$1" "$seeds/archives" ;;
    rpm) collect "$1" "$data/rpm" ;;
    zip) collect "$1" "$data/jar" "$data/python" ;;
    programs) collect "$1" "$data/golang" "$data/cargo" "$data/software" ;;
    sbom) collect "$1" "$data/sbom" "$root/shared/report/testdata/sbom" ;;
    keystores) keystores "$seeds/$1" ;;
    secrets) collect "$1" "$data/secrets" ;;
    versions) collect "$1" "$root/shared/vulndb/testdata/versions" ;;
    advisory) collect "$1" "$root/deploy/demo/advisories" ;;
    vendors)
      collect "$1" "$root/shared/vulndb/testdata/vendors"
      texts "$1" "$root/shared/vulndb/src/vendors"
      ;;
    documents | answers | images) images "$seeds/$1" ;;
    hooks) collect "$1" "$root/services/gateway/testdata" ;;
    policies)
      collect "$1" "$root/services/policy/rules"
      texts "$1" "$root/services/policy/src"
      ;;
    batches) batches "$seeds/$1" ;;
    locks) collect "$1" "$data"/*-lock "$data/requirements" "$data/pom" "$data/go-mod" "$data/pylock" "$data/package-resolved" ;;
    *) collect "$1" "$data" ;;
  esac
}

archives
worst=0
printf '| %-10s | %12s | %9s | %6s | %s |\n' target executions 'exec/s' edges result
printf '| %s | %s | %s | %s | %s |\n' ---------- ------------ --------- ------ ------
for folder in shared/*/fuzz services/*/fuzz; do
  for source in "$folder"/fuzz_targets/*.rs; do
    target="$(basename "$source" .rs)"
    [ "$#" = 0 ] || [[ " $* " == *" $target "* ]] || continue
    seeds_of "$target"
    corpus="$folder/corpus/$target"
    mkdir -p "$corpus"
    # What is fuzzed is built of the same as everything else.
    cp Cargo.lock "$folder/Cargo.lock"
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
