//! What is deployed fits what is built: commands, settings, routes and files that it names exist,
//! and nothing runs with more rights than it needs.

use std::collections::BTreeSet;

use bus::permissions::Role;
use serde_json::{Map, Value};

use crate::repo::{at, files, members, text, verdict};

const COMPOSE: &str = "deploy/compose.yaml";
const INGRESS: &str = "deploy/compose/haproxy.cfg";
const CONFIG: &str = "deploy/config/tidewaiter.yaml";
const IMAGE: &str = "deploy/image/Containerfile";
const ROOT: &str = "deploy/image/root.sh";
const AGENT: &str = "deploy/kubernetes/agent.yaml";
const AGENT_REPLACE: &str = "deploy/kubernetes/agent-replace.yaml";
const UNIT: &str = "deploy/systemd/tidewaiter-agent.service";
/// Made by `tidewaiter nats accounts` before the first start.
const MADE: &[&str] = &["deploy/compose/accounts.conf", "deploy/compose/keys/"];
/// Where the program is in the image.
const PROGRAM: &str = "/usr/bin/tidewaiter";

#[test]
fn the_composition_has_a_service_for_every_role_and_none_has_rights() {
    let compose = yaml(COMPOSE);
    // The others are people's, and one program's that runs once.
    let people = [Role::Provisioner, Role::Operator, Role::Subscriber];
    let roles = Role::ALL.iter().filter(|role| !people.contains(role));
    let roles = roles.map(|role| role.as_str().to_owned());
    let (mut wrong, roles): (Vec<String>, Vec<String>) = (Vec::new(), roles.collect());
    let services = object(&compose["services"]);
    for role in &roles {
        let command = services.get(role).map(|service| words(&service["command"]));
        if command != Some(vec!["serve".into(), "--role".into(), role.clone()]) {
            wrong.push(format!(
                "{COMPOSE}: add the service `{role}` that runs `serve --role {role}`"
            ));
        }
    }
    for (name, service) in &services {
        let confined = service["read_only"] == Value::Bool(true)
            && words(&service["cap_drop"]) == ["ALL"]
            && words(&service["security_opt"]) == ["no-new-privileges:true"];
        if !confined || service["privileged"] == Value::Bool(true) {
            wrong.push(format!(
                "{COMPOSE}: `{name}` is not confined: merge `*confined`"
            ));
        }
        let health = words(&service["healthcheck"]["test"]);
        if roles.contains(name) && health != ["CMD", PROGRAM, "health"] {
            wrong.push(format!(
                "{COMPOSE}: `{name}` has no health check that runs `{PROGRAM} health`"
            ));
        }
    }
    verdict("confinement", &wrong);
}

#[test]
fn what_the_composition_names_is_declared_and_there() {
    let compose = yaml(COMPOSE);
    let mut wrong = Vec::new();
    let mut is_there = |file: &str| {
        // `${NAME:-default}` stands for its default here.
        let file = file.split_once(":-").map_or(file, |(_, file)| file);
        let file = file.trim_start_matches("./").trim_end_matches('}');
        let path = format!("deploy/{file}");
        if !files().contains(&path) && !MADE.iter().any(|made| path.starts_with(made)) {
            wrong.push(format!("{COMPOSE}: `{path}` is not there"));
        }
    };
    for secret in object(&compose["secrets"]).values() {
        is_there(secret["file"].as_str().unwrap_or_default());
    }
    let services = object(&compose["services"]);
    // A volume of the engine, a file of ours, or a place that needs no name.
    let mounts = |service: &Value| -> Vec<String> {
        let mounts = words(&service["volumes"]).into_iter();
        let mounts = mounts.filter_map(|one| Some(one.rsplit_once(":/")?.0.to_owned()));
        mounts.collect()
    };
    for file in services.values().flat_map(mounts) {
        if file.starts_with(['.', '$']) {
            is_there(&file);
        }
    }
    for kind in ["secrets", "networks", "volumes"] {
        let declared = object(&compose[kind]);
        let mut used = BTreeSet::new();
        for (name, service) in &services {
            let named = match kind {
                "volumes" => mounts(service),
                _ => sources(&service[kind]),
            };
            for one in named.into_iter().filter(|one| !one.starts_with(['.', '$'])) {
                if !declared.contains_key(&one) {
                    wrong.push(format!(
                        "{COMPOSE}: `{name}` uses `{one}`: declare it in `{kind}`"
                    ));
                }
                used.insert(one);
            }
        }
        for name in declared.keys().filter(|name| !used.contains(*name)) {
            wrong.push(format!("{COMPOSE}: no service uses `{name}` of `{kind}`"));
        }
    }
    verdict("what the composition names", &wrong);
}

