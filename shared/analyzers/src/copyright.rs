//! Debian's copyright files: under which licences a package is.
//!
//! A machine-readable one (Debian's copyright format 1.0) names them. Of prose those are taken whose
//! own words are there: the sentence with which GNU's licences are granted, with its version, and the
//! sentences that only one licence has. What prose says otherwise stays unknown.

use std::sync::LazyLock;

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundLicenses, Hides};
use regex::Regex;

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id, stanza::paragraphs};

/// The largest real ones, of browsers, have 2 MB.
const BYTES_MAX: u64 = 4 << 20;

const DIRECTORY: &str = "usr/share/doc/";
const NAME: &str = "/copyright";

/// Different licences of one package.
const LICENSES_MAX: usize = 60;

/// Licences that Debian keeps in one place, and that have one version there.
const COMMON: &[&str] = &["Apache-2.0", "MPL-1.1", "MPL-2.0", "CC0-1.0", "Artistic"];

/// Sentences of which each belongs to one licence, as they stand in running text; the second must be
/// there as well, the third must not.
const SENTENCES: &[(&str, &str, &str, &str)] = &[
    (
        "MIT",
        "permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the \"software\"), to deal in the software without restriction",
        "the above copyright notice and this permission notice",
        "except as contained in this notice",
    ),
    (
        "BSD-4-Clause",
        "redistribution and use in source and binary forms, with or without modification, are permitted provided that the following conditions are met",
        "all advertising materials mentioning features or use of this software must display",
        "\0",
    ),
    (
        "BSD-3-Clause",
        "redistribution and use in source and binary forms, with or without modification, are permitted provided that the following conditions are met",
        "may be used to endorse or promote products derived from this software without specific prior written permission",
        "all advertising materials",
    ),
    (
        "BSD-2-Clause",
        "redistribution and use in source and binary forms, with or without modification, are permitted provided that the following conditions are met",
        "redistributions in binary form must reproduce the above copyright notice",
        "endorse or promote",
    ),
    (
        "ISC",
        "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, provided that the above copyright notice and this permission notice appear in all copies",
        "the author disclaims all warranties",
        "\0",
    ),
    (
        "ISC",
        "permission to use, copy, modify, and distribute this software for any purpose with or without fee is hereby granted, provided that the above copyright notice and this permission notice appear in all copies",
        "the author disclaims all warranties",
        "\0",
    ),
    (
        "Zlib",
        "this software is provided 'as-is', without any express or implied warranty. in no event will the authors be held liable for any damages arising from the use of this software",
        "altered source versions must be plainly marked as such",
        "\0",
    ),
    ("Perl", "under the same terms as perl itself", "", "\0"),
];

/// The grant of one of GNU's licences in running text in lower case.
static GRANT: LazyLock<Regex> = LazyLock::new(|| {
    let grant = concat!(
        r"terms of (?:either )?the gnu (affero |lesser |library )?general public licen[cs]e",
        r"(?: \([a-z]{3,4}\))?,?(?: as published by the free software foundation)?[;,]?",
        r" (?:either )?version (\d(?:\.\d)?)(?: of the licen[cs]e)?(?: dated june, 1991)?",
        r"((?:,? or \(?,? ?(?:at your option\)?,? )?any later version)?)(.{0,60})",
    );
    Regex::new(grant).unwrap_or_else(|_| NEVER.clone())
});

/// Where Debian keeps the texts of common licences.
static COMMON_FILE: LazyLock<Regex> = LazyLock::new(|| {
    let file = r"/usr/share/common-licenses/([A-Za-z0-9.-]*[A-Za-z0-9])";
    Regex::new(file).unwrap_or_else(|_| NEVER.clone())
});

/// Matches nothing: what a pattern that is wrong would be, and tests use all of them.
static NEVER: LazyLock<Regex> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant that a test uses")]
    Regex::new("[^\\s\\S]").expect("the empty class is a pattern")
});

/// Reads copyright files.
pub(crate) struct Copyright(AnalyzerId);

// === impl Copyright ===

impl Copyright {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("copyright", 1, config, limits)))
    }
}

impl Analyzer for Copyright {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn hides(&self) -> Hides {
        Hides::Nothing
    }

    fn pieces(&self) -> Vec<&str> {
        vec!["/copyright/"]
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        match package(entry.path) {
            Some(_) if entry.size <= BYTES_MAX => Wanted::Alone,
            Some(_) => Wanted::Entry,
            None => Wanted::No,
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let Some(package) = package(file.path()) else {
                continue;
            };
            let licenses = licenses(&file.text(BYTES_MAX)?);
            if !licenses.is_empty() {
                found.add_licenses(FoundLicenses {
                    package: package.to_owned(),
                    licenses,
                });
            }
        }
        Ok(())
    }
}

