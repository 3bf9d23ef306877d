#!/usr/bin/env bash
# Makes the demonstration image: deploy/demo/make-image.sh DIR
#
# DIR becomes an OCI image layout with one image, tag `demo`, of two layers: Debian as debootstrap
# installs it, and an application with old Python and npm packages, installed by pip and npm.
# It needs root for debootstrap (sudo is used if need be) and a Debian mirror, PyPI and npm: the
# ones that apt, pip and npm of this machine are set up for.
set -euo pipefail

out="${1:?which directory? usage: make-image.sh DIR}"
suite=bookworm
# Exactly these: every one has known vulnerabilities, or is needed by one that has.
python_packages=(certifi==2018.4.16 chardet==3.0.4 click==6.7 flask==0.12.2 idna==2.7
  itsdangerous==1.1.0 jinja2==2.10 markupsafe==2.1.5 pyyaml==5.1 requests==2.19.1 urllib3==1.24.1
  werkzeug==0.14.1)
npm_packages=(axios@0.18.0 handlebars@4.0.11 lodash@4.17.4 minimist@0.0.8 qs@6.5.1)

say() { printf '%s\n' "demo image: $*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

work="$(mktemp -d)"
clean() {
  # The unpacked Debian belongs to root.
  as_root rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

# The mirror that apt uses for Debian here, whatever it is.
mirror() {
  # shellcheck disable=SC2016 # apt replaces these, not the shell.
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' \
    'Created-By: Packages' 2>/dev/null | awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }'
}

make_debian() { # DIR
  local from
  from="$(mirror)"
  from="${from:-http://deb.debian.org/debian}"
  say "Debian $suite from $from (a minute or two)"
  if ! as_root env PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase "$suite" "$1" "$from" >"$work/debootstrap.log" 2>&1; then
    tail -n 20 "$work/debootstrap.log" >&2
    say "debootstrap did not finish"
    return 1
  fi
  # shellcheck disable=SC2016 # the inner shell replaces it.
  as_root sh -c 'cd "$1" && rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* dev/* proc/* sys/* tmp/*' sh "$1"
}

# pip and npm, each from where this machine has it.
need_installers() {
  local missing=()
  python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
  command -v npm >/dev/null || missing+=(npm)
  [ ${#missing[@]} = 0 ] || {
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
  }
}

make_application() { # DIR
  say "old packages from PyPI: ${python_packages[*]}"
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
    --root-user-action=ignore --target "$1/opt/app/python" "${python_packages[@]}"
  say "old packages from npm: ${npm_packages[*]}"
  mkdir -p "$1/opt/app/node"
  printf '{"name": "demo", "version": "1.0.0", "private": true}\n' >"$1/opt/app/node/package.json"
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$1/opt/app/node" \
    "${npm_packages[@]}" >&2
}

digest_of() { sha256sum "$1" | cut -d' ' -f1; }

# Stores a file under its digest and prints "digest size".
add_blob() { # FILE
  local digest
  digest="$(digest_of "$1")"
  printf '%s %s\n' "$digest" "$(stat --format=%s "$1")"
  mv "$1" "$out/blobs/sha256/$digest"
}

# Packs a folder as a layer and prints "digest size diffID".
add_layer() { # NAME DIR
  local tar="$work/$1.tar" diff_id
  as_root tar --create --directory "$2" --sort=name --numeric-owner --owner=0 --group=0 \
    --mtime=@1700000000 . >"$tar"
  diff_id="$(digest_of "$tar")"
  gzip --no-name -6 "$tar"
  printf '%s %s\n' "$(add_blob "$tar.gz")" "$diff_id"
}

descriptor() { # MEDIA_TYPE DIGEST SIZE
  printf '{"mediaType": "application/vnd.oci.image.%s", "digest": "sha256:%s", "size": %s}' "$1" "$2" "$3"
}

mkdir -p "$out/blobs/sha256" "$work/application"
need_installers
make_application "$work/application"
make_debian "$work/debian"

say "packing layers"
read -r base base_size base_id < <(add_layer debian "$work/debian")
read -r app app_size app_id < <(add_layer application "$work/application")

cat >"$work/config" <<END
{"created": "2023-11-14T22:13:20Z", "architecture": "$(dpkg --print-architecture)", "os": "linux",
 "config": {"Env": ["PYTHONPATH=/opt/app/python"], "Cmd": ["python3", "-m", "flask"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$base_id", "sha256:$app_id"]},
 "history": [{"created_by": "debootstrap --variant=minbase $suite"},
             {"created_by": "pip install ${python_packages[*]} && npm install ${npm_packages[*]}"}]}
END
read -r config config_size < <(add_blob "$work/config")
cat >"$work/manifest" <<END
{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
 "config": $(descriptor config.v1+json "$config" "$config_size"),
 "layers": [$(descriptor layer.v1.tar+gzip "$base" "$base_size"),
            $(descriptor layer.v1.tar+gzip "$app" "$app_size")]}
END
read -r manifest manifest_size < <(add_blob "$work/manifest")
cat >"$out/index.json" <<END
{"schemaVersion": 2, "manifests": [
  {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:$manifest",
   "size": $manifest_size, "annotations": {"org.opencontainers.image.ref.name": "demo"}}]}
END
printf '{"imageLayoutVersion": "1.0.0"}\n' >"$out/oci-layout"
say "done: $out ($(du --summarize --human-readable "$out" | cut -f1))"
