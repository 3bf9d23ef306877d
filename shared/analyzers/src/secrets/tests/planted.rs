//! An image with a hundred secrets of fifty kinds, in the forms that their issuers document, and a
//! hundred texts that only look like some: what is found, what is missed, what is false.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use archive::Limits;
use model::{Digest, Environment, HistoryStep, ImageConfig, RuntimeConfig};

use super::{
    super::{
        owned,
        samples::{expand, told},
    },
    image::image,
};
use crate::{
    Analyzers, Config, FingerprintKey, LayerBlob, PreparedLayer, SecretsConfig, read_layer,
};

/// A layer of these files.
pub(super) fn layer(files: &[(&str, &[u8])]) -> PreparedLayer {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    let blob = builder.into_inner().unwrap();
    let limits = Limits::default();
    let expected = LayerBlob {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
    };
    let analyzers = Analyzers::all(&Config::default(), &limits);
    let read = read_layer(&blob[..], &expected, &analyzers, &limits, None);
    assert!(read.complete);
    PreparedLayer::new(read.report)
}

/// The MD5 of a file, as dpkg records it.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    let digests = owned::digests(bytes);
    digests[0].strip_prefix("md5:").unwrap().to_owned()
}

/// Fifty kinds: where each lies, the text around it, and the form of the secret itself, which stands
/// for the first `@`. Each is planted twice.
const KINDS: &[(&str, &str, &str)] = &[
    ("app/.env", "AWS_ACCESS_KEY_ID=@\n", "{awsid:20}"),
    (
        "root/.aws/credentials",
        "[default]\naws_secret_access_key = @\n",
        "{B:40}",
    ),
    (
        "app/config/google.json",
        "{\"type\": \"service_account\", \"private_key_id\": \"0123abcd0123abcd0123abcd0123abcd01239999\", \"private_key\": \"@\"}",
        "{pemline:2}",
    ),
    ("srv/maps.js", "const mapsKey = '@';", "AIza{b:35}"),
    (
        "app/storage.ini",
        "conn=DefaultEndpointsProtocol=https;AccountName=x;AccountKey=@;EndpointSuffix=core.windows.net\n",
        "{B:86}==",
    ),
    ("app/azure.yaml", "clientSecret: @\n", "{w:3}8Q~{w:34}"),
    ("app/do.sh", "doctl auth init -t @\n", "dop_v1_{x:64}"),
    ("app/ci.yml", "token: @\n", "ghp_{crc:36}"),
    ("app/deploy.sh", "export GH=@\n", "github_pat_{w:22}_{w:59}"),
    ("app/gitlab.txt", "use @ to clone\n", "glpat-{b:20}"),
    (
        "root/.git-credentials",
        "https://ada:@@git.example.org\n",
        "{w:24}",
    ),
    (
        "root/.npmrc",
        "//registry.npmjs.org/:_authToken=@\n",
        "npm_{crc:36}",
    ),
    (
        "root/.pypirc",
        "[pypi]\nusername = __token__\npassword = @\n",
        "pypi-AgEIcHlwaS5vcmc{b:150}",
    ),
    (
        "root/.netrc",
        "machine example.org\nlogin ada\npassword @\n",
        "{w:16}",
    ),
    (
        "root/.docker/config.json",
        "{\"auths\": {\"r.example\": {\"auth\": \"@\"}}}",
        "{pair:20}",
    ),
    (
        "root/.kube/config",
        "users:\n- name: a\n  user:\n    client-key-data: @\n",
        "{b64pem:1}",
    ),
    ("home/ada/.ssh/id_rsa", "@", "{pem:1}"),
    ("home/ada/.ssh/id_ed25519", "@", "{pem:4}"),
    ("etc/ssl/private/server.key", "@", "{pem:2}"),
    ("etc/ssl/private/ec.pem", "@", "{pem:3}"),
    ("root/secring.asc", "@", "{pem:7}"),
    (
        "etc/wireguard/wg0.conf",
        "[Interface]\nPrivateKey = @\n",
        "{B:42}A=",
    ),
    ("app/key.age", "# created\n@\n", "AGE-SECRET-KEY-1{bech:58}"),
    (
        "app/slack.py",
        "client = WebClient(token=\"@\")\n",
        "xoxb-{d:12}-{d:12}-{w:24}",
    ),
    (
        "app/hook.sh",
        "curl -d x https://hooks.slack.com/services/@\n",
        "T{u:10}/B{u:10}/{w:24}",
    ),
    (
        "app/bot.py",
        "DISCORD_TOKEN = '@'\n",
        "M{b:23}.{b:6}.{b:38}",
    ),
    ("app/telegram.conf", "bot_token=@\n", "{d:10}:AA{b:33}"),
    ("app/mail.rb", "api_key: '@'\n", "SG.{b:22}.{b:43}"),
    ("app/sms.env", "TWILIO_AUTH_TOKEN=@\n", "{x:32}"),
    (
        "app/pay.php",
        "\\Stripe\\Stripe::setApiKey('@');\n",
        "sk_live_{w:99}",
    ),
    ("app/shop.toml", "token = \"@\"\n", "shpat_{x:32}"),
    ("app/pay2.toml", "secret = \"@\"\n", "sq0csp-{b:43}"),
    ("app/dd.yaml", "DD_API_KEY: \"@\"\n", "{x:32}"),
    ("app/nr.yml", "api_key: @\n", "NRAK-{u:27}"),
    ("app/grafana.ini", "token = @\n", "glsa_{w:32}_{x:8}"),
    (
        "app/ai.py",
        "client = OpenAI(api_key=\"@\")\n",
        "sk-proj-{b:74}T3BlbkFJ{b:74}",
    ),
    (
        "app/claude.ts",
        "const key = \"@\";\n",
        "sk-ant-api03-{b:93}AA",
    ),
    ("app/model.py", "login(token='@')\n", "hf_{A:34}"),
    ("app/groq.cfg", "key=@\n", "gsk_{w:52}"),
    (
        "app/db.properties",
        "url=postgres://app:@@db:5432/app\n",
        "{w:20}",
    ),
    (
        "app/mongo.js",
        "mongoose.connect('mongodb+srv://app:@@cluster0.example.org/db')\n",
        "{w:18}",
    ),
    (
        "app/jobs.conf",
        "CELERY_BROKER=amqp://app:@@mq:5672//\n",
        "{w:15}",
    ),
    (
        "app/web.config",
        "<add connectionString=\"Server=tcp:db;User ID=app;Password=@;\" />\n",
        "{w:16}",
    ),
    ("root/.my.cnf", "[client]\npassword=@\n", "{w:14}"),
    ("root/.pgpass", "db.example.org:5432:app:ada:@\n", "{w:14}"),
    (
        "etc/shadow",
        "root:*:19000:0:99999:7:::\nada:@:19000:0:99999:7:::\n",
        "$6${w:16}${w:86}",
    ),
    (
        "root/.bash_history",
        "ls\nmysql -u root -p@ app\n",
        "{w:14}",
    ),
    (
        "app/terraform.tfstate",
        "{\"attributes\": {\"master_password\": \"@\"}}",
        "{w:20}",
    ),
    ("app/session.json", "{\"token\": \"@\"}", "{jwt:1}"),
    ("app/vault.hcl", "token = \"@\"\n", "hvs.{b:90}"),
];

