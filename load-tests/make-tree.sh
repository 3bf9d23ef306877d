#!/usr/bin/env bash
# Makes the file system of a large, ordinary image: load-tests/make-tree.sh DIR
#
# Debian with a compiler, a Python stack and a Node application's packages, each as debootstrap, pip
# and npm install them: about 1 GB, 50,000 files. `cargo load
# images` makes images of it. It needs root (sudo is used if need be), debootstrap, pip, npm, and
# the mirrors that apt, pip and npm of this machine are set up for.
set -euo pipefail

tree="${1:?which directory? usage: make-tree.sh DIR}"
suite=bookworm
debian_packages=python3,nodejs,perl,git,openssh-client,curl,ca-certificates,gcc,make,libssl-dev,libpython3-dev,vim-nox
python_packages=(numpy==1.26.4 pandas==2.1.4 matplotlib==3.8.2 django==4.2.1 flask==2.2.2
  requests==2.28.1 sqlalchemy==2.0.20 cryptography==41.0.0 pillow==9.5.0 jinja2==3.1.2 lxml==4.9.3)
npm_packages=(webpack@5.88.0 typescript@5.1.6 @babel/preset-env@7.22.0 eslint@8.44.0 jest@29.6.0
  express@4.18.1 lodash@4.17.20 axios@0.21.1 rxjs@7.8.0 aws-sdk@2.1400.0)

say() { printf '%s\n' "tree: $*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The mirror that apt uses for Debian here, whatever it is.
mirror() {
  # shellcheck disable=SC2016 # apt replaces these, not the shell.
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' \
    'Created-By: Packages' 2>/dev/null | awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }'
}

from="$(mirror)"
from="${from:-http://deb.debian.org/debian}"
say "Debian $suite from $from with $debian_packages"
mkdir -p "$tree"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
if ! as_root env PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase \
  --include="$debian_packages" "$suite" "$tree" "$from" >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  say "debootstrap did not finish"
  exit 1
fi
# shellcheck disable=SC2016 # the inner shell replaces it.
as_root sh -c 'cd "$1" && rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* dev/* proc/* sys/* tmp/*' sh "$tree"

say "from PyPI: ${python_packages[*]}"
as_root python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
  --python-version 3.11 --only-binary=:all: --target "$tree/usr/local/lib/python3.11/dist-packages" \
  "${python_packages[@]}"
say "from npm: ${npm_packages[*]}"
as_root mkdir -p "$tree/srv/app"
printf '{"name": "app", "version": "1.0.0", "private": true}\n' | as_root tee "$tree/srv/app/package.json" >/dev/null
as_root npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$tree/srv/app" \
  "${npm_packages[@]}" >&2
say "done: $(as_root du --summarize --human-readable "$tree" | cut -f1), $(as_root find "$tree" -type f | wc -l) files"