fn package(path: &str) -> Option<&str> {
    let name = path.strip_prefix(DIRECTORY)?.strip_suffix(NAME)?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

fn licenses(text: &str) -> Vec<String> {
    let head: String = text.chars().take(4096).collect();
    let head = head.to_ascii_lowercase();
    let is_format =
        |line: &str| line.starts_with("format:") || line.starts_with("format-specification:");
    if head.lines().any(is_format) {
        declared(text)
    } else {
        recognized(text)
    }
}

/// The first lines of all `License` fields: that of the whole, and those of files.
fn declared(text: &str) -> Vec<String> {
    let mut licenses: Vec<String> = Vec::new();
    for stanza in paragraphs(text) {
        let is_of_files = stanza.get("Files").is_some() || stanza.get("Format").is_some();
        // A list of files goes on below its field, whose first line is empty then.
        let is_of_files = is_of_files || stanza.all("Files").next().is_some();
        if let Some(name) = stanza.get("License").filter(|_| is_of_files) {
            push(name, &mut licenses);
        }
    }
    licenses
}

fn recognized(text: &str) -> Vec<String> {
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| !matches!(*word, "*" | "#" | "//" | "."))
        .collect();
    let running = words.join(" ");
    let lower = running
        .to_ascii_lowercase()
        .replace(['`', '\u{2018}', '\u{2019}'], "'");
    let mut licenses = Vec::new();
    for grant in GRANT.captures_iter(&lower) {
        let part = |at| grant.get(at).map_or("", |part| part.as_str());
        let family = match part(1).trim() {
            "affero" => "AGPL",
            "lesser" | "library" => "LGPL",
            _ => "GPL",
        };
        let version = part(2);
        let dot = if version.contains('.') { "" } else { ".0" };
        let end = match (part(3), part(4)) {
            ("", after) if after.contains("later") || after.contains("newer") => continue,
            ("", _) => "only",
            _ => "or-later",
        };
        push(&format!("{family}-{version}{dot}-{end}"), &mut licenses);
    }
    for (name, sentence, also, never) in SENTENCES {
        if lower.contains(sentence) && lower.contains(also) && !lower.contains(never) {
            push(name, &mut licenses);
        }
    }
    for file in COMMON_FILE.captures_iter(&running) {
        let name = file.get(1).map_or("", |name| name.as_str());
        if COMMON.contains(&name) {
            push(name, &mut licenses);
        }
    }
    licenses
}

fn push(name: &str, licenses: &mut Vec<String>) {
    let is_known = licenses.iter().any(|known| known == name);
    if !is_known && licenses.len() < LICENSES_MAX {
        licenses.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_readable_form_names_what_files_are_under() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
            Upstream-Name: x\n\nFiles: *\nCopyright: a\nLicense: GPL-2+ with OpenSSL exception\n text\n\n\
            Files:\n a\n b\nCopyright: b\nLicense: Expat\n\nFiles: c\nLicense: Expat\n\n\
            License: BSD-3-clause\n the text of something that no file is under\n";
        assert_eq!(licenses(text), ["GPL-2+ with OpenSSL exception", "Expat"]);
    }

    #[test]
    fn prose_says_what_only_one_license_says() {
        let gpl = |rest: &str| {
            format!(
                "It is free software; you can redistribute it and/or modify\n it under the terms of the \
                 GNU General\n Public License as published by the Free Software Foundation; {rest}"
            )
        };
        let check = |text: &str, expected: &[&str]| assert_eq!(licenses(text), expected, "{text}");
        check(
            &gpl("either version 2 of the License, or (at your option) any later version."),
            &["GPL-2.0-or-later"],
        );
        check(&gpl("version 2 of the License."), &["GPL-2.0-only"]);
        check(
            "under the terms of the GNU Lesser General Public License as published by the Free Software \
             Foundation; either version 2.1 of the License, or (at your option) any later version.",
            &["LGPL-2.1-or-later"],
        );
        check(
            &gpl("version 2 of the License, and whatever is later."),
            &[],
        );
        check("see /usr/share/common-licenses/GPL", &[]);
        check(
            "see `/usr/share/common-licenses/Apache-2.0'.",
            &["Apache-2.0"],
        );
        check("This is in the public domain, mostly.", &[]);
        check("", &[]);
    }

    #[test]
    fn a_bsd_license_is_told_by_its_clauses() {
        let head = "Redistribution and use in source and binary forms, with or without\n modification, are \
            permitted provided that the following conditions are met:\n 2. Redistributions in binary form \
            must reproduce the above copyright notice";
        let third = "Neither the name may be used to endorse or promote products derived from this \
            software without specific prior written permission";
        let fourth =
            "All advertising materials mentioning features or use of this software must display";
        assert_eq!(licenses(head), ["BSD-2-Clause"]);
        assert_eq!(licenses(&format!("{head} {third}")), ["BSD-3-Clause"]);
        assert_eq!(
            licenses(&format!("{head} {third} {fourth}")),
            ["BSD-4-Clause"]
        );
    }

    #[test]
    fn only_a_packages_own_file_is_one() {
        assert_eq!(package("usr/share/doc/bash/copyright"), Some("bash"));
        for path in [
            "usr/share/doc/copyright",
            "usr/share/doc/a/b/copyright",
            "srv/usr/share/doc/a/copyright",
        ] {
            assert_eq!(package(path), None, "{path}");
        }
    }
}