#[test]
fn what_is_deployed_uses_commands_and_settings_that_exist() {
    let (mut wrong, settings) = (Vec::new(), yaml(CONFIG));
    let cli = text("services/tidewaiter/src/cli.rs").unwrap_or_default();
    let commands = cli.split("enum Command {").nth(1).unwrap_or_default();
    let commands = commands.split("\n}").next().unwrap_or_default();
    let has_command = |name: &str| {
        let mut letters = name.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        let variant: String = first.into_iter().chain(letters).collect();
        commands
            .lines()
            .any(|line| line.trim().trim_end_matches(',').split('(').next() == Some(&variant))
    };
    let mut variables = BTreeSet::new();
    for (name, service) in object(&yaml(COMPOSE)["services"]) {
        variables.extend(
            object(&service["environment"])
                .into_iter()
                .map(|(key, _)| key),
        );
        let health = words(&service["healthcheck"]["test"]);
        let command = words(&service["command"]);
        let ours = service["image"]
            .as_str()
            .unwrap_or_default()
            .contains("tidewaiter");
        let of_health = health.get(2).filter(|_| ours);
        // What ends by itself prepares the rest, and is proven by whoever starts it.
        let of_service = command
            .first()
            .filter(|_| ours && service["restart"] != "no");
        for word in of_health.into_iter().chain(of_service) {
            if !has_command(word) {
                wrong.push(format!(
                    "{COMPOSE}: `{name}` runs `tidewaiter {word}`, which is no command"
                ));
            }
        }
    }
    let image = text(IMAGE).unwrap_or_default();
    let of_image = image
        .split_whitespace()
        .filter_map(|word| word.split_once('='));
    variables.extend(of_image.map(|(key, _)| key.to_owned()));
    for variable in variables
        .iter()
        .filter(|name| name.starts_with("TIDEWAITER_"))
    {
        let key = variable
            .trim_start_matches("TIDEWAITER_")
            .to_ascii_lowercase();
        let pointer = format!("/{}", key.replace("__", "/"));
        let is_flag = cli.contains(&format!("env = \"{variable}\""));
        if !is_flag && (!key.contains("__") || settings.pointer(&pointer).is_none()) {
            wrong.push(format!(
                "`{variable}` is neither a setting nor a flag's variable"
            ));
        }
    }
    verdict("commands and settings", &wrong);
}

#[test]
fn the_ingress_knows_routes_that_exist() {
    let ingress = text(INGRESS).unwrap_or_default();
    let paths = ingress.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("acl of_")?.split_once(' ')?;
        let path = rest.split_whitespace().last()?;
        Some((name.to_owned(), path.to_owned()))
    });
    let mut wrong = Vec::new();
    for (service, path) in paths {
        let folder = format!("services/{service}/src/");
        let sources = files().iter().filter(|file| file.starts_with(&folder));
        let is_served = sources
            .filter_map(|file| text(file))
            .any(|text| text.contains(&format!("\"{path}")));
        if !is_served {
            wrong.push(format!("{INGRESS}: `{service}` has no route at `{path}`"));
        }
    }
    verdict("the ingress", &wrong);
}

#[test]
fn the_image_is_built_of_what_is_there() {
    let image = text(IMAGE).unwrap_or_default();
    let mut wrong = Vec::new();
    let root: toml::Table = text("Cargo.toml")
        .unwrap_or_default()
        .parse()
        .expect("TOML");
    let version =
        at(&root, &["workspace", "package", "rust-version"]).and_then(toml::Value::as_str);
    let version = version.unwrap_or_default();
    if !image.contains(&format!("/rust:{version}-")) {
        wrong.push(format!("{IMAGE}: build with Rust {version}"));
    }
    for (needle, file) in [(PROGRAM, IMAGE), ("usr/bin/$name", ROOT)] {
        if !text(file).unwrap_or_default().contains(needle) {
            wrong.push(format!("{file}: the program is `{PROGRAM}`"));
        }
    }
    let copied = image
        .lines()
        .filter_map(|line| line.strip_prefix("COPY deploy/"));
    for path in copied.filter_map(|rest| rest.split_whitespace().next()) {
        if !files().contains(&format!("deploy/{path}")) {
            wrong.push(format!("{IMAGE}: `deploy/{path}` is not there"));
        }
    }
    let sent = text(".dockerignore").unwrap_or_default();
    for member in members() {
        let top = member.path.split('/').next().unwrap_or_default();
        if !sent.lines().any(|line| line == format!("!{top}")) {
            wrong.push(format!(
                ".dockerignore: add `!{top}`: `{}` is built there",
                member.name
            ));
        }
    }
    verdict("the image", &wrong);
}