/// The last of all are in the config and not in a file.
const IN_CONFIG: usize = 3;
/// The last of those in files are deleted by a later layer.
const DELETED: usize = 5;

/// Texts that only look like secrets, in the words of real packages: documentation, lock files, test
/// vectors, placeholders, variables, digests, names.
const LOOK_ALIKES: &[(&str, &str)] = &[
    ("AWS docs", "aws_access_key_id = AKIA|IOSFODNN7EXAMPLE\n"),
    (
        "AWS docs",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY|EXAMPLEKEY\n",
    ),
    ("no base 32", "id: AKIA{d:16}\n"),
    ("inside a word", "data:XAKIA{k32:16}Y\n"),
    ("wrong checksum", "ghp_{w:36}\n"),
    ("wrong checksum", "npm_{w:36}\n"),
    ("too short", "ghp_{w:12}\n"),
    (
        "placeholder",
        "GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
    ),
    ("placeholder", "password: changeme\n"),
    ("placeholder", "api_key = your_api_key_here\n"),
    ("placeholder", "DB_PASSWORD=<password>\n"),
    ("variable", "DB_PASSWORD=${DB_PASSWORD}\n"),
    ("variable", "DB_PASSWORD=$DB_PASSWORD\n"),
    ("variable", "password: {{ vault_password }}\n"),
    ("variable", "url = postgres://app:${PASSWORD}@db/app\n"),
    ("variable", "postgres://%(user)s:%(password)s@db/app\n"),
    ("documentation", "# postgres://user:password@host/db\n"),
    (
        "documentation",
        "http://username:password@proxy.example.com:8080\n",
    ),
    ("documentation", "redis://:password@localhost:6379/0\n"),
    ("documentation", "https://user:pass@example.com/path\n"),
    ("documentation", "amqp://guest:guest@localhost:5672//\n"),
    ("documentation", "mysql://root:root@localhost/db\n"),
    ("lock file", "\"integrity\": \"sha512-{B:86}==\"\n"),
    ("lock file", "checksum = \"{x:64}\"\n"),
    ("lock file", "    --hash=sha256:{x:64} \\\n"),
    ("lock file", "golang.org/x/net v0.1.0 h1:{B:43}=\n"),
    ("digest", "sha256:{x:64}\n"),
    ("digest", "commit {x:40}\n"),
    ("digest", "ETag: \"{x:32}\"\n"),
    ("digest", "md5 = {x:32}\n"),
    ("uuid", "id: {x:8}-{x:4}-{x:4}-{x:4}-{x:12}\n"),
    (
        "public key",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ{B:300} ada@host\n",
    ),
    (
        "public key",
        "-----BEGIN PUBLIC KEY-----\n{B:64}\n{B:64}\n-----END PUBLIC KEY-----\n",
    ),
    (
        "certificate",
        "-----BEGIN CERTIFICATE-----\nMII{B:61}\n{B:64}\n-----END CERTIFICATE-----\n",
    ),
    (
        "armour in source",
        "if line == \"-----BEGIN RSA PRIVATE KEY-----\" { parse() }\n",
    ),
    (
        "armour in docs",
        "-----BEGIN RSA PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----\n",
    ),
    (
        "armour in docs",
        "-----BEGIN PRIVATE KEY-----\n<your key here>\n-----END PRIVATE KEY-----\n",
    ),
    (
        "armour of nothing",
        "-----BEGIN RSA PRIVATE KEY-----\n{B:64}\n{B:64}\n-----END RSA PRIVATE KEY-----\n",
    ),
    (
        "armour in a pattern",
        "re.compile('-----BEGIN (RSA |EC )?PRIVATE KEY-----')\n",
    ),
    ("web token of nothing", "eyJ{b:30}.eyJ{b:40}.{b:43}\n"),
    (
        "web token of the docs",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.{b:43}\n",
    ),
    (
        "source map",
        "//# sourceMappingURL=data:application/json;base64,eyJ2ZXJzaW9uIjozLCJz{b:200}\n",
    ),
    ("image", "url(data:image/png;base64,iVBORw0KGgo{B:300})\n"),
    ("font", "src:url(data:font/woff2;base64,d09GMgAB{B:300})\n"),
    (
        "slack docs",
        "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX\n",
    ),
    ("slack docs", "xoxb-your-token-here\n"),
    ("stripe docs", "sk_live_...\n"),
    (
        "stripe name",
        "risk_live_updates_enabled_for_all_accounts\n",
    ),
    ("python name", "self.secret_key_base = None\n"),
    ("python call", "password = getpass.getpass('Password: ')\n"),
    (
        "python default",
        "def connect(host, password=None, token=''):\n",
    ),
    (
        "python environment",
        "SECRET_KEY = os.environ['SECRET_KEY']\n",
    ),
    ("python type", "api_key: str | None = None\n"),
    (
        "js environment",
        "const token = process.env.GITHUB_TOKEN;\n",
    ),
    (
        "js option",
        "headers: { Authorization: `Bearer ${token}` }\n",
    ),
    ("js regex", "/^(?:sk|pk)_(?:test|live)_[0-9a-zA-Z]+$/\n"),
    ("go constant", "const passwordHeader = \"X-Password\"\n"),
    (
        "java annotation",
        "@Value(\"${spring.datasource.password}\") String password;\n",
    ),
    ("shell", "read -s -p \"Password: \" password\n"),
    ("shell", "export TOKEN=$(cat /run/secrets/token)\n"),
    ("makefile", "PASSWORD ?= $(shell pass show db)\n"),
    (
        "compose",
        "POSTGRES_PASSWORD_FILE: /run/secrets/db_password\n",
    ),
    ("compose", "MYSQL_ALLOW_EMPTY_PASSWORD: \"yes\"\n"),
    ("helm", "password: {{ .Values.auth.password | b64enc }}\n"),
    ("terraform", "password = var.db_password\n"),
    (
        "ansible",
        "password: \"{{ lookup('env', 'DB_PASSWORD') }}\"\n",
    ),
    ("nginx", "auth_basic_user_file /etc/nginx/.htpasswd;\n"),
    ("pam", "password requisite pam_pwquality.so retry=3\n"),
    ("ssh config", "PasswordAuthentication no\n"),
    ("sudoers", "Defaults passwd_tries=3\n"),
    ("locale", "msgid \"Enter your password\"\n"),
    ("log", "2024-01-01T00:00:00Z token expired for user {x:8}\n"),
    (
        "npm script",
        "\"prepublish\": \"npm run token && npm run build\"\n",
    ),
    (
        "npm config",
        "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\n",
    ),
    ("pip config", "index-url = https://pypi.org/simple\n"),
    ("docker auth", "{\"auths\": {\"r.example\": {}}}\n"),
    ("docker auth", "\"auth\": \"{x:20}\"\n"),
    ("kube", "token: \"\"\n"),
    ("kube", "certificate-authority-data: {B:200}\n"),
    ("google name", "AIzaSyExampleKeyForDocumentationOnly\n"),
    ("datadog digest", "datadog_agent_sha = {x:32}\n"),
    ("twilio account", "account = AC{x:32}\n"),
    (
        "sentry public",
        "dsn = https://{x:32}@o1.ingest.sentry.io/{d:5}\n",
    ),
    ("heroku slug", "heroku/heroku:22-build {x:8}\n"),
    ("hf name", "hf_hub_download_and_extract_the_archive\n"),
    ("pat word", "patchwork_of_patterns.patterned\n"),
    ("api path", "/api/webhooks/{id}/{token}\n"),
    ("age public", "age1{k32:58}\n"),
    ("wireguard public", "PublicKey = {B:43}=\n"),
    ("vault path", "vault kv get secret/data/app/password\n"),
    ("locked", "daemon:*:19000:0:99999:7:::\n"),
    ("test vector", "Key = 000102030405060708090a0b0c0d0e0f\n"),
    ("test vector", "secret: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"),
    ("sequence", "token: abcdefghijklmnopqrstuvwxyz0123456789\n"),
    ("sequence", "api_key=0123456789abcdef0123456789abcdef\n"),
    (
        "license key word",
        "New Relic license key: enter it in newrelic.yml\n",
    ),
    (
        "url without password",
        "https://ada@git.example.org/repo.git\n",
    ),
    ("url with port", "http://localhost:8080@home\n"),
    ("email", "mailto:ada@example.org?subject=token\n"),
    ("basic of nothing", "Authorization: Basic {x:16}\n"),
];

