use model::LicenseCategory as Category;

use super::*;

fn check(text: &str, expected: &str) {
    let said = expression(PackageType::Deb, &[text.to_owned()]);
    assert_eq!(said.as_deref(), Some(expected), "{text}");
    assert!(Expression::parse(expected).is_ok(), "{expected}");
}

#[test]
fn names_of_all_package_managers_are_identifiers() {
    for (text, expected) in [
        ("mit", "MIT"),
        ("Expat", "MIT"),
        ("MIT License", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("The Apache Software License, Version 2.0", "Apache-2.0"),
        ("ASL 2.0", "Apache-2.0"),
        (
            "http://www.apache.org/licenses/LICENSE-2.0.txt",
            "Apache-2.0",
        ),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("BSD 3-Clause License", "BSD-3-Clause"),
        ("New BSD License", "BSD-3-Clause"),
        ("ISC License (ISCL)", "ISC"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("Python Software Foundation License", "PSF-2.0"),
        ("zlib/libpng License", "Zlib"),
        ("GPLv2+", "GPL-2.0-or-later"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2.0", "GPL-2.0-only"),
        ("GPL-3.0+", "GPL-3.0-or-later"),
        ("GPL+", "LicenseRef-GPL"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("LGPLv2+", "LGPL-2.0-or-later"),
        ("AGPLv3", "AGPL-3.0-only"),
        ("GPL (>= 2)", "GPL-2.0-or-later"),
        (
            "GNU General Public License v2 or later (GPLv2+)",
            "GPL-2.0-or-later",
        ),
        (
            "GNU Lesser General Public License v3 (LGPLv3)",
            "LGPL-3.0-only",
        ),
        ("GNU Affero General Public License v3", "AGPL-3.0-only"),
        ("GPL-2.0-or-later", "GPL-2.0-or-later"),
        ("Eclipse Public License - v 2.0", "EPL-2.0"),
        ("MIT + file LICENSE", "MIT"),
        ("BSD_3_clause + file LICENCE", "BSD-3-Clause"),
        ("GPL-3 + file LICENSE", "LicenseRef-GPL-3-file-LICENSE"),
        (
            "Apache License (== 2.0) | file LICENSE",
            "Apache-2.0 OR LicenseRef-file-LICENSE",
        ),
        ("GPL (== 2)", "GPL-2.0-only"),
    ] {
        check(text, expected);
    }
}

#[test]
fn joined_licenses_are_expressions() {
    for (text, expected) in [
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        (
            "(MIT or BSD-3-Clause) and GPLv2+",
            "(MIT OR BSD-3-Clause) AND GPL-2.0-or-later",
        ),
        ("GPL-2 or later", "GPL-2.0-or-later"),
        (
            "GPL-1+ or Artistic, and Expat",
            "(GPL-1.0-or-later OR Artistic-1.0) AND MIT",
        ),
        ("GPL-2 | GPL-3", "GPL-2.0-only OR GPL-3.0-only"),
        ("GPL-2.0 MIT", "(GPL-2.0-only AND MIT)"),
        (
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "GPL-2.0-only WITH Classpath-exception-2.0",
        ),
        (
            "GPL-3+ with GCC Runtime Library exception",
            "GPL-3.0-or-later WITH GCC-exception-3.1",
        ),
        (
            "GPL-2+ with OpenSSL exception",
            "LicenseRef-GPL-2-with-OpenSSL-exception",
        ),
        ("MIT and as-is", "MIT AND LicenseRef-as-is"),
        (
            "Apache-2.0 WITH LLVM-exception OR MIT",
            "Apache-2.0 WITH LLVM-exception OR MIT",
        ),
        (
            "MIT AND (Apache-2.0 OR (ISC AND Zlib))",
            "MIT AND (Apache-2.0 OR (ISC AND Zlib))",
        ),
    ] {
        check(text, expected);
    }
}

#[test]
fn what_names_no_license_stays_unknown() {
    for (text, expected) in [
        ("BSD", "LicenseRef-BSD"),
        ("see LICENSE.txt", "LicenseRef-see-LICENSE.txt"),
        (
            "GPLv2 or LGPLv3 something",
            "GPL-2.0-only OR LicenseRef-LGPLv3-something",
        ),
        ("MIT OR", "LicenseRef-MIT-OR"),
        ("(((", "LicenseRef-unnamed"),
        (
            "Lizenz für Öffentliches",
            "LicenseRef-Lizenz-f-r-ffentliches",
        ),
    ] {
        check(text, expected);
    }
    check(&"(".repeat(200), "LicenseRef-unnamed");
    assert_eq!(expression(PackageType::Deb, &[]), None);
    assert_eq!(expression(PackageType::Deb, &[" ".to_owned()]), None);
}

#[test]
fn several_texts_are_a_choice_where_the_format_says_so() {
    let two = ["MIT".to_owned(), "GPL-2.0-only OR ISC".to_owned()];
    assert_eq!(
        expression(PackageType::Pypi, &two).as_deref(),
        Some("MIT AND (GPL-2.0-only OR ISC)")
    );
    assert_eq!(
        expression(PackageType::Maven, &two).as_deref(),
        Some("MIT OR (GPL-2.0-only OR ISC)")
    );
    let many: Vec<_> = (0..100)
        .map(|at| format!("{at} {}", "x".repeat(180)))
        .collect();
    assert_eq!(
        expression(PackageType::Deb, &many),
        None,
        "longer than any real one"
    );
}

#[test]
fn a_choice_is_as_mild_as_its_mildest_and_a_sum_as_strict_as_its_strictest() {
    for (text, expected) in [
        ("MIT", Category::Permissive),
        ("GPL-3.0-only OR MIT", Category::Permissive),
        ("GPL-3.0-only AND MIT", Category::Copyleft),
        ("AGPL-3.0-only", Category::NetworkCopyleft),
        ("LGPL-2.1-or-later", Category::WeakCopyleft),
        (
            "GPL-2.0-only WITH Classpath-exception-2.0",
            Category::WeakCopyleft,
        ),
        ("PSF-2.0", Category::Permissive),
        ("CC0-1.0", Category::PublicDomain),
        ("LicenseRef-public-domain", Category::PublicDomain),
        ("SSPL-1.0", Category::SourceAvailable),
        ("LicenseRef-UNLICENSED", Category::Proprietary),
        (
            "LicenseRef-GPL-2-with-OpenSSL-exception",
            Category::Copyleft,
        ),
        ("MIT AND LicenseRef-as-is", Category::Unknown),
        (NOTHING, Category::Unknown),
    ] {
        assert_eq!(category(text), expected, "{text}");
    }
}

#[test]
fn a_choice_is_satisfied_by_one_of_its_sides() {
    let mit = |name: &str, _| name == "MIT";
    assert!(is_satisfied("MIT OR GPL-3.0-only", mit));
    assert!(!is_satisfied("MIT AND GPL-3.0-only", mit));
    assert!(!is_satisfied(NOTHING, mit));
    let with = |name: &str, _| name == "GPL-2.0-only WITH Classpath-exception-2.0";
    assert!(is_satisfied(
        "GPL-2.0-only WITH Classpath-exception-2.0",
        with
    ));
    assert!(is_listed("MIT OR ISC") && !is_listed("MIT OR LicenseRef-x") && !is_listed(NOTHING));
    assert_eq!(named("ISC OR MIT AND MIT"), ["ISC", "MIT"]);
}

proptest::proptest! {
    #[test]
    fn any_text_gives_an_expression_of_the_list(text in "\\PC{0,200}") {
        if let Some(said) = expression(PackageType::Deb, std::slice::from_ref(&text)) {
            proptest::prop_assert!(Expression::parse(&said).is_ok(), "{text:?} {said:?}");
        }
    }

    #[test]
    fn any_words_of_licenses_give_an_expression(words in proptest::collection::vec(
        proptest::sample::select(vec!["MIT", "GPL-2+", "(", ")", "and", "or", "with", ",", "|", "later",
            "Classpath exception", "BSD", "/", "MIT/ISC", "+", "GPL (>= 2)"]), 0..20)) {
        let text = words.join(" ");
        if let Some(said) = expression(PackageType::Deb, std::slice::from_ref(&text)) {
            proptest::prop_assert!(Expression::parse(&said).is_ok(), "{text:?} {said:?}");
        }
    }
}
