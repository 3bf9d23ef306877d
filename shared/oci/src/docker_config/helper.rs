//! Credential helpers: programs `docker-credential-<name>` that keep or make credentials. The
//! registry's name goes in on standard input after the word `get`, JSON comes out.

use std::{path::Path, process::Stdio, time::Duration};

use chassis::Secret;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use crate::registry::Credentials;

/// Helpers may ask a keychain or a cloud, never a person.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
const NAME_BYTES_MAX: usize = 64;
/// A token of a cloud has some thousand bytes.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
const ERROR_BYTES_MAX: u64 = 4 << 10;
/// What a helper calls the user where the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// It has no `Debug`: there is a secret in it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What a helper did.
struct Outcome {
    success: bool,
    output: Vec<u8>,
    errors: Vec<u8>,
}

/// Whether a name can be a helper's: it becomes part of a program's name and nothing else.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with(['.', '-'])
        && name.bytes().all(is_word);
    if fits {
        return Ok(());
    }
    let shown: String = name.escape_default().take(NAME_BYTES_MAX).collect();
    Err(format!(
        "`{shown}` is no name of a credential helper, which has letters, digits and `._-` only"
    ))
}

/// Asks a helper for the credentials of `server`; `None` where it knows nothing of it.
pub(super) async fn get(
    name: &str,
    folder: Option<&Path>,
    server: &str,
    timeout: Duration,
) -> Result<Option<Credentials>, String> {
    check_name(name)?;
    let program = format!("docker-credential-{name}");
    let running = run(&program, folder, server);
    let outcome = tokio::time::timeout(timeout, running)
        .await
        .map_err(|_| format!("the helper `{program}` gave no answer in {timeout:?}"))??;
    if !outcome.success {
        if outcome.is_unknown() {
            return Ok(None);
        }
        let said: String = String::from_utf8_lossy(&outcome.errors)
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        return Err(format!("the helper `{program}` gave up: {said}"));
    }
    // What it printed may be a secret, whatever it is: nothing of it is repeated.
    let answer: Answer = serde_json::from_slice(&outcome.output)
        .map_err(|_| format!("the helper `{program}` answered with something else than JSON with `Username` and `Secret`"))?;
    Ok(answer.into_credentials())
}

async fn run(program: &str, folder: Option<&Path>, server: &str) -> Result<Outcome, String> {
    let path = folder.map_or_else(|| program.into(), |folder| folder.join(program));
    // No shell: the name is one word of the program's own path, and the server goes in as input.
    let mut child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            format!("the helper `{program}` could not be started ({error}); is it on the PATH?")
        })?;
    let (output, errors) = converse(&mut child, server)
        .await
        .map_err(|error| format!("talking to the helper `{program}`: {error}"))?;
    if output.len() as u64 > OUTPUT_BYTES_MAX {
        return Err(format!(
            "the helper `{program}` printed more than {OUTPUT_BYTES_MAX} bytes"
        ));
    }
    let status = child
        .wait()
        .await
        .map_err(|error| format!("waiting for the helper `{program}`: {error}"))?;
    Ok(Outcome {
        success: status.success(),
        output,
        errors,
    })
}

/// Says what is wanted and listens, to both outputs at once, so that neither can block the other.
async fn converse(child: &mut Child, server: &str) -> std::io::Result<(Vec<u8>, Vec<u8>)> {
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let saying = async {
        if let Some(mut input) = input {
            // A helper that does not listen says itself what is wrong with it.
            let _deaf = input.write_all(format!("{server}\n").as_bytes()).await;
        }
    };
    let ((), output, errors) = tokio::join!(
        saying,
        listen(output, OUTPUT_BYTES_MAX.saturating_add(1)),
        listen(errors, ERROR_BYTES_MAX),
    );
    Ok((output?, errors?))
}

/// Up to so many bytes; then the pipe is closed, and who writes on finds that out.
async fn listen(pipe: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(bytes_max).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

// === impl Outcome ===

impl Outcome {
    /// Helpers say in words that they know nothing of a server.
    fn is_unknown(&self) -> bool {
        [&self.output, &self.errors]
            .iter()
            .any(|text| String::from_utf8_lossy(text).contains("credentials not found"))
    }
}

// === impl Answer ===

impl Answer {
    fn into_credentials(self) -> Option<Credentials> {
        let Self { username, secret } = self;
        match username.as_str() {
            _ if secret.is_empty() => None,
            "" => None,
            TOKEN_USER => Some(Credentials::IdentityToken(Secret::from(secret))),
            _ => Some(Credentials::Basic {
                username,
                password: Secret::from(secret),
            }),
        }
    }
}
