#!/usr/bin/env bash
# Measures what hostile files cost: load-tests/hostile.sh [CASE...]
#
# Makes a small file system for each of them, scans it with a new cache, and prints a table of bytes,
# seconds, processor seconds, peak memory, the decision and the gaps. A case that takes more than 60
# seconds or 1 GiB is marked, and then this ends with 1. `--images DIR` adds the images of that
# directory, one OCI layout each: `cargo run --release -p testkit --example poison -- DIR` makes those
# that the tests use.
#
#   TIDEWAITER   the program; by default that of ~/.cache/tidewaiter/target
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tidewaiter="${TIDEWAITER:-${CARGO_TARGET_DIR:-$HOME/.cache/tidewaiter/target}/release/tidewaiter}"
[ -x "$tidewaiter" ] || { printf 'hostile: there is no %s: build it, or name one in TIDEWAITER\n' "$tidewaiter" >&2; exit 1; }
exec python3 - "$tidewaiter" "$@" <<'PY'
import gzip, io, json, multiprocessing, os, pathlib, shutil, struct, subprocess, sys, tarfile, tempfile, time, zipfile, zlib

SECONDS_MAX, RSS_KIB_MAX = 60, 1 << 20
MIB = 1 << 20
tidewaiter, asked = sys.argv[1], sys.argv[2:]
images = []
if "--images" in asked:
    at = asked.index("--images")
    images = sorted(one for one in pathlib.Path(asked[at + 1]).iterdir() if (one / "oci-layout").exists())
    del asked[at:at + 2]


