//! The search: one pass for the keywords of all rules, and a rule's expression only around them.
//!
//! The pass is one automaton over the text, a step per byte. An expression takes time linear in what
//! it looks at, which is a window around a keyword; where keywords are dense the windows of a rule
//! meet and none is looked at twice. So a file takes time linear in its size, whatever is in it.

use std::{
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};
use jiff::Timestamp;
use model::{Digest, FoundSecret, Severity};

use super::{
    candidates,
    check::{Check, entropy, is_placeholder},
    config::{FingerprintKey, SecretsConfig},
    keystore,
    rule::{Rule, SecretRule, SecretRuleError},
    text::{Cursor, masked},
};

/// Bytes before a keyword in which a match may begin.
const BEFORE_BYTES: usize = 512;

/// Secrets of one file; real ones have a handful.
pub(super) const HITS_MAX: usize = 1000;

/// From this size on a text is searched by what is fastest.
const MUCH_TEXT_BYTES: usize = 16 << 10;

/// The built-in rules, as `build.rs` writes them, the surest first: of two that find the same text the
/// first one wins.
const BUILT_IN: &str = include_str!(concat!(env!("OUT_DIR"), "/secret-rules.json"));

/// All rules, ready to be used, and the key that names what they find.
pub(super) struct Engine {
    set: Arc<RuleSet>,
    key: FingerprintKey,
}

/// Rules and their keywords. Making them ready takes a while, so that is done once for all who look.
struct RuleSet {
    rules: Vec<Rule>,
    keywords: Keywords,
    /// The rules of each keyword.
    of_keyword: Vec<Vec<usize>>,
    /// Rules that look at all of a file.
    whole: Vec<usize>,
    /// Whether keystores are looked for, which no expression finds.
    finds_keystores: bool,
}

/// Finds keywords. What finds them fastest takes a while to make, which only much text is worth.
struct Keywords {
    words: Vec<String>,
    of_little: OnceLock<Option<AhoCorasick>>,
    of_much: OnceLock<Option<AhoCorasick>>,
}

/// A secret in a text.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) start: usize,
    pub(super) end: usize,
    rule: usize,
    severity: Severity,
    expires_at: Option<Timestamp>,
}

/// What of a text was found.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// The secrets, in order, none in another.
    pub(super) list: Vec<Hit>,
    /// Whether there are more.
    pub(super) is_cut: bool,
}

/// One text that is searched.
struct Search<'a> {
    engine: &'a Engine,
    path: &'a str,
    text: &'a [u8],
    /// Of each rule: whether it applies to the path, once that is known.
    applies: Vec<Option<bool>>,
    /// Of each rule: up to where matches that begin there have been found.
    covered: Vec<usize>,
    hits: Hits,
}

/// The rules that come with the program.
///
/// # Errors
/// Never in a program whose tests have run: they are part of it.
pub fn built_in_rules() -> Result<Vec<SecretRule>, String> {
    serde_json::from_str(BUILT_IN).map_err(|error| error.to_string())
}

/// Changes with every built-in rule.
pub(super) fn built_in_digest() -> Digest {
    Digest::of([BUILT_IN, keystore::RULE].concat().as_bytes())
}

// === impl Engine ===

impl Engine {
    /// The rules of a configuration.
    pub(super) fn new(config: &SecretsConfig) -> Arc<Self> {
        Arc::new(Self {
            set: RuleSet::new(config),
            key: config.key.clone(),
        })
    }

    /// Makes ready what the shortest text needs.
    pub(super) fn prepare(&self) {
        self.set.keywords.of(b"");
    }

    /// The secrets of a text.
    pub(super) fn search(&self, path: &str, text: &[u8]) -> Hits {
        let mut search = Search {
            engine: self,
            path,
            text,
            applies: vec![None; self.set.rules.len()],
            covered: vec![0; self.set.rules.len()],
            hits: Hits::default(),
        };
        for rule in &self.set.whole {
            if search.applies(*rule) {
                search.window(*rule, 0, text.len());
            }
        }
        let found = self.set.keywords.of(text).into_iter();
        for keyword in found.flat_map(|words| words.find_overlapping_iter(text)) {
            let rules = self.set.of_keyword.get(keyword.pattern().as_usize());
            for rule in rules.into_iter().flatten() {
                search.around(*rule, keyword.start(), keyword.end());
            }
            if search.hits.is_cut {
                break;
            }
        }
        search.into_hits()
    }

