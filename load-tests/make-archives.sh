#!/usr/bin/env bash
# Makes the file system of an image that is mostly archives and programs: load-tests/make-archives.sh DIR
#
# More than 500 Java archives, an EAR with two WARs of such archives in it, and more than 50 programs
# written in Go and Rust: those of Debian's and PyPI's packages, unpacked as distroless images have
# them, with a record of each package in var/lib/dpkg/status.d. `cargo load images` makes images of it.
# It needs dpkg, python3, pip, the lists of `apt-get update`, and the mirrors that apt and pip of this
# machine are set up for.
set -euo pipefail

tree="${1:?which directory? usage: make-archives.sh DIR}"
jars_min=500
programs_min=50
java_packages=(activemq ant ant-optional bnd eclipse-jdt freeplane groovy jmeter jruby jython libactivemq-java
  libaspectj-java libaxis-java libbatik-java libbcprov-java libbnd-java libcommons-collections4-java libcommons-lang3-java
  libderby-java libfop-java libgradle-core-java libgradle-plugins-java libguava-java libhibernate-validator-java
  libhsqldb-java libhttpclient-java libjackson2-core-java libjackson2-databind-java libjaxb-java libjaxws-java
  libjetty9-java libjgit-java liblog4j1.2-java liblog4j2-java liblucene4.10-java liblucene8-java libmariadb-java
  libmaven-resolver-java libmaven3-core-java libmina2-java libnb-platform18-java libnetty-java libopenjfx-java
  libopenjpa-java libpdfbox-java libpostgresql-jdbc-java libscala-library-java libshiro-java libspring-beans-java
  libspring-context-java libspring-core-java libspring-web-java libtomcat9-java libtomcat10-java libundertow-java
  libxalan2-java libxerces2-java libzookeeper-java scala-library visualvm)
go_packages=(age amfora caddy direnv elvish etcd-client etcd-server fzf gh git-lfs gron hey influxdb influxdb-client lego
  lf micro mtail obfs4proxy prometheus prometheus-alertmanager prometheus-apache-exporter prometheus-bind-exporter
  prometheus-blackbox-exporter prometheus-elasticsearch-exporter prometheus-haproxy-exporter prometheus-mysqld-exporter
  prometheus-nginx-exporter prometheus-node-exporter prometheus-postgres-exporter prometheus-process-exporter
  prometheus-pushgateway prometheus-redis-exporter prometheus-snmp-exporter restic runc skopeo snowflake-proxy
  syncthing termshark umoci)
rust_packages=(bat exa fd-find hexyl hyperfine ripgrep sccache sd zoxide)
# Of these uv says which crates are in it (cargo-auditable).
python_packages=(ruff==0.17.6 uv==0.13.9)

say() { printf '%s\n' "archives: $*" >&2; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$tree/var/lib/dpkg/status.d" "$tree/opt/app"

# Those that this release of Debian has, and base-files, which says which release it is.
available() {
  apt-cache policy base-files "$@" | awk '/^[^ ]/ { name = $1 } /^  Candidate: [^(]/ { sub(":$", "", name); print name }'
}

unpack() { # FILE
  local name
  name="$(dpkg-deb --field "$1" Package)"
  dpkg-deb --extract "$1" "$tree"
  dpkg-deb --field "$1" >"$tree/var/lib/dpkg/status.d/$name"
  if dpkg-deb --info "$1" md5sums >"$work/md5sums" 2>/dev/null; then
    mv "$work/md5sums" "$tree/var/lib/dpkg/status.d/$name.md5sums"
  fi
}

mapfile -t found < <(available "${java_packages[@]}" "${go_packages[@]}" "${rust_packages[@]}")
say "${#found[@]} packages of Debian"
# The downloader of root becomes somebody else, who may not write here.
(cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "${found[@]}")
for file in "$work"/*.deb; do unpack "$file"; done

say "from PyPI: ${python_packages[*]}"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: \
  --target "$tree/opt/app/python" "${python_packages[@]}"

python3 - "$tree" <<'PY'
import pathlib, sys, zipfile
tree = pathlib.Path(sys.argv[1])
sizes = {}
for one in sorted((tree / "usr/share/java").glob("*.jar")):
    if not one.is_symlink() and 50_000 < one.stat().st_size < 2_000_000:
        sizes.setdefault(one.stat().st_size, one)
jars = list(sizes.values())[:50]
wars = []
for at, name in enumerate(["orders", "stock"]):
    war = tree / f"opt/app/{name}.war"
    with zipfile.ZipFile(war, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("WEB-INF/web.xml", "<web-app/>\n")
        for jar in jars[at::2]:
            archive.write(jar, f"WEB-INF/lib/{jar.name}")
    wars.append(war)
with zipfile.ZipFile(tree / "opt/app/harbor.ear", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("META-INF/application.xml", "<application/>\n")
    for war in wars:
        archive.write(war, war.name)
PY

jars="$(find "$tree" -type f -name '*.jar' | wc -l)"
programs="$(find "$tree" -type f -perm -100 -size +100k -exec grep -lE 'Go buildinf:|/rustc[-/]|/cargo/registry' {} + | wc -l)"
say "done: $(du --summarize --human-readable "$tree" | cut -f1), $(find "$tree" -type f | wc -l) files, $jars Java archives, $programs programs"
if [ "$jars" -lt "$jars_min" ] || [ "$programs" -lt "$programs_min" ]; then
  say "that is not what is wanted: $jars_min archives and $programs_min programs"
  exit 1
fi
