//! Compiles the kernel side with clang. The objects are not bound to this machine's kernel: offsets
//! are found when they are loaded.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const OBJECTS: [&str; 3] = ["sensor", "block", "quarantine"];
const HEADERS: [&str; 3] = ["bpf/kernel.h", "bpf/events.h", "bpf/origin.h"];

#[expect(
    clippy::disallowed_methods,
    reason = "Cargo talks to build scripts by environment variables"
)]
fn main() -> Result<(), String> {
    let var = |name: &str| env::var(name).map_err(|error| format!("`{name}`: {error}"));
    // `libbpf_sys` carries the helpers' headers and says where they are.
    let include = var("DEP_BPF_INCLUDE")?;
    let out = PathBuf::from(var("OUT_DIR")?);
    let machine = match var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "-D__TARGET_ARCH_x86",
        "aarch64" => "-D__TARGET_ARCH_arm64",
        other => return Err(format!("the sensor knows no machine `{other}`")),
    };
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    println!("cargo:rerun-if-env-changed=CLANG");
    for header in HEADERS {
        println!("cargo:rerun-if-changed={header}");
    }
    for name in OBJECTS {
        let source = format!("bpf/{name}.bpf.c");
        println!("cargo:rerun-if-changed={source}");
        let object = out.join(format!("{name}.bpf.o"));
        compile(&clang, &[machine, "-I", &include], &source, &object)?;
    }
    Ok(())
}

fn compile(clang: &str, options: &[&str], source: &str, object: &Path) -> Result<(), String> {
    let run = Command::new(clang)
        .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror"])
        .args(options)
        .args(["-c", source, "-o"])
        .arg(object)
        .status();
    match run {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{clang}` ended with {status} for `{source}`")),
        Err(error) => Err(format!(
            "`{clang}` cannot be run: {error}; `deploy/prepare.sh build` installs it"
        )),
    }
}
