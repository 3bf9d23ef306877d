//! The command line as its users meet it: the binary is run, and what it says and how it ends is
//! compared. Servers are those of `testkit`, on loopback.

mod about;
mod errors;
mod exits;
mod outputs;
mod secrets;
mod targets;
mod world;
