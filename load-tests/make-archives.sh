#!/usr/bin/env bash
# Makes the file system of an image that is mostly archives and programs: load-tests/make-archives.sh DIR
#
# 500 Java archives, copies of those that lie on this machine (Debian's packages put them into
# /usr/share/java), and 50 Go programs: each of another content, so that nothing is the same as
# anything else. `cargo load images` makes images of it. It needs python3, go, and such archives.
set -euo pipefail

tree="${1:?which directory? usage: make-archives.sh DIR}"
jars=500
programs=50
mkdir -p "$tree/opt/app/lib" "$tree/usr/local/bin"
tree="$(cd "$tree" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

python3 - "$tree/opt/app/lib" "$jars" <<'PY'
import pathlib, shutil, sys, zipfile
to, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
found = {one.resolve() for one in pathlib.Path("/usr/share/java").glob("*.jar")}
found = sorted(one for one in found if 20_000 < one.stat().st_size < 5_000_000 and zipfile.is_zipfile(one))
if not found:
    sys.exit("archives: there are none in /usr/share/java: install libguava-java, maven")
for at in range(count):
    source = found[at % len(found)]
    copy = to / f"{source.stem}-{at}.jar"
    shutil.copyfile(source, copy)
    with zipfile.ZipFile(copy, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/copy.txt", f"copy {at}\n")
PY

cat >"$work/go.mod" <<'MOD'
module example.org/harbor

go 1.19
MOD
cat >"$work/main.go" <<'GO'
package main

import (
	"encoding/json"
	"net/http"
	"os"
)

var number string

func main() {
	http.HandleFunc("/", func(to http.ResponseWriter, _ *http.Request) { json.NewEncoder(to).Encode(number) })
	if err := http.ListenAndServe(os.Args[1], nil); err != nil {
		panic(err)
	}
}
GO
for number in $(seq "$programs"); do
  (cd "$work" && CGO_ENABLED=0 go build -trimpath -ldflags "-X main.number=$number" -o "$tree/usr/local/bin/harbor-$number" .)
done
printf 'archives: %s, %s files\n' "$(du --summarize --human-readable "$tree" | cut -f1)" "$(find "$tree" -type f | wc -l)" >&2