    /// The finding of a secret; its text goes no further than here.
    pub(super) fn finding(
        &self,
        hit: &Hit,
        path: &str,
        text: &[u8],
        cursor: &mut Cursor<'_>,
        from: usize,
    ) -> FoundSecret {
        let (line, column) = cursor.place(hit.start);
        let secret = text.get(hit.start..hit.end).unwrap_or_default();
        let lines = memchr::memchr_iter(b'\n', secret).count();
        let end_line = line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        let before = text.get(from..hit.start).unwrap_or_default();
        let rule = self.set.rules.get(hit.rule).map(|rule| &rule.written);
        let is_password = rule.is_some_and(|rule| rule.check.is_some_and(Check::is_of_passwords));
        FoundSecret {
            rule: rule.map(|rule| rule.id.clone()).unwrap_or_default(),
            title: rule.map(|rule| rule.title.clone()).unwrap_or_default(),
            severity: hit.severity,
            path: path.to_owned(),
            line,
            column,
            end_line,
            masked: masked(before, secret, is_password),
            advice: rule.map(|rule| rule.advice.clone()).unwrap_or_default(),
            expires_at: hit.expires_at,
            fingerprint: self.key.fingerprint(secret),
            file_digests: Vec::new(),
        }
    }

    /// All findings of a text, or of a keystore.
    pub(super) fn findings(&self, path: &str, text: &[u8]) -> (Vec<FoundSecret>, bool) {
        if candidates::is_keystore(path, text) {
            return (self.keystore(path, text).into_iter().collect(), false);
        }
        let hits = self.search(path, text);
        let mut cursor = Cursor::new(text);
        let mut from = 0;
        let mut findings = Vec::with_capacity(hits.list.len());
        for hit in &hits.list {
            findings.push(self.finding(hit, path, text, &mut cursor, from));
            from = hit.end;
        }
        (findings, hits.is_cut)
    }

    /// The finding of a keystore that holds private keys.
    fn keystore(&self, path: &str, bytes: &[u8]) -> Option<FoundSecret> {
        let keystore = keystore::read(bytes).filter(|_| self.set.finds_keystores)?;
        Some(FoundSecret {
            rule: keystore::RULE.to_owned(),
            title: "keystore with a private key".to_owned(),
            severity: keystore.severity(),
            path: path.to_owned(),
            line: 1,
            column: 1,
            end_line: 1,
            masked: keystore.excerpt(),
            advice: "give it to containers when they start; replace its keys if the password may be known"
                .to_owned(),
            expires_at: None,
            fingerprint: self.key.fingerprint(bytes),
            file_digests: Vec::new(),
        })
    }

    /// A text with its secrets masked, and where it had some.
    pub(super) fn mask(&self, path: &str, text: &str) -> Option<String> {
        let hits = self.search(path, text.as_bytes());
        if hits.list.is_empty() {
            return None;
        }
        let mut masked = String::with_capacity(text.len());
        let mut from = 0;
        for hit in &hits.list {
            masked.push_str(&String::from_utf8_lossy(
                text.as_bytes().get(from..hit.start).unwrap_or_default(),
            ));
            masked.push_str("****");
            from = hit.end;
        }
        masked.push_str(&String::from_utf8_lossy(
            text.as_bytes().get(from..).unwrap_or_default(),
        ));
        Some(masked)
    }

    #[cfg(test)]
    pub(super) fn shares_rules_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.set, &other.set)
    }

    #[cfg(test)]
    pub(super) fn rules(&self) -> &[Rule] {
        &self.set.rules
    }
}

// === impl RuleSet ===

impl RuleSet {
    /// Those of a process are nearly always the same: the built-in ones, or those of its
    /// configuration.
    fn new(config: &SecretsConfig) -> Arc<Self> {
        static BUILT_IN: OnceLock<Arc<RuleSet>> = OnceLock::new();
        static LAST: Mutex<Option<(SecretsConfig, Arc<RuleSet>)>> = Mutex::new(None);
        let wanted = SecretsConfig {
            key: FingerprintKey::default(),
            ..config.clone()
        };
        if wanted == SecretsConfig::default() {
            return Arc::clone(BUILT_IN.get_or_init(|| Arc::new(Self::of(&wanted))));
        }
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, set)) = &*last
            && *known == wanted
        {
            return Arc::clone(set);
        }
        let set = Arc::new(Self::of(&wanted));
        *last = Some((wanted, Arc::clone(&set)));
        set
    }

    fn of(config: &SecretsConfig) -> Self {
        // A test shows that all built-in rules can be read, and configurations are checked when they
        // are.
        let built_in = built_in_rules().unwrap_or_default();
        let is_replaced = |rule: &SecretRule| config.rules.iter().any(|own| own.id == rule.id);
        let built_in = built_in.into_iter().filter(|rule| !is_replaced(rule));
        let all = config.rules.iter().cloned().chain(built_in);
        let wanted = all.filter(|rule| !config.disable.contains(&rule.id));
        let rules: Result<Vec<Rule>, SecretRuleError> = wanted.map(Rule::new).collect();
        let rules = rules.unwrap_or_default();
        let mut words: Vec<String> = Vec::new();
        let mut of_keyword: Vec<Vec<usize>> = Vec::new();
        let mut whole = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            if rule.written.keywords.is_empty() {
                whole.push(number);
            }
            for word in &rule.written.keywords {
                let word = word.to_ascii_lowercase();
                if let Some(at) = words.iter().position(|known| *known == word)
                    && let Some(rules) = of_keyword.get_mut(at)
                {
                    rules.push(number);
                    continue;
                }
                words.push(word);
                of_keyword.push(vec![number]);
            }
        }
        Self {
            rules,
            keywords: Keywords {
                words,
                of_little: OnceLock::new(),
                of_much: OnceLock::new(),
            },
            of_keyword,
            whole,
            finds_keystores: !config.disable.iter().any(|id| id == keystore::RULE),
        }
    }
}

