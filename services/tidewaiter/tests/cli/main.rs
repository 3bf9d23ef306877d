//! The command line as its users meet it: the binary is run, and what it says and how it ends is
//! compared. Servers are those of `testkit`, on loopback.

mod about;
mod advisories;
mod checks;
mod errors;
mod exits;
mod malware;
mod outputs;
mod sbom;
mod secrets;
mod targets;
mod versions;
mod world;
