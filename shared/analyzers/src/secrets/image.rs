//! Secrets in an image's config: environment, labels, commands, and the history with its build
//! arguments. What is found is masked in all that a report shows of the config.
//!
//! Nothing needs the values of the environment, so a report has their names alone. The history and the
//! document itself hold them as well: there a value that looks random is masked, or the document not
//! kept, though no rule takes it for a secret. It is no finding, for many of them are none.

use std::collections::BTreeSet;

use model::{Digest, Fingerprint, FoundSecret, ImageConfig, Secret};
use serde_json::Value;

use super::{SecretsConfig, check::entropy, engine::Engine};
use crate::compliance::{Instruction, Keyword, parse};

/// Where findings of the config are.
const PLACE: &str = "image-config";

/// Bytes of the shortest secret that is masked wherever else it stands.
const MASKED_BYTES_MIN: usize = 6;

/// Bytes of the shortest value of a variable that may look random, and the bits that each has then.
const RANDOM_BYTES_MIN: usize = 16;
const RANDOM_BITS_MIN: f64 = 3.0;

/// Parts of names of variables whose values look random and are public: what was built, and its digest.
const PUBLIC_PARTS: &[&str] = &[
    "CHECKSUM",
    "COMMIT",
    "DIGEST",
    "FINGERPRINT",
    "GIT",
    "GPG",
    "MD5",
    "REF",
    "REVISION",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA512",
    "VERSION",
];

/// What was found in a config.
#[derive(Debug, Default)]
pub(crate) struct ConfigSecrets {
    /// The config, with all secrets masked and without the environment's values.
    pub(crate) config: ImageConfig,
    /// The secrets.
    pub(crate) secrets: Vec<Secret>,
}

/// A config that is looked into.
struct Look<'a> {
    engine: &'a Engine,
    /// The texts of what was found, to be masked everywhere.
    values: BTreeSet<String>,
    found: Vec<(FoundSecret, Option<usize>)>,
}

/// Looks into a config; `layers` are the blobs of the image's layers, `image_id` is the config's
/// digest, which stands where nothing of a layer is meant.
pub(crate) fn look_into_config(
    config: &ImageConfig,
    layers: &[Digest],
    image_id: Digest,
    settings: &SecretsConfig,
) -> ConfigSecrets {
    let engine = Engine::new(settings);
    let mut look = Look::new(&engine);
    let instructions: Vec<Instruction> = config
        .history
        .iter()
        .enumerate()
        .map(|(number, step)| Instruction::of_history(number, &step.created_by))
        .collect();
    for (name, value) in &config.environment.0 {
        let step = instructions.iter().rposition(|one| {
            one.keyword == Keyword::Env && one.pairs().iter().any(|(known, _)| known == name)
        });
        look.pair("env", name, value, step);
        look.variable(name, value);
    }
    for (number, instruction) in instructions.iter().enumerate() {
        look.instruction(instruction, number);
    }
    for (name, value) in &config.runtime.labels {
        look.text(&format!("{PLACE}/labels/{name}"), value, None);
    }
    let runtime = &config.runtime;
    let commands = [
        ("entrypoint", Some(&runtime.entrypoint)),
        ("cmd", Some(&runtime.cmd)),
        ("healthcheck", runtime.healthcheck.as_ref()),
    ];
    for (place, words) in commands {
        let text = words.map(|words| words.join(" ")).unwrap_or_default();
        look.text(&format!("{PLACE}/{place}"), &text, None);
    }
    let config = look.masked(config);
    let secrets = look.secrets(&config, layers, image_id);
    ConfigSecrets { config, secrets }
}

