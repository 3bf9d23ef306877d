//! Writes every poisonous image as an OCI layout of its own: `poison DIR`.

use std::{error::Error, path::PathBuf};

use testkit::{Artifact, Poison};

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = std::env::args().nth(1).ok_or("which directory?")?.into();
    for poison in Poison::ALL {
        Artifact::from(&poison.image()).write_layout(&folder.join(poison.name()), "1");
    }
    Ok(())
}
