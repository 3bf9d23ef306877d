#!/usr/bin/env bash
# Puts together the root file system of the image: deploy/image/root.sh PROGRAM LICENSE DIRECTORY
#
# The program, the libraries that it loads and their loader, authorities of certificates, who the user
# is, and a directory for data. Nothing else: no shell, no other program.
set -euo pipefail

program=${1:?the program}
license=${2:?the license}
root=${3:?the directory, which must not exist}
# `tidewaiter` or `tidewaiter-agent`: it is /usr/bin/$name there, and has /var/lib/$name.
name=$(basename "$program")
authorities=${AUTHORITIES:-/etc/ssl/certs/ca-certificates.crt}
user=65532

fail() {
  printf '%s\n' "root.sh: $*" >&2
  exit 1
}

[ -x "$program" ] || fail "\`$program\` is no program"
[ -s "$authorities" ] || fail "\`$authorities\` is not there: install the package ca-certificates"
[ ! -e "$root" ] || fail "\`$root\` is there already"

mkdir -p "$root"
root=$(cd "$root" && pwd)
install -D --mode 0755 "$program" "$root/usr/bin/$name"
install -D --mode 0644 "$license" "$root/usr/share/doc/$name/LICENSE"

# Paths as the loader looks for them, links followed: `/lib64/ld-linux…` is part of the program.
libraries=$(ldd "$program") || fail "\`ldd\` cannot read \`$program\`"
case "$libraries" in *'not found'*) fail "a library is missing here: $libraries" ;; esac
while read -r library; do
  install -D --mode 0755 "$(readlink -f "$library")" "$root$library"
done < <(grep -o '/[^ ]*' <<<"$libraries")

install -D --mode 0644 "$authorities" "$root/etc/ssl/certs/ca-certificates.crt"
printf 'tidewaiter:x:%s:%s:tidewaiter:/var/lib/%s:/sbin/nologin\n' "$user" "$user" "$name" \
  >"$root/etc/passwd"
printf 'tidewaiter:x:%s:\n' "$user" >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 0644 "$root"/etc/{passwd,group,nsswitch.conf}

# A volume takes its owner and mode from here. Whichever user it runs as can write there, as with /tmp:
# some platforms choose the user, and nobody else lives in the image.
mkdir -p "$root/tmp" "$root/var/lib/$name"
chmod 1777 "$root/tmp" "$root/var/lib/$name"

# Times of the build would make two builds differ.
find "$root" -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH:-0}" {} +
