//! A server with the printed accounts, and a key for everybody.

use std::time::Duration;

use chassis::Cx;
use tempfile::TempDir;

use crate::{
    Bus, Config, UserKey,
    permissions::{Holder, Role, User, accounts, inbox},
    testing::Server,
    wire::Wire,
};

/// Somebody who may do everything, to look at what the others did.
const WATCHER: &str = "{ user: watcher, password: watcher }";

/// A server with accounts, and the keys of all who have one.
pub(super) struct Fleet {
    pub(super) server: Server,
    pub(super) cx: Cx,
    pub(super) keys: TempDir,
    users: Vec<User>,
}

// === impl Fleet ===

impl Fleet {
    pub(super) async fn start() -> Option<Self> {
        let keys = TempDir::new().unwrap();
        let roles = Role::ALL.map(|role| Holder::Roles([role].into()));
        let nodes = [("default", "a"), ("default", "b"), ("acme", "a")];
        let agents = nodes.map(|(tenant, node)| Holder::Agent {
            tenant: tenant.parse().unwrap(),
            node: node.parse().unwrap(),
        });
        let holders = roles.into_iter().chain(agents);
        let users: Vec<User> = holders
            .map(|holder| {
                let key = UserKey::open(&keys.path().join(holder.to_string())).unwrap();
                let public_key = key.public_key;
                User { holder, public_key }
            })
            .collect();
        let config = accounts(&users);
        let config = config.replacen("users: [", &format!("users: [ {WATCHER}"), 1);
        let fleet = Self {
            server: Server::start_with(&config).await?,
            cx: Cx::for_tests(),
            keys,
            users,
        };
        let provisioner = fleet.role(Role::Provisioner).await;
        provisioner.provision().await.unwrap();
        Some(fleet)
    }

    fn config(&self, holder: &Holder) -> Config {
        Config {
            credentials_file: Some(self.keys.path().join(holder.to_string())),
            ..self.server.config()
        }
    }

    pub(super) async fn role(&self, role: Role) -> Bus {
        let config = self.config(&Holder::Roles([role].into()));
        Bus::connect_as(&self.cx, &config, [role]).await.unwrap()
    }

    pub(super) async fn agent(&self, tenant: &str, node: &str) -> Wire {
        let holder = Holder::Agent {
            tenant: tenant.parse().unwrap(),
            node: node.parse().unwrap(),
        };
        let wire = Wire::open(&self.config(&holder), "agent").await.unwrap();
        assert!(wire.up(Duration::from_secs(10)).await);
        wire
    }

    pub(super) async fn agent_bus(&self, tenant: &str, node: &str) -> Bus {
        let holder = Holder::Agent {
            tenant: tenant.parse().unwrap(),
            node: node.parse().unwrap(),
        };
        let config = self.config(&holder);
        let bus = Bus::connect_later_for(&self.cx, &config, holder).await;
        let bus = bus.unwrap();
        bus.connected(Duration::from_secs(10)).await.unwrap();
        bus
    }

    pub(super) async fn watcher(&self) -> Bus {
        let mut config = self.server.config();
        let url = config.url.unwrap();
        config.url = Some(url.replace("nats://", "nats://watcher:watcher@"));
        Bus::connect(&self.cx, &config, "watcher").await.unwrap()
    }

    pub(super) fn inbox_of(&self, role: Role) -> String {
        let holder = Holder::Roles([role].into());
        let user = self.users.iter().find(|user| user.holder == holder);
        inbox(&user.unwrap().public_key)
    }
}
