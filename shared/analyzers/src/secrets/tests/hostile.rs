//! Whatever stands in a text, it is read to its end.

use proptest::prelude::*;

use super::{
    super::{check::base64, engine::Engine, key::is_encrypted, samples},
    find,
};
use crate::{SecretCheck, SecretsConfig, check_dockerfile};

const CHECKS: [SecretCheck; 8] = [
    SecretCheck::Checksum,
    SecretCheck::AwsKeyId,
    SecretCheck::Jwt,
    SecretCheck::PrivateKey,
    SecretCheck::Base64Key,
    SecretCheck::BasicAuth,
    SecretCheck::Base64Text,
    SecretCheck::Password,
];

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let engine = Engine::new(&SecretsConfig::default());
        let (_found, _is_cut) = engine.findings("etc/shadow", &bytes);
        let _encrypted = is_encrypted(&bytes);
        for check in CHECKS {
            let _passed = check.pass(&bytes);
        }
    }

    #[test]
    fn no_text_panics(text in "(ghp_|AKIA|eyJ|-----BEGIN |PRIVATE KEY-----|://|:|@|=|\"|\\\\n|[a-zA-Z0-9+/]{0,40}|\n){0,60}") {
        for path in ["app/.env", "root/.bash_history", "a"] {
            let _found = find(path, &text);
        }
        let (_findings, _secrets) = check_dockerfile("Dockerfile", &text, &SecretsConfig::default());
    }

    #[test]
    fn a_key_that_lost_some_of_it_is_no_key(seed in 0_u64..50, cut in 8_usize..100) {
        let text = samples::pem(samples::Key::Rsa, seed);
        prop_assert_eq!(is_encrypted(text.as_bytes()), Some(false));
        let (start, rest) = text.split_at(200);
        let short = [start, &rest[cut..]].concat();
        prop_assert_eq!(is_encrypted(short.as_bytes()), None);
    }

    #[test]
    fn base64_reads_what_was_written(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(base64(samples::base64(&bytes).as_bytes()), Some(bytes));
    }
}
