//! Docker's API, which podman speaks as well: `GET /images/{name}/get` is `docker save`.

use std::sync::Arc;

use model::ImageRef;
use reqwest::{Response, StatusCode, Url};
use serde_json::{Value, json};

use super::Asked;
use crate::{
    DockerArchive, OciError, Source,
    reader::{self, Feed},
    source::{Platforms, Wanted},
    tarball::Tarball,
};

/// Bytes of an error message of the engine.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

impl Asked<'_> {
    /// Takes an image out of the engine; `None` where that does not have it.
    pub(super) async fn export(
        &self,
        reference: &ImageRef,
        platforms: &Platforms,
    ) -> Result<Option<(Arc<dyn Source>, Wanted)>, OciError> {
        let name = reference.to_string();
        let archive = self.exported(&name, platforms).await?;
        let wanted = Wanted {
            platforms: platforms.clone(),
            ..Wanted::default()
        };
        Ok(archive.map(|archive| (Arc::new(archive) as Arc<dyn Source>, wanted)))
    }

    /// An image by its name or id, in a file without a name.
    pub(super) async fn exported(
        &self,
        name: &str,
        platforms: &Platforms,
    ) -> Result<Option<DockerArchive>, OciError> {
        let client = super::build(self.client())?;
        let mut url = url(name)?;
        if let Platforms::Only(platform) = platforms {
            // Engines that keep one platform of an image do not know the parameter.
            let platform = json!({
                "os": platform.os,
                "architecture": platform.architecture,
                "variant": platform.variant,
            });
            url.query_pairs_mut()
                .append_pair("platform", &platform.to_string());
        }
        let sent = client.get(url).send().await;
        let response = sent.map_err(|error| self.unreachable(&error))?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if !status.is_success() => {
                let why = message(response).await;
                return Err(self.away(format!("it answers {status} for `{name}`: {why}")));
            }
            _ => {}
        }
        let (feed, reader) = reader::channel();
        let place = self.place();
        let lost = self.away("the connection was lost");
        self.cx
            .spawn("image from an engine", pump(response, feed, lost));
        let (cx, limits) = (self.cx.clone(), self.limits.clone());
        let label = format!("{name} of {place}");
        let unpacked = self.cx.blocking(move || {
            let tarball = Tarball::unpacked(&cx, label, reader, &limits)?;
            DockerArchive::in_tarball(&cx, tarball)
        });
        Ok(Some(unpacked.await??))
    }
}

fn url(name: &str) -> Result<Url, OciError> {
    // The host is not looked up: the socket is where the request goes.
    let text = format!("http://localhost/images/{name}/get");
    Url::parse(&text).map_err(|error| OciError::malformed(format!("`{name}`"), error))
}

async fn pump(mut response: Response, feed: Feed, lost: OciError) {
    loop {
        let part = match response.chunk().await {
            Ok(part) => Ok(part),
            Err(_) => Err(lost.clone()),
        };
        let is_last = !matches!(part, Ok(Some(_)));
        if feed.send(part).await.is_err() || is_last {
            return;
        }
    }
}

/// What the engine says of its refusal, on one line.
async fn message(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        bytes.extend_from_slice(&part);
        if bytes.len() > MESSAGE_BYTES_MAX {
            break;
        }
    }
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let said = answer.get("message").and_then(Value::as_str);
    let said = said.unwrap_or("no reason given");
    said.chars()
        .take(300)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