#[test]
fn the_agent_in_a_cluster_has_what_it_names_and_no_more_rights_than_it_says_why() {
    let recipe = text(AGENT).unwrap_or_default();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&recipe).expect("YAML");
    let mut wrong = Vec::new();
    let kinds: BTreeSet<&str> = documents
        .iter()
        .filter_map(|one| one["kind"].as_str())
        .collect();
    let expected = BTreeSet::from(["ConfigMap", "DaemonSet", "Namespace", "ServiceAccount"]);
    if kinds != expected {
        wrong.push(format!(
            "{AGENT}: it asks the API for nothing, so {expected:?} is all it needs"
        ));
    }
    let daemon = documents.iter().find(|one| one["kind"] == "DaemonSet");
    let pod = daemon.map_or(Value::Null, |one| one["spec"]["template"]["spec"].clone());
    if pod["automountServiceAccountToken"] != false {
        wrong.push(format!(
            "{AGENT}: it has a token by a volume of its own alone"
        ));
    }
    let containers = pod["containers"].as_array().cloned().unwrap_or_default();
    let [container] = containers.as_slice() else {
        panic!("{AGENT}: one container");
    };
    let (declared, used) = (names(&pod["volumes"]), names(&container["volumeMounts"]));
    if declared != used || declared.is_empty() {
        wrong.push(format!("{AGENT}: volumes {declared:?}, mounted {used:?}"));
    }
    let rights = &container["securityContext"];
    let is_confined = rights["readOnlyRootFilesystem"] == true
        && rights["allowPrivilegeEscalation"] == false
        && words(&rights["capabilities"]["drop"]) == ["ALL"]
        && rights.get("privileged").is_none();
    if !is_confined {
        wrong.push(format!(
            "{AGENT}: it has single rights, and is not privileged"
        ));
    }
    settings_and_rights(container, &mut wrong);
    verdict("the agent in a cluster", &wrong);
}

#[test]
fn the_agents_of_a_cluster_label_pods_and_do_nothing_else() {
    let recipe = text(AGENT_REPLACE).unwrap_or_default();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&recipe).expect("YAML");
    let of = |kind: &str| documents.iter().find(|one| one["kind"] == kind);
    let mut wrong = Vec::new();
    let rules = of("ClusterRole").map_or(Value::Null, |role| role["rules"].clone());
    let expected = serde_json::json!([
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch"] },
    ]);
    if rules != expected {
        wrong.push(format!("{AGENT_REPLACE}: its rights are {rules}"));
    }
    let agent = serde_json::json!([
        { "kind": "ServiceAccount", "name": "tidewaiter-agent", "namespace": "tidewaiter" },
    ]);
    if of("ClusterRoleBinding").is_none_or(|one| one["subjects"] != agent) {
        wrong.push(format!("{AGENT_REPLACE}: somebody else has its rights"));
    }
    let policy = of("ValidatingAdmissionPolicy").map_or(Value::Null, |one| one["spec"].clone());
    let bound = of("ValidatingAdmissionPolicyBinding");
    let bound = bound.map_or(Value::Null, |one| one["spec"].clone());
    let is_strict = policy["failurePolicy"] == "Fail"
        && bound["policyName"] == "tidewaiter-agent"
        && bound["validationActions"] == serde_json::json!(["Deny"]);
    if !is_strict {
        wrong.push(format!("{AGENT_REPLACE}: its rights are not narrowed"));
    }
    // What the agent writes is what the policy lets it write.
    let source = text("services/agent/src/response/kubernetes.rs").unwrap_or_default();
    for name in ["tidewaiter.io/quarantine", "tidewaiter.io/labels"] {
        if !recipe.contains(&format!("'{name}'")) || !source.contains(&format!("\"{name}\"")) {
            wrong.push(format!(
                "{AGENT_REPLACE}: `{name}` is not what the agent writes"
            ));
        }
    }
    verdict("the agent's rights in a cluster", &wrong);
}

/// Settings of the agent's container are settings, and its rights are those of a host without a
/// cluster.
fn settings_and_rights(container: &Value, wrong: &mut Vec<String>) {
    let source = text("services/agent/src/config.rs").unwrap_or_default();
    let unit = text(UNIT).unwrap_or_default();
    let of_unit = unit.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("Environment=")?.split_once('=')?;
        Some(name.to_owned())
    });
    let variables = names(&container["env"]).into_iter().chain(of_unit);
    for variable in variables {
        let Some(key) = variable.strip_prefix("TIDEWAITER_AGENT_") else {
            continue;
        };
        let key = key.to_ascii_lowercase();
        let first = key.split("__").next().unwrap_or_default();
        if !source.contains(&format!("    pub {first}: ")) {
            wrong.push(format!("`{variable}` is no setting of the agent"));
        }
    }
    let capabilities = words(&container["securityContext"]["capabilities"]["add"]);
    let of_unit = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let of_unit: BTreeSet<&str> = of_unit.unwrap_or_default().split(' ').collect();
    let here = capabilities.iter().map(|name| format!("CAP_{name}"));
    let here: BTreeSet<String> = here.collect();
    if !here.iter().map(String::as_str).eq(of_unit.iter().copied()) {
        wrong.push(format!(
            "{AGENT} and {UNIT} give other rights: {here:?}, {of_unit:?}"
        ));
    }
}

/// The names in a list of objects.
fn names(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|one| one["name"].as_str().map(str::to_owned))
        .collect()
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&text(file).unwrap_or_default()).expect("YAML")
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// What a list names, by itself or as a `source`.
fn sources(value: &Value) -> Vec<String> {
    let named = value.as_array().into_iter().flatten();
    let named = named.filter_map(|one| one.get("source").unwrap_or(one).as_str());
    named.map(str::to_owned).collect()
}

fn words(value: &Value) -> Vec<String> {
    let words = value.as_array().into_iter().flatten();
    words
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}