// === impl Keywords ===

impl Keywords {
    /// What finds them in this text.
    fn of(&self, text: &[u8]) -> Option<&AhoCorasick> {
        let (made, kind) = if text.len() < MUCH_TEXT_BYTES && self.of_much.get().is_none() {
            (&self.of_little, AhoCorasickKind::ContiguousNFA)
        } else {
            (&self.of_much, AhoCorasickKind::DFA)
        };
        let build = || {
            let mut builder = AhoCorasickBuilder::new();
            builder.ascii_case_insensitive(true).kind(Some(kind));
            builder.build(&self.words).ok()
        };
        made.get_or_init(build).as_ref()
    }
}

// === impl Search ===

impl Search<'_> {
    fn applies(&mut self, rule: usize) -> bool {
        let (engine, path) = (self.engine, self.path);
        let Some(known) = self.applies.get_mut(rule) else {
            return false;
        };
        *known.get_or_insert_with(|| {
            engine
                .set
                .rules
                .get(rule)
                .is_some_and(|rule| rule.applies(path))
        })
    }

    /// Looks around a keyword, but not where this rule has looked already.
    fn around(&mut self, number: usize, start: usize, end: usize) {
        if !self.applies(number) {
            return;
        }
        let Some(reach) = self.engine.set.rules.get(number).map(|rule| rule.reach) else {
            return;
        };
        let covered = self.covered.get(number).copied().unwrap_or_default();
        if start < covered {
            return;
        }
        // What begins in the first part of the window ends in it.
        let from = start.saturating_sub(BEFORE_BYTES).max(covered);
        let next = end.saturating_add(reach);
        let upto = next.saturating_add(reach).min(self.text.len());
        self.window(number, from, upto);
        if let Some(covered) = self.covered.get_mut(number) {
            *covered = next;
        }
    }

    /// Everything that a rule finds in a part of the text. What stands before is seen, so that the
    /// start of the part is no start of a word.
    fn window(&mut self, number: usize, mut from: usize, upto: usize) {
        let Some(rule) = self.engine.set.rules.get(number) else {
            return;
        };
        let (Some(regex), Some(text)) = (rule.regex(), self.text.get(..upto)) else {
            return;
        };
        while from <= text.len()
            && let Some(groups) = regex.captures_at(text, from)
        {
            let Some(all) = groups.get(0) else {
                return;
            };
            // What the window's end cut short is not what it seems.
            if all.end() == upto && upto < self.text.len() {
                return;
            }
            let mut named = groups.iter().skip(1).flatten();
            let secret = named.next().unwrap_or(all);
            self.take(number, secret.range(), all.range());
            if self.hits.is_cut {
                return;
            }
            from = secret.end().max(all.start().saturating_add(1));
        }
    }

    /// Keeps what the rule finds, if it is a secret.
    fn take(&mut self, number: usize, place: Range<usize>, all: Range<usize>) {
        let Some(rule) = self.engine.set.rules.get(number) else {
            return;
        };
        let (Some(secret), Some(all)) = (self.text.get(place.clone()), self.text.get(all)) else {
            return;
        };
        let is_armour = secret.starts_with(b"-----BEGIN");
        if rule.allows(secret, all) || (is_placeholder(secret) && !is_armour) {
            return;
        }
        if rule
            .written
            .entropy
            .is_some_and(|least| entropy(secret) < least)
        {
            return;
        }
        let passed = match rule.written.check {
            None => super::check::Passed::default(),
            Some(check) => match check.pass(secret) {
                Some(passed) => passed,
                None => return,
            },
        };
        if self.hits.list.len() >= HITS_MAX {
            self.hits.is_cut = true;
            return;
        }
        self.hits.list.push(Hit {
            start: place.start,
            end: place.end,
            rule: number,
            severity: passed.severity.unwrap_or(rule.written.severity),
            expires_at: passed.expires_at,
        });
    }

    /// In order; of those that overlap the surest.
    fn into_hits(self) -> Hits {
        let Hits { mut list, is_cut } = self.hits;
        list.sort_by_key(|hit| (hit.start, hit.rule, hit.end));
        let mut kept: Vec<Hit> = Vec::with_capacity(list.len());
        for hit in list {
            match kept.last_mut() {
                Some(last) if last.end > hit.start => {
                    if hit.rule < last.rule {
                        *last = hit;
                    }
                }
                _ => kept.push(hit),
            }
        }
        Hits { list: kept, is_cut }
    }
}
