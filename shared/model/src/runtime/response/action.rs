//! What can be done to a container.

use std::{fmt, net::IpAddr, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing: it is written down.
    Observe,
    /// Its process tree, open files, sockets, memory maps, changed files are kept.
    CollectEvidence,
    /// All its processes are frozen.
    Pause,
    /// It is cut off from the network.
    Quarantine {
        /// Whom it may still talk to.
        #[serde(default)]
        allow: Vec<Peer>,
    },
    /// It runs no file that its image does not hold.
    Block,
    /// All its processes are killed.
    Kill,
    /// It is cut off and frozen, and a fresh container of the same image takes its place.
    Replace,
}

/// The name of an action.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// [`Action::Observe`].
    Observe,
    /// [`Action::CollectEvidence`].
    CollectEvidence,
    /// [`Action::Pause`].
    Pause,
    /// [`Action::Quarantine`].
    Quarantine,
    /// [`Action::Block`].
    Block,
    /// [`Action::Kill`].
    Kill,
    /// [`Action::Replace`].
    Replace,
    /// No action of a response: the start of a container was refused ([`super::StartGate`]).
    StartGate,
}

/// Whether a response is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The agent answers what it would have done.
    DryRun,
    /// The agent does it.
    Enforced,
}

/// Addresses that a container in quarantine may talk to: `10.0.0.0/8`, `10.0.0.53:53`,
/// `[fd00::/8]:443`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Peer {
    /// The network's address.
    pub address: IpAddr,
    /// How many of its bits count.
    pub prefix: u8,
    /// The port there; `None`: any.
    pub port: Option<u16>,
}

/// The text is no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address like `10.0.0.0/8`, `10.0.0.53:53`, `fd00::/8` or `[fd00::1]:443`")]
pub struct PeerError(String);

// === impl Action ===

impl Action {
    /// Its name.
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::Observe => ActionKind::Observe,
            Self::CollectEvidence => ActionKind::CollectEvidence,
            Self::Pause => ActionKind::Pause,
            Self::Quarantine { .. } => ActionKind::Quarantine,
            Self::Block => ActionKind::Block,
            Self::Kill => ActionKind::Kill,
            Self::Replace => ActionKind::Replace,
        }
    }
}

// === impl ActionKind ===

impl ActionKind {
    /// All that can be asked for, gentlest first.
    pub const ALL: [Self; 7] = [
        Self::Observe,
        Self::CollectEvidence,
        Self::Block,
        Self::Pause,
        Self::Quarantine,
        Self::Replace,
        Self::Kill,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::CollectEvidence => "collect_evidence",
            Self::Pause => "pause",
            Self::Quarantine => "quarantine",
            Self::Block => "block",
            Self::Kill => "kill",
            Self::Replace => "replace",
            Self::StartGate => "start_gate",
        }
    }

    /// Whether the container does not serve any more while it lasts: such a response must leave
    /// enough others that do.
    pub const fn takes_out(self) -> bool {
        matches!(
            self,
            Self::Pause | Self::Quarantine | Self::Kill | Self::Replace
        )
    }

    /// Whether the container goes on as before when it is over.
    pub const fn lasts(self) -> bool {
        matches!(self, Self::Pause | Self::Quarantine | Self::Block)
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Mode ===

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DryRun => "dry_run",
            Self::Enforced => "enforced",
        })
    }
}

// === impl Peer ===

impl Peer {
    /// Whether it is this address and port.
    pub fn fits(&self, address: IpAddr, port: u16) -> bool {
        let fits = match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(one)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32)));
                (u32::from(net) ^ u32::from(one)) & mask.unwrap_or_default() == 0
            }
            (IpAddr::V6(net), IpAddr::V6(one)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128)));
                (u128::from(net) ^ u128::from(one)) & mask.unwrap_or_default() == 0
            }
            _ => false,
        };
        fits && self.port.is_none_or(|wanted| wanted == port)
    }

    const fn bits(address: IpAddr) -> u8 {
        if address.is_ipv4() { 32 } else { 128 }
    }
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let fail = || PeerError(text.chars().take(80).collect());
        let (net, port) = if let Some(rest) = text.strip_prefix('[') {
            let (net, port) = rest.split_once("]:").ok_or_else(fail)?;
            (net, Some(port))
        } else if text.matches(':').count() == 1 {
            let (net, port) = text.split_once(':').ok_or_else(fail)?;
            (net, Some(port))
        } else {
            (text, None)
        };
        let (address, prefix) = match net.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (net, None),
        };
        let address: IpAddr = address.parse().map_err(|_| fail())?;
        let bits = Self::bits(address);
        let prefix = prefix.map_or(Ok(bits), str::parse);
        let prefix = prefix.ok().filter(|prefix| *prefix <= bits);
        let port = port.map(str::parse).transpose().map_err(|_| fail())?;
        Ok(Self {
            address,
            prefix: prefix.ok_or_else(fail)?,
            port,
        })
    }
}

impl TryFrom<String> for Peer {
    type Error = PeerError;

    fn try_from(text: String) -> Result<Self, PeerError> {
        text.parse()
    }
}

impl From<Peer> for String {
    fn from(peer: Peer) -> Self {
        peer.to_string()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            prefix,
            port,
        } = self;
        let net = if *prefix == Self::bits(*address) {
            address.to_string()
        } else {
            format!("{address}/{prefix}")
        };
        match port {
            None => f.write_str(&net),
            Some(port) if address.is_ipv4() => write!(f, "{net}:{port}"),
            Some(port) => write!(f, "[{net}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_as_they_are_written() {
        for text in [
            "10.0.0.0/8",
            "10.0.0.53:53",
            "10.1.0.0/16:443",
            "fd00::/8",
            "fd00::1",
            "[fd00::1]:443",
        ] {
            let peer: Peer = text.parse().unwrap();
            assert_eq!(peer.to_string(), text);
        }
        for text in ["", "example.org", "10.0.0.0/33", "10.0.0.1:x", "[fd00::1]"] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_peer_fits_its_network_and_port_and_nothing_else() {
        let fits = |peer: &str, address: &str, port| {
            let peer: Peer = peer.parse().unwrap();
            peer.fits(address.parse().unwrap(), port)
        };
        assert!(fits("10.0.0.0/8", "10.200.0.1", 1));
        assert!(!fits("10.0.0.0/8", "11.0.0.1", 1));
        assert!(fits("0.0.0.0/0", "192.0.2.1", 1) && !fits("0.0.0.0/0", "::1", 1));
        assert!(fits("10.0.0.53:53", "10.0.0.53", 53));
        assert!(!fits("10.0.0.53:53", "10.0.0.53", 54));
        assert!(fits("fd00::/8", "fdff::1", 1) && !fits("fd00::/8", "fe00::1", 1));
    }

    #[test]
    fn actions_are_written_by_name() {
        let json = serde_json::to_string(&Action::Quarantine { allow: Vec::new() }).unwrap();
        assert_eq!(json, r#"{"quarantine":{"allow":[]}}"#);
        for kind in ActionKind::ALL {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
        }
    }
}
