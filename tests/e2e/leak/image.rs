//! An image with secrets of several kinds in every place where one may stand, made up when it is built.

use std::io::{Cursor, Write as _};

use serde_json::json;
use testkit::{Image, ImageBuilder, LayerBuilder, debian_layer, python_layer};

use super::hunt::Planted;

/// A name that must be found wherever something is looked at: where it is not, nothing was looked at.
pub(super) const MARKER: &str = "leak-test-marker";

const DIGITS: &str = "0123456789";
const WORD: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What is planted, and where the numbers come from.
struct Planting {
    planted: Vec<Planted>,
    state: u64,
}

// === impl Planting ===

impl Planting {
    /// Letters that look random and are the same each time (`SplitMix64`).
    fn random(&mut self, letters: &str, count: usize) -> String {
        let letters = letters.as_bytes();
        let mut text = String::new();
        for _ in 0..count {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let at = usize::try_from(z >> 33).unwrap_or_default() % letters.len();
            text.push(char::from(letters[at]));
        }
        text
    }

    /// A value that must be found nowhere.
    fn plant(&mut self, name: &str, prefix: &str, letters: &str, count: usize) -> String {
        let value = format!("{prefix}{}", self.random(letters, count));
        self.planted.push(Planted {
            name: name.to_owned(),
            value: value.clone(),
        });
        value
    }

    /// A private key of which every line is one: PKCS #8 around a number that is none.
    fn key(&mut self, name: &str) -> String {
        // A sequence of 764 bytes in 1024 letters: version 0, and behind it what comes.
        let head = "MIIC/AIBAD";
        let body = format!("{head}{}", self.random(BASE64, 1024 - head.len()));
        let lines: Vec<_> = body.as_bytes().chunks(64).collect();
        let lines: Vec<_> = lines
            .iter()
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        for (number, line) in lines.iter().enumerate() {
            self.planted.push(Planted {
                name: format!("{name}, line {}", number + 1),
                value: line.clone(),
            });
        }
        let lines = lines.join("\n");
        let (begin, end) = ("-----BEGIN ", "-----END ");
        format!("{begin}PRIVATE KEY-----\n{lines}\n{end}PRIVATE KEY-----\n")
    }
}

/// The image, and what is planted in it.
pub(super) fn image() -> (Image, Vec<Planted>) {
    let mut plant = Planting {
        planted: Vec::new(),
        state: 7,
    };
    let gitlab = "glpat-";
    let aws = plant.plant("AWS key in a file", "", BASE64, 40);
    let token = plant.plant("GitLab token in a file", gitlab, WORD, 20);
    let wide = plant.plant("GitLab token in UTF-16", gitlab, WORD, 20);
    let packed = plant.plant("GitLab token in an archive", gitlab, WORD, 20);
    let deleted = plant.plant("password in a deleted file", "", WORD, 18);
    let key = plant.key("private key in a deleted file");
    let url = plant.plant("password in a URL of the environment", "", WORD, 20);
    let mut digits = || plant.random(DIGITS, 12);
    let slack = format!("xoxb-{}-{}-", digits(), digits());
    let slack = plant.plant("Slack token in the environment", &slack, WORD, 24);
    let label = plant.plant("password in a label", "", WORD, 20);
    let stripe = plant.plant("Stripe key in the history", "sk_live_", WORD, 99);
    let argument = plant.plant("password in a build argument", "", WORD, 20);
    let command = plant.plant("GitLab token in the command", gitlab, WORD, 20);
    // No rule knows these, and they look as secrets do.
    let license = plant.plant("unknown value in the environment", "", WORD, 24);
    let site = plant.plant("unknown value of a build argument", "", WORD, 24);

    let files = LayerBuilder::new()
        .file(
            "root/.aws/credentials",
            format!("[default]\naws_secret_access_key = {aws}\n"),
        )
        .file(&format!("app/{MARKER}.yaml"), format!("token: {token}\n"))
        .file("app/notes.txt", in_utf16(&format!("token: {wide}\r\n")))
        .file(
            "app/backup.zip",
            zipped("conf/ci.yml", &format!("token: {packed}\n")),
        )
        .file(
            "root/.pgpass",
            format!("db.example.org:5432:app:ada:{deleted}\n"),
        )
        .file("root/.ssh/id_rsa", key);
    let image = ImageBuilder::new()
        .layer(debian_layer(), "base")
        .layer(
            python_layer(&[("requests", "2.19.1")]).build(),
            "RUN pip install",
        )
        .step(&format!("ARG DB_PASSWORD={argument}"))
        .step(&format!("ENV LICENSE={license}"))
        .step(&format!("RUN |1 SITE={site} /bin/sh -c true # buildkit"))
        .layer(
            files.build(),
            &format!("|1 DB_PASSWORD={argument} /bin/sh -c make {MARKER}"),
        )
        .layer(
            without_deleted().build(),
            &format!("RUN /bin/sh -c pay --key {stripe} && rm -r /root/.ssh # buildkit"),
        )
        .runtime(json!({
            "User": "app",
            "Env": [
                "PATH=/usr/bin",
                format!("DATABASE_URL=postgres://app:{url}@db.example.org/app"),
                format!("SLACK_BOT_TOKEN={slack}"),
                format!("LICENSE={license}"),
            ],
            "Labels": {
                "com.example.marker": MARKER,
                "com.example.source": format!("https://ada:{label}@git.example.org/app"),
            },
            "Cmd": ["serve", "--token", command],
        }))
        .build();
    (image, plant.planted)
}

fn in_utf16(text: &str) -> Vec<u8> {
    let units = format!("\u{feff}{text}");
    units.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A zip of one file, compressed.
fn zipped(name: &str, text: &str) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    writer.start_file(name, options).expect("in memory");
    writer.write_all(text.as_bytes()).expect("in memory");
    writer.finish().expect("in memory").into_inner()
}

/// What a later layer deletes.
fn without_deleted() -> LayerBuilder {
    LayerBuilder::new()
        .whiteout("root/.pgpass")
        .whiteout("root/.ssh/id_rsa")
}