struct Planted {
    path: String,
    secret: String,
}

type Files = Vec<(String, Vec<u8>)>;

/// One secret of each kind, in a file of its own.
fn in_files(round: u64, planted: &mut Vec<Planted>, files: &mut Files) {
    for (number, (path, around, form)) in KINDS.iter().enumerate() {
        // Armours take their number from the template.
        let has_number = ["{pem", "{jwt", "{b64pem"]
            .iter()
            .any(|start| form.starts_with(start));
        let form = match round {
            1 if has_number => form.replace(':', ":1"),
            _ => (*form).to_owned(),
        };
        let secret = expand(&form, 1_000 * (round + 1) + number as u64);
        let (before, after) = around.split_once('@').unwrap();
        let text = format!("{before}{secret}{after}");
        let path = match round {
            0 => (*path).to_owned(),
            // What is known by its name alone keeps it.
            _ => format!("srv/backup/{path}"),
        };
        let bytes = match (round, number % 10) {
            (1, 7) => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            _ => text.into_bytes(),
        };
        files.push((path.clone(), bytes));
        planted.push(Planted { path, secret });
    }
}

/// The last ones of all go from files into the config.
fn in_config(planted: &mut [Planted], files: &mut Files) -> ImageConfig {
    let mut environment = Vec::new();
    let mut history = ["ADD rootfs.tar.xz /", "", "RUN rm"].map(ToOwned::to_owned);
    let names = ["SESSION_TOKEN", "DB_PASSWORD", "API_KEY"];
    for (at, (name, spot)) in names.iter().zip(planted.iter_mut().rev()).enumerate() {
        files.pop();
        spot.secret = expand("{w:30}", 77 + at as u64);
        if at == 0 {
            let secret = &spot.secret;
            history[1] = format!("RUN |1 {name}={secret} /bin/sh -c make # buildkit");
            spot.path = format!("image-config/args/{name}");
        } else {
            environment.push(((*name).to_owned(), spot.secret.clone()));
            spot.path = format!("image-config/env/{name}");
        }
    }
    let step = |created_by: &String| HistoryStep {
        created_by: created_by.clone(),
        empty_layer: false,
    };
    ImageConfig {
        history: history.iter().map(step).collect(),
        environment: Environment(environment),
        runtime: RuntimeConfig::default(),
        ..ImageConfig::default()
    }
}