/// Whether a document of a registry, a config or a manifest, holds a secret anywhere, or a variable whose
/// value looks like one. Who keeps documents keeps none of these.
pub fn holds_secret(document: &str, settings: &SecretsConfig) -> bool {
    let engine = Engine::new(settings);
    let mut look = Look::new(&engine);
    look.text(PLACE, document, None);
    let parsed: Option<Value> = serde_json::from_str(document).ok();
    let mut open: Vec<(&str, &Value)> = parsed.iter().map(|value| ("", value)).collect();
    while let Some((name, value)) = open.pop() {
        if look.has_some() {
            break;
        }
        match value {
            Value::Object(members) => {
                open.extend(members.iter().map(|(name, value)| (name.as_str(), value)));
            }
            Value::Array(items) => open.extend(items.iter().map(|value| (name, value))),
            // As the environment, a label, or an instruction: what it is shows in what it says.
            Value::String(text) => {
                let (variable, value) = text.split_once('=').unwrap_or_default();
                look.text(&format!("{PLACE}/env/{variable}"), text, None);
                look.variable(variable, value);
                look.pair("labels", name, text, None);
                look.instruction(&Instruction::of_history(0, text), 0);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    look.has_some()
}

/// Looks into the text of a Dockerfile; gives it back masked.
pub(crate) fn look_into_text(
    path: &str,
    text: &str,
    file: Digest,
    settings: &SecretsConfig,
) -> (String, Vec<Secret>) {
    let engine = Engine::new(settings);
    let mut look = Look::new(&engine);
    look.text(path, text, None);
    for instruction in parse(text) {
        let known = look.found.len();
        for (name, value) in instruction.pairs() {
            look.pair("args", &name, &value, None);
        }
        // Of a name and its value only the instruction's place is known.
        for (found, _) in look.found.iter_mut().skip(known) {
            path.clone_into(&mut found.path);
            (found.line, found.end_line, found.column) = (instruction.line, instruction.line, 1);
        }
    }
    let masked = look.mask(path, text);
    let secrets = look
        .found
        .into_iter()
        .map(|(found, _)| secret(found, file, None));
    (masked, secrets.collect())
}

// === impl Look ===

impl<'a> Look<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            values: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    /// A name and its value.
    fn pair(&mut self, place: &str, name: &str, value: &str, step: Option<usize>) {
        let path = format!("{PLACE}/{place}/{name}");
        self.text(&path, &format!("{name}={value}"), step);
    }

    /// A variable of the environment or of a build: what looks random is to be seen nowhere, though it
    /// may be none. Commands hand on a part of it as well as all of it.
    fn variable(&mut self, name: &str, value: &str) {
        for part in random_parts(name, value) {
            self.values.insert(part.to_owned());
            self.values.insert(value.to_owned());
        }
    }

    fn has_some(&self) -> bool {
        !self.found.is_empty() || !self.values.is_empty()
    }

    fn instruction(&mut self, instruction: &Instruction, number: usize) {
        for (name, value) in instruction.pairs() {
            self.pair("args", &name, &value, Some(number));
            self.variable(&name, &value);
        }
        self.text(
            &format!("{PLACE}/history/{number}"),
            &instruction.text,
            Some(number),
        );
    }

    fn text(&mut self, path: &str, text: &str, step: Option<usize>) {
        for hit in self.engine.search(path, text.as_bytes()).list {
            if let Some(value) = text.get(hit.start..hit.end)
                && value.len() >= MASKED_BYTES_MIN
            {
                self.values.insert(value.to_owned());
            }
        }
        let (found, _) = self.engine.findings(path, text.as_bytes());
        for one in found {
            let is_known = |known: &(FoundSecret, _)| known.0.fingerprint == one.fingerprint;
            // The history tells again what the environment holds.
            if !self.found.iter().any(is_known) {
                self.found.push((one, step));
            }
        }
    }

    fn mask(&self, path: &str, text: &str) -> String {
        let mut text = self
            .engine
            .mask(path, text)
            .unwrap_or_else(|| text.to_owned());
        // A value may be a part of a longer one.
        let mut values: Vec<_> = self.values.iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        for value in values {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), "****");
            }
        }
        text
    }

    fn masked(&self, config: &ImageConfig) -> ImageConfig {
        let mut masked = config.clone();
        for (number, step) in masked.history.iter_mut().enumerate() {
            step.created_by = self.mask(&format!("{PLACE}/history/{number}"), &step.created_by);
        }
        let runtime = &mut masked.runtime;
        for (name, value) in &mut runtime.labels {
            *value = self.mask(&format!("{PLACE}/labels/{name}"), value);
        }
        let commands = [&mut runtime.entrypoint, &mut runtime.cmd];
        let words = commands
            .into_iter()
            .chain(&mut runtime.healthcheck)
            .flatten();
        for word in words {
            *word = self.mask(&format!("{PLACE}/cmd"), word);
        }
        masked.environment.0.clear();
        masked
    }

    /// The findings, with the masked instruction that brought each.
    fn secrets(self, config: &ImageConfig, layers: &[Digest], image_id: Digest) -> Vec<Secret> {
        let steps = config.history.iter();
        let with_layer = steps.clone().filter(|step| !step.empty_layer).count();
        let layer_of = |number: usize| {
            let step = config
                .history
                .get(number)
                .filter(|step| !step.empty_layer)?;
            let before = config.history.get(..number)?.iter();
            let before = before.filter(|step| !step.empty_layer).count();
            let blob = layers.get(before).filter(|_| with_layer == layers.len());
            blob.map(|blob| (*blob, step))
        };
        let found = self.found.into_iter().map(|(found, step)| {
            let layer = step.and_then(layer_of).map_or(image_id, |(blob, _)| blob);
            let instruction = step.and_then(|step| config.history.get(step));
            secret(
                found,
                layer,
                instruction.map(|step| step.created_by.clone()),
            )
        });
        found.collect()
    }
}