def put(root, path, content):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def zipped(members, level=9):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def same_member(names, content, says=None):
    """An archive that names one packed member again and again, of as many bytes as it says."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    says = len(content) if says is None else says
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, 0, len(packed), says, 0, 0) + packed
    directory = b"".join(
        b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 8, 0, 0, 0, len(packed), says, len(name), 0, 0, 0, 0, 0, 0) + name
        for name in (one.encode() for one in names))
    end = struct.pack("<HHHHIIH", 0, 0, len(names) & 0xffff, len(names) & 0xffff, len(directory), len(local), 0)
    return local + directory + b"PK\x05\x06" + end


def tarred(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def jar_bomb(root):
    put(root, "app/a-1.jar", zipped([("lib/b-1.jar", bytes(250 * MIB))]))


def jar_bombs(root):
    bomb = same_member(["lib/b-1.jar"], bytes(15 * MIB))
    for at in range(2000):
        put(root, f"app/a-{at}.jar", b"#!%d\n" % at + bomb)


def jar_in_jar(root):
    jar = zipped([("a.txt", "x")])
    for at in range(200):
        jar = zipped([(f"lib/a-{at}.jar", jar)], 0)
    put(root, "app/a-1.jar", jar)


def one_member_many_names(root):
    text = b"password = hunter\n" * (15 * MIB // 18)
    put(root, "app/a.zip", same_member([f"conf/{at}.conf" for at in range(20_000)], text))


def members_that_lie(root):
    put(root, "app/a.zip", same_member([f"conf/{at}.conf" for at in range(20_000)], bytes(15 * MIB), 10))
    put(root, "app/b-1.jar", same_member([f"lib/{at}.jar" for at in range(20_000)], bytes(250 * MIB), 10))


def a_million_members(root):
    put(root, "app/a-1.jar", same_member([f"{at}/pom.class" for at in range(1_000_000)], b"x"))


def tar_in_tar(root):
    inner = gzip.compress(tarred([("a.bin", bytes(200 * MIB))]))
    for _ in range(4):
        inner = gzip.compress(tarred([(f"{at}.tgz", inner) for at in range(20)]))
    put(root, "app/a.tar.gz", inner)


def deep_json(root):
    for path in ["node_modules/a/package.json", "conda-meta/a.json", "a/a.deps.json", "vendor/composer/installed.json", "sbom.cdx.json", "bom.spdx.json"]:
        put(root, path, b'{"a":' * 200_000 + b"1")
        put(root, "list/" + path, b"[" * 1_000_000)


def wide_json(root):
    part = b'{"type":"library","name":"n","version":"1","purl":"pkg:npm/n@1"}'
    put(root, "app/sbom.cdx.json", b'{"bomFormat":"CycloneDX","specVersion":"1.5","components":[' + b",".join([part] * 400_000) + b"]}")


def many_packages(root):
    put(root, "etc/os-release", b"ID=debian\nVERSION_ID=12\n")
    put(root, "var/lib/dpkg/status", b"".join(
        b"Package: p%d\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n" % at for at in range(600_000)))
    put(root, "lib/apk/db/installed", b"".join(b"P:p%d\nV:1-r0\nF:usr\nR:a\n\n" % at for at in range(600_000)))


def long_lines(root):
    put(root, "etc/os-release", b"ID=" + b"a" * (64 * MIB))
    put(root, "var/lib/dpkg/status", b"Package: " + b"a" * (64 * MIB))
    put(root, "lib/python3/a.dist-info/METADATA", b"Name: a\nVersion: 1\n" + b"Requires-Dist: b\n" * (3 * MIB))
    put(root, "gems/specifications/a.gemspec", b"Gem::Specification.new do |s|\n" + b'  s.name = "' * MIB)


def quadratic_texts(root):
    put(root, "app/a.conf", b"AKIA" * (4 * MIB - 1))
    put(root, "app/b.conf", (b"-----BEGIN RSA PRIVATE KEY-----\n" + b"A" * 64 + b"\n") * (15 * MIB // 97))
    put(root, "app/c.env", b"PASSWORD=" * (15 * MIB // 9))
    put(root, "app/d.txt", b"eyJ" + b"a." * (7 * MIB))
    put(root, "app/e.yaml", b"token: 'glpat-" + b"x" * (15 * MIB))


def program_headers(root):
    elf = bytearray(64)
    elf[:16] = b"\x7fELF\x02\x01\x01" + bytes(9)
    struct.pack_into("<HHIQQQIHHHHHH", elf, 16, 2, 62, 1, 0, 64, 64, 0, 64, 56, 65535, 64, 65535, 0)
    put(root, "usr/bin/a", bytes(elf) + bytes(65535 * 64))
    put(root, "usr/bin/b", bytes(elf) + b"\xff Go buildinf:" * (MIB // 2))
    put(root, "usr/bin/c", bytes(elf) + b"OpenSSL 3.0.1 Python/3.1 nginx/1. " * MIB)


def page_loops(root):
    head = struct.pack("<IIIIIIIBBHIII", 0, 0, 0, 0x061561, 9, 4096, 0, 8, 0, 0, 0, 1, 0)
    page = lambda number: struct.pack("<QIIIHHBB", 0, number, number, number, 2, 26, 0, 13).ljust(4096, b"\x01")
    put(root, "var/lib/rpm/Packages", head.ljust(4096, b"\0") + b"".join(page(at) for at in range(1, 20_000)))
    put(root, "usr/lib/sysimage/rpm/rpmdb.sqlite", (b"SQLite format 3\0" + struct.pack(">HBBBBBB", 512, 1, 1, 0, 64, 32, 32)).ljust(100, b"\0")
        + (b"\x05\0\0\x00\x40\0\0\0" + struct.pack(">I", 1) + b"\0\x10" * 200)[:412] + (b"\x05\0\0\0\x40\0\0\0\0\0\0\x01" + b"\0\x10" * 250) * 40_000)
    put(root, "usr/lib/sysimage/rpm/Packages.db", (b"RpmP" + struct.pack("<IIII", 0, 1, 4096, 9)).ljust(32, b"\0") + struct.pack("<4sIII", b"Slot", 1, 1, 1) * 1_000_000)


def a_deep_tree(root):
    for at in range(300):
        path = root / "/".join(["d"] * 300) / str(at)
        path.mkdir(parents=True, exist_ok=True)
        put(path, "package.json", b'{"name": "a", "version": "1"}')


CASES = [jar_bomb, jar_bombs, jar_in_jar, one_member_many_names, members_that_lie, a_million_members, tar_in_tar, deep_json,
         wide_json, many_packages, long_lines, quadratic_texts, program_headers, page_loops, a_deep_tree]


def apart(work, *arguments):
    """In a process of its own: what this one takes would count as the peak of those it starts."""
    context = multiprocessing.get_context("fork")
    answer, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(work(*arguments)))
    child.start()
    sender.close()
    try:
        return answer.recv()
    finally:
        child.join()


def judged(output):
    report = json.loads(output.read_text())
    codes = [gap["code"] for gap in report["gaps"]]
    return report["verdict"]["decision"], ", ".join(f"{codes.count(code)} {code}" for code in sorted(set(codes)))


def scan(target, work):
    output = work / "report.json"
    command = [tidewaiter, "scan", target, "--format", "json", "--output", f"json={output}", "--quiet", "--allow-incomplete",
               "--exit-code", "0", "--cache-dir", str(work / "cache")]
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read().decode(errors="replace").strip()
    _, status, usage = os.wait4(child.pid, 0)
    took = time.monotonic() - start
    decision, gaps = f"exit {os.waitstatus_to_exitcode(status)}", said[-80:].replace("\n", " ")
    if output.exists():
        decision, gaps = apart(judged, output)
        output.unlink()
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, decision, gaps


def row(name, size, measured):
    took, cpu, rss, decision, gaps = measured
    is_much = took > SECONDS_MAX or rss > RSS_KIB_MAX or decision.startswith("exit")
    mark = " TOO MUCH" if is_much else ""
    print(f"| {name:24} | {size / MIB:8.1f} | {took:7.2f} | {cpu:7.2f} | {rss / 1024:8.0f} | {decision:10} | {gaps}{mark}", flush=True)
    return is_much


print(f"| {'case':24} | {'MiB':>8} | {'s':>7} | {'cpu s':>7} | {'peak MiB':>8} | {'decision':10} | gaps")
print("|" + "|".join(["-" * 26, "-" * 10, "-" * 9, "-" * 9, "-" * 10, "-" * 12, "-" * 6]))
worst = False
for case in CASES:
    if asked and case.__name__ not in asked:
        continue
    work = pathlib.Path(tempfile.mkdtemp())
    try:
        apart(case, work / "root")
        size = sum(one.stat().st_size for one in (work / "root").rglob("*") if one.is_file())
        worst |= row(case.__name__, size, scan(f"rootfs:{work / 'root'}", work))
    finally:
        shutil.rmtree(work)
for image in images:
    if asked and image.name not in asked:
        continue
    work = pathlib.Path(tempfile.mkdtemp())
    try:
        size = sum(one.stat().st_size for one in image.rglob("*") if one.is_file())
        worst |= row(image.name, size, scan(f"oci:{image}", work))
    finally:
        shutil.rmtree(work)
sys.exit(worst)
PY