fn layer_of(files: &Files) -> PreparedLayer {
    let files = files.iter();
    let files: Vec<_> = files
        .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
        .collect();
    layer(&files)
}

/// The secrets, the layers that hold them, and the config that holds the last ones.
fn world() -> (Vec<Planted>, Vec<PreparedLayer>, ImageConfig) {
    let (mut planted, mut files) = (Vec::new(), Vec::new());
    in_files(0, &mut planted, &mut files);
    in_files(1, &mut planted, &mut files);
    let config = in_config(&mut planted, &mut files);
    let last = files.iter().rev().take(DELETED);
    let deleted: Files = last.map(|(path, _)| (whiteout(path), Vec::new())).collect();
    let base = layer(&[("etc/hostname", b"a")]);
    (
        planted,
        vec![base, layer_of(&files), layer_of(&deleted)],
        config,
    )
}

fn whiteout(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').unwrap();
    format!("{directory}/.wh.{name}")
}

/// How many of the texts that only look like secrets are taken for some; each stands in a file of its
/// own, of a name that is looked into.
fn false_findings(told_wrong: &mut String) -> usize {
    let texts = LOOK_ALIKES.iter().zip(0_u64..);
    let files: Files = texts
        .map(|((_, text), number)| {
            let text = expand(text, number).replace('|', "");
            (format!("app/like/{number}.conf"), text.into_bytes())
        })
        .collect();
    let report = image(&[layer_of(&files)], &ImageConfig::default());
    for one in &report.findings.secrets {
        writeln!(told_wrong, "false: {} in {}", one.rule, one.path).unwrap();
    }
    report.findings.secrets.len()
}

