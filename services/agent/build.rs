//! Compiles the kernel side with clang. The object is not bound to this machine's kernel: offsets
//! are found when it is loaded.

use std::{env, path::PathBuf, process::Command};

const SOURCES: [&str; 3] = ["bpf/sensor.bpf.c", "bpf/kernel.h", "bpf/events.h"];

#[expect(
    clippy::disallowed_methods,
    reason = "Cargo talks to build scripts by environment variables"
)]
fn main() -> Result<(), String> {
    let var = |name: &str| env::var(name).map_err(|error| format!("`{name}`: {error}"));
    // `libbpf_sys` carries the helpers' headers and says where they are.
    let include = var("DEP_BPF_INCLUDE")?;
    let object = PathBuf::from(var("OUT_DIR")?).join("sensor.bpf.o");
    let machine = match var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "-D__TARGET_ARCH_x86",
        "aarch64" => "-D__TARGET_ARCH_arm64",
        other => return Err(format!("the sensor knows no machine `{other}`")),
    };
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let run = Command::new(&clang)
        .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", machine])
        .arg("-I")
        .arg(&include)
        .args(["-c", SOURCES[0], "-o"])
        .arg(&object)
        .status();
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    println!("cargo:rerun-if-env-changed=CLANG");
    match run {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{clang}` ended with {status}")),
        Err(error) => Err(format!(
            "`{clang}` cannot be run: {error}; `deploy/prepare.sh build` installs it"
        )),
    }
}