/// The parts of a variable's value that are as a machine makes them: letters and digits in no order.
/// Words, paths, versions and addresses are not.
fn random_parts<'v>(name: &str, value: &'v str) -> impl Iterator<Item = &'v str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = !name.is_empty() && name.chars().all(is_word);
    let name = name.to_ascii_uppercase();
    let is_public = name.split('_').any(|part| PUBLIC_PARTS.contains(&part));
    let is_of_part = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
    let parts = value.split(move |c| !is_of_part(c));
    parts.filter(move |part| {
        is_name && !is_public && part.len() >= RANDOM_BYTES_MIN && is_random(part.as_bytes())
    })
}

/// Whether letters and digits change places often, and none is there much more than others.
fn is_random(part: &[u8]) -> bool {
    let kind = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let known = part.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let kinds: Vec<_> = known.map(kind).collect();
    let changes = kinds.windows(2).filter(|pair| pair.first() != pair.last());
    let digits = kinds.iter().filter(|(is_digit, _)| *is_digit).count();
    (1..kinds.len()).contains(&digits)
        && changes.count() >= kinds.len() / 4
        && entropy(part) >= RANDOM_BITS_MIN
}

fn secret(found: FoundSecret, layer: Digest, instruction: Option<String>) -> Secret {
    Secret {
        rule: found.rule,
        title: found.title,
        severity: found.severity,
        path: found.path,
        line: found.line,
        column: found.column,
        end_line: found.end_line,
        layer,
        instruction,
        deleted_later: false,
        masked: found.masked,
        advice: found.advice,
        expires_at: found.expires_at,
        waived: None,
        fingerprint: Fingerprint(found.fingerprint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks_random(name: &str, value: &str) -> bool {
        random_parts(name, value).next().is_some()
    }

    #[test]
    fn values_that_a_machine_made_look_random_and_those_of_real_images_do_not() {
        for value in [
            "q7Hn2vX0pL9sT4bZ",
            "0f3a9c8e7d6b5a4f3e2d1c0b9a8f7e6d",
            "550e8400-e29b-41d4-a716-446655440000",
            "k3j9x0q2m5n8b1v7",
            "https://x.example/hooks/T0ab1CdE2fGh3IjK4l",
        ] {
            assert!(looks_random("LICENSE", value), "{value}");
        }
        for (name, value) in [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/opt/java/openjdk17/bin",
            ),
            ("GPG_KEY", "A035C8C19219BA821ECEA86B64E628F8D684696D"),
            (
                "PYTHON_SHA256",
                "0f3a9c8e7d6b5a4f3e2d1c0b9a8f7e6d0f3a9c8e7d6b5a4f",
            ),
            ("JAVA_HOME", "/usr/lib/jvm/java-17-openjdk-amd64"),
            (
                "JAVA_OPTS",
                "-XX:+UseContainerSupport -XX:MaxRAMPercentage=75.0",
            ),
            ("JAVA_VERSION", "jdk-17.0.9+9"),
            ("PKG_RELEASE", "1~bookworm"),
            ("NJS_RELEASE", "0.8.4-r1-alpine3.19"),
            ("LANG", "en_US.UTF-8"),
            ("ASPNETCORE_HTTP_PORTS", "8080"),
            (
                "LD_LIBRARY_PATH",
                "/usr/local/nvidia/lib:/usr/local/cuda-12.3/lib64",
            ),
            (
                "NVIDIA_REQUIRE_CUDA",
                "cuda>=12.3 brand=tesla,driver>=470,driver<471",
            ),
            (
                "PHPIZE_DEPS",
                "autoconf dpkg-dev file g++ gcc libc-dev make",
            ),
            ("PHP_LDFLAGS", "-Wl,-O1 -pie"),
            (
                "KAFKA_CFG_LISTENERS",
                "PLAINTEXT://:9092,CONTROLLER://:9093",
            ),
            ("not a name", "q7Hn2vX0pL9sT4bZ"),
            ("SHORT", "q7Hn2vX0pL9sT4b"),
        ] {
            assert!(!looks_random(name, value), "{name}={value}");
        }
    }
}