#[test]
fn a_hundred_planted_secrets_are_found_and_a_hundred_look_alikes_are_not() {
    assert_eq!(KINDS.len(), 50);
    assert_eq!(LOOK_ALIKES.len(), 100);
    let (planted, layers, config) = world();
    assert_eq!(planted.len(), 100);
    let report = image(&layers, &config);
    let found: BTreeSet<&str> = report
        .findings
        .secrets
        .iter()
        .map(|one| one.path.as_str())
        .collect();
    let mut told_wrong = String::new();
    let mut missed = 0;
    for one in planted
        .iter()
        .filter(|one| !found.contains(one.path.as_str()))
    {
        writeln!(told_wrong, "missed in {}", one.path).unwrap();
        missed += 1;
    }
    let mut by_path: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in &report.findings.secrets {
        by_path.entry(&one.path).or_default().push(&one.rule);
    }
    let places: BTreeSet<&str> = planted.iter().map(|one| one.path.as_str()).collect();
    let mut extra = 0;
    for (path, rules) in &by_path {
        if !places.contains(path) || rules.len() > 1 {
            writeln!(told_wrong, "more than planted in {path}: {rules:?}").unwrap();
            extra += 1;
        }
    }
    let deleted = report
        .findings
        .secrets
        .iter()
        .filter(|one| one.deleted_later)
        .count();
    let in_config = found
        .iter()
        .filter(|path| path.starts_with("image-config/"))
        .count();

    let false_ones = false_findings(&mut told_wrong);
    let summary = format!(
        "{} planted: {} found, {missed} missed, {extra} twice or elsewhere; {} look-alikes: {false_ones} false; \
         {deleted} deleted later, {in_config} in the config",
        planted.len(),
        planted.len() - missed,
        LOOK_ALIKES.len()
    );
    assert_eq!(
        summary,
        "100 planted: 100 found, 0 missed, 0 twice or elsewhere; 100 look-alikes: 0 false; 5 deleted later, 3 in the config",
        "{told_wrong}"
    );
    assert_eq!((deleted, in_config), (DELETED, IN_CONFIG));
}

