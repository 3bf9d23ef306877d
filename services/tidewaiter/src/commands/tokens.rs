//! `tokens`: who may use a server.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use model::Scope;
use serde_json::json;

use crate::{
    cli::{Format, TokenWanted, TokensCommand},
    client::Client,
    commands::{paging, print},
    exit::Exit,
    tokens::{MadeToken, Token, write_secret},
};

pub(crate) async fn run(command: TokensCommand) -> anyhow::Result<Exit> {
    match command {
        TokensCommand::Create {
            wanted,
            output,
            format,
            server,
        } => {
            let made = create(&Client::new(&server)?, &wanted).await?;
            show(&made, output.as_deref(), format)?;
        }
        TokensCommand::List { format, server } => {
            let tokens = list(&Client::new(&server)?).await?;
            match format {
                Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&tokens)?))?,
                Format::Table => print(&table(&tokens)?)?,
            }
        }
        TokensCommand::Revoke {
            token,
            force,
            server,
        } => {
            let client = Client::new(&server)?;
            let found = find(list(&client).await?, &token)?;
            let query = [("force", force.to_string())];
            client
                .delete(&format!("/v1/tokens/{}", found.id), &query)
                .await?;
            print(&format!(
                "token `{}` ({}) is revoked\n",
                found.name, found.id
            ))?;
        }
    }
    Ok(Exit::Ok)
}

async fn create(client: &Client, wanted: &TokenWanted) -> anyhow::Result<MadeToken> {
    let mut body = json!({ "name": wanted.name });
    if let Some(role) = wanted.role {
        body["role"] = serde_json::to_value(role)?;
    }
    if !wanted.scopes.is_empty() {
        let scopes: Vec<Scope> = wanted.scopes.iter().map(|scope| (*scope).into()).collect();
        body["scopes"] = serde_json::to_value(scopes)?;
    }
    if let Some(tenant) = &wanted.tenant {
        body["tenant"] = tenant.as_str().into();
    }
    if let Some(after) = wanted.expires {
        let end = chassis::Clock::now(&chassis::SystemClock)
            .checked_add(SignedDuration::try_from(after)?);
        let end: Timestamp = end.context("`--expires` is too far away")?;
        body["expires_at"] = end.to_string().into();
    }
    client.post("/v1/tokens", &body).await
}

/// The secret goes to a file that only its owner can read, or to standard output, alone.
fn show(made: &MadeToken, output: Option<&Path>, format: Format) -> anyhow::Result<()> {
    if let Some(file) = output {
        write_secret(file, &made.token).with_context(|| format!("writing `{}`", file.display()))?;
        let (name, id) = (&made.shown.name, &made.shown.id);
        return print(&format!("token `{name}` ({id}) is in {}\n", file.display()));
    }
    match format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(made)?)),
        Format::Table => {
            crate::complain(&format!(
                "token `{}` ({}); this is the only time that it is shown:",
                made.shown.name, made.shown.id
            ));
            print(&format!("{}\n", made.token))
        }
    }
}

async fn list(client: &Client) -> anyhow::Result<Vec<Token>> {
    paging::rows(client, "/v1/tokens", &[]).await
}

/// The one token of a name or id.
fn find(tokens: Vec<Token>, wanted: &str) -> anyhow::Result<Token> {
    let mut found = tokens
        .into_iter()
        .filter(|token| token.id == wanted || token.name == wanted);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => bail!("there is no token `{wanted}` (`tidewaiter tokens list` shows them)"),
        (Some(one), Some(two)) => {
            bail!(
                "several tokens are called `{wanted}`: give an id, as {} or {}",
                one.id,
                two.id
            )
        }
    }
}

fn table(tokens: &[Token]) -> anyhow::Result<String> {
    let mut text = format!(
        "{:<16}  {:<20} {:<12} {:<16} {:<20} {:<20} CREATED BY\n",
        "ID", "NAME", "TENANT", "MAY", "UNTIL", "LAST USED"
    );
    for token in tokens {
        let scopes: Vec<String> = token
            .scopes
            .iter()
            .map(|scope| format!("{scope:?}").to_lowercase())
            .collect();
        let until = match token.expires_at {
            None => "no end".to_owned(),
            Some(_) if token.is_expired => "ended".to_owned(),
            Some(end) => format!("{end:.0}"),
        };
        let used = token.last_used_at;
        let used = used.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        writeln!(
            text,
            "{:<16}  {:<20} {:<12} {:<16} {until:<20} {used:<20} {}",
            token.id,
            token.name,
            token.tenant.as_str(),
            scopes.join(","),
            token.created_by.as_deref().unwrap_or("-"),
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str, name: &str, expires_at: Option<&str>, is_expired: bool) -> Token {
        serde_json::from_value(json!({
            "id": id, "name": name, "role": null, "scopes": ["read", "scan"], "tenant": "default",
            "created_at": "2026-03-01T12:00:00Z", "created_by": null,
            "expires_at": expires_at, "is_expired": is_expired,
            "last_used_at": "2026-03-05T07:08:09Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_token_is_found_by_name_or_id_unless_several_fit() {
        let all = || {
            vec![
                token("a1", "ci", None, false),
                token("b2", "ci", None, false),
                token("c3", "web", None, false),
            ]
        };
        assert_eq!(find(all(), "web").unwrap().id, "c3");
        assert_eq!(find(all(), "b2").unwrap().id, "b2");
        assert!(
            find(all(), "ci")
                .unwrap_err()
                .to_string()
                .contains("a1 or b2")
        );
        assert!(find(all(), "none").is_err());
    }

    #[test]
    fn the_table_says_until_when_a_token_holds_and_when_it_was_used() {
        let end = Some("2026-06-01T12:00:00Z");
        let tokens = [
            token("a1", "ci", None, false),
            token("b2", "old", end, true),
            token("c3", "web", end, false),
        ];
        let text = table(&tokens).unwrap();
        let untils = ["no end", "ended", "2026-06-01T12:00:00Z"];
        for (line, until) in text.lines().skip(1).zip(untils) {
            assert!(line.contains(until) && line.contains("read,scan"), "{line}");
            assert!(line.contains("2026-03-05T07:08:09Z"), "{line}");
        }
    }
}
