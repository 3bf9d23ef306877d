//! Tactics and techniques of MITRE ATT&CK (Enterprise, version 17) that rules name.

use model::runtime::Technique;

/// Why an attacker does something, in the order of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tactic {
    Execution,
    Persistence,
    PrivilegeEscalation,
    DefenseEvasion,
    CredentialAccess,
    Discovery,
    CommandAndControl,
    Impact,
}

/// A technique, and the tactic that a rule sees in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attack {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) tactic: Tactic,
}

macro_rules! attacks {
    ($($constant:ident = $id:literal, $name:literal, $tactic:ident;)*) => {
        $(
            pub(crate) const $constant: Attack = Attack {
                id: $id,
                name: $name,
                tactic: Tactic::$tactic,
            };
        )*
    };
}

attacks! {
    ACCOUNT = "T1136.001", "Create Account: Local Account", Persistence;
    ACCOUNT_KEYS = "T1098.004", "Account Manipulation: SSH Authorized Keys", Persistence;
    ADMIN_COMMAND = "T1609", "Container Administration Command", Execution;
    BOOT_MODULE = "T1547.006", "Kernel Modules and Extensions", Persistence;
    BREAK_OUT = "T1611", "Escape to Host", PrivilegeEscalation;
    CLEAR_HISTORY = "T1070.003", "Clear Command History", DefenseEvasion;
    CLEAR_LOGS = "T1070.002", "Clear Linux or Mac System Logs", DefenseEvasion;
    COMMAND_INTERPRETER = "T1059", "Command and Scripting Interpreter", Execution;
    CONTAINER_DISCOVERY = "T1613", "Container and Resource Discovery", Discovery;
    CREDENTIALS_IN_FILES = "T1552.001", "Credentials In Files", CredentialAccess;
    CRON = "T1053.003", "Scheduled Task/Job: Cron", Persistence;
    DEPLOYMENT_TOOLS = "T1072", "Software Deployment Tools", Execution;
    DECODED = "T1140", "Deobfuscate/Decode Files or Information", DefenseEvasion;
    FILELESS = "T1620", "Reflective Code Loading", DefenseEvasion;
    HIDDEN = "T1564.001", "Hidden Files and Directories", DefenseEvasion;
    IMPAIR_DEFENSES = "T1562", "Impair Defenses", DefenseEvasion;
    INJECTION = "T1055", "Process Injection", PrivilegeEscalation;
    LOADER = "T1574.006", "Dynamic Linker Hijacking", Persistence;
    MASQUERADE = "T1036.005", "Match Legitimate Resource Name or Location", DefenseEvasion;
    METADATA = "T1552.005", "Cloud Instance Metadata API", CredentialAccess;
    MINING = "T1496.001", "Resource Hijacking: Compute Hijacking", Impact;
    OBFUSCATED = "T1027", "Obfuscated Files or Information", DefenseEvasion;
    OS_CREDENTIALS = "T1003", "OS Credential Dumping", CredentialAccess;
    PROTOCOL = "T1095", "Non-Application Layer Protocol", CommandAndControl;
    PTRACE = "T1055.008", "Ptrace System Calls", PrivilegeEscalation;
    ROOTKIT = "T1014", "Rootkit", DefenseEvasion;
    SCAN = "T1046", "Network Service Discovery", Discovery;
    SETUID = "T1548.001", "Setuid and Setgid", PrivilegeEscalation;
    SHADOW = "T1003.008", "/etc/passwd and /etc/shadow", CredentialAccess;
    SHELL = "T1059.004", "Unix Shell", Execution;
    SHELL_STARTUP = "T1546.004", "Unix Shell Configuration Modification", Persistence;
    STEAL_TOKEN = "T1528", "Steal Application Access Token", CredentialAccess;
    TOOL_TRANSFER = "T1105", "Ingress Tool Transfer", CommandAndControl;
    WEB_SHELL = "T1505.003", "Web Shell", Persistence;
}

// === impl Tactic ===

impl Tactic {
    /// All of them, in the order of an attack.
    pub(crate) const ALL: [Self; 8] = [
        Self::Execution,
        Self::Persistence,
        Self::PrivilegeEscalation,
        Self::DefenseEvasion,
        Self::CredentialAccess,
        Self::Discovery,
        Self::CommandAndControl,
        Self::Impact,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Execution => "execution",
            Self::Persistence => "persistence",
            Self::PrivilegeEscalation => "privilege-escalation",
            Self::DefenseEvasion => "defense-evasion",
            Self::CredentialAccess => "credential-access",
            Self::Discovery => "discovery",
            Self::CommandAndControl => "command-and-control",
            Self::Impact => "impact",
        }
    }
}

// === impl Attack ===

impl Attack {
    pub(crate) fn technique(self) -> Technique {
        Technique {
            id: self.id.to_owned(),
            name: self.name.to_owned(),
            tactic: self.tactic.as_str().to_owned(),
        }
    }
}
