//! Secrets in an image's config: environment, labels, commands, and the history with its build
//! arguments. What is found is masked in all that a report shows of the config.

use std::collections::BTreeSet;

use model::{Digest, Fingerprint, FoundSecret, ImageConfig, Secret};
use serde_json::Value;

use super::{SecretsConfig, engine::Engine};
use crate::compliance::{Instruction, Keyword, parse};

/// Where findings of the config are.
const PLACE: &str = "image-config";

/// Bytes of the shortest secret that is masked wherever else it stands.
const MASKED_BYTES_MIN: usize = 6;

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

/// Whether a document of a registry, a config or a manifest, holds a secret anywhere. Who keeps documents
/// keeps none of these.
pub fn holds_secret(document: &str, settings: &SecretsConfig) -> bool {
    let engine = Engine::new(settings);
    let mut look = Look::new(&engine);
    look.text(PLACE, document, None);
    let parsed: Option<Value> = serde_json::from_str(document).ok();
    let mut open: Vec<(&str, &Value)> = parsed.iter().map(|value| ("", value)).collect();
    while let Some((name, value)) = open.pop() {
        if !look.found.is_empty() {
            break;
        }
        match value {
            Value::Object(members) => {
                open.extend(members.iter().map(|(name, value)| (name.as_str(), value)));
            }
            Value::Array(items) => open.extend(items.iter().map(|value| (name, value))),
            // As the environment, a label, or an instruction: what it is shows in what it says.
            Value::String(text) => {
                let variable = text.split_once('=').map_or("", |(name, _)| name);
                look.text(&format!("{PLACE}/env/{variable}"), text, None);
                look.pair("labels", name, text, None);
                look.instruction(&Instruction::of_history(0, text), 0);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    !look.found.is_empty()
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

    fn instruction(&mut self, instruction: &Instruction, number: usize) {
        for (name, value) in instruction.pairs() {
            self.pair("args", &name, &value, Some(number));
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