#[test]
fn no_planted_secret_is_told_in_sections_or_reports() {
    let (planted, layers, config) = world();
    let report = image(&layers, &config);
    let mut texts = vec![
        serde_json::to_string(&report).unwrap(),
        format!("{report:?}"),
        format!("{config:?}"),
    ];
    // A config is printed without its history only where it is masked.
    texts.pop();
    texts.push(format!("{:?}", config.environment));
    for layer in &layers {
        for section in &layer.sections {
            texts.push(serde_json::to_string(&section.to_section(&layer.entries)).unwrap());
            let packed = rmp_serde::to_vec_named(&**section).unwrap();
            texts.push(String::from_utf8_lossy(&packed).into_owned());
        }
    }
    for one in &planted {
        // Of an armour its middle, for its first line is no secret.
        let secret = if one.secret.len() > 200 {
            let middle = one.secret.len() / 2;
            &one.secret[middle..middle + 40]
        } else {
            one.secret.as_str()
        };
        for form in told(secret) {
            for text in &texts {
                assert!(!text.contains(&form), "{} is told as {form}", one.path);
            }
        }
    }
}

#[test]
fn the_key_names_the_section_and_the_secrets() {
    let limits = Limits::default();
    let id = |key: Option<&[u8]>| {
        let config = Config {
            secrets: SecretsConfig {
                key: key.map_or_else(FingerprintKey::default, |key| {
                    FingerprintKey::new(key).unwrap()
                }),
                ..SecretsConfig::default()
            },
            ..Config::default()
        };
        let ids = Analyzers::all(&config, &limits).ids();
        let of = |name: &str| ids.iter().find(|id| id.name == name).unwrap().clone();
        (of("secrets"), of("dpkg"))
    };
    let (none, dpkg) = id(None);
    let (one, same) = id(Some(b"0123456789abcdef"));
    let (other, _) = id(Some(b"fedcba9876543210"));
    assert!(none != one && one != other);
    assert_eq!(one, id(Some(b"0123456789abcdef")).0);
    // What only the one analyzer depends on costs the others nothing.
    assert_eq!(dpkg, same);
}
