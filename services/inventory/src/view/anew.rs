//! A bucket that was made anew, as after a loss of the servers' disks, counts from 1 again: what the
//! view has of the old one is forgotten, for none of it may be there any more.

use cache::CacheError;
use model::{
    Digest, RecordKey, Slug, What,
    event::{INCIDENTS, NODES, images_bucket},
    runtime::RESPONSE_RECORDS,
};

use super::{CURSORS, Fact, IMAGES, Ordered, View, keys};

/// How many images are looked at at once.
const PAGE: usize = 1_000;

impl View {
    /// The last sequence of a bucket that is in the view, when the bucket, which was made then and
    /// is at `last`, is followed from now on.
    pub(crate) fn begin(&self, bucket: &str, last: u64, made: &str) -> Result<u64, CacheError> {
        let key = made_key(bucket);
        let known: Option<String> = self.database.get_as(CURSORS, &key)?;
        let cursor = self.cursor(bucket)?;
        let is_new = cursor > last || known.as_deref().is_some_and(|known| known != made);
        if is_new {
            tracing::warn!("`{bucket}` was made anew: the view of it begins again");
            match bucket {
                NODES => self.forget_nodes()?,
                INCIDENTS => self.forget_ordered(Ordered::INCIDENTS)?,
                RESPONSE_RECORDS => self.forget_ordered(Ordered::RESPONSES)?,
                _ => self.forget_all(bucket)?,
            }
            self.database.put_as(CURSORS, bucket.as_bytes(), &0_u64)?;
        }
        self.database.put_as(CURSORS, &key, &made)?;
        Ok(if is_new { 0 } else { cursor })
    }

    /// Forgets the images of a bucket, of all tenants.
    fn forget_all(&self, bucket: &str) -> Result<(), CacheError> {
        let mut from: Option<Vec<u8>> = None;
        loop {
            let page = self
                .database
                .scan_prefix(IMAGES, &[], from.as_deref(), PAGE)?;
            for (key, _) in &page {
                if let Some((tenant, image)) = keys::image_of(key)
                    && images_bucket(image.partition()) == bucket
                {
                    self.forget_image(&tenant, image)?;
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE => from = Some(keys::after(key)),
                _ => return Ok(()),
            }
        }
    }

    fn forget_image(&self, tenant: &Slug, image: Digest) -> Result<(), CacheError> {
        let policies = self.image(tenant, image)?.unwrap_or_default().judged;
        let judged = policies.into_keys().map(What::Judged);
        for what in judged.chain([What::Assessed, What::Scanned, What::Known]) {
            let key = RecordKey::new(tenant, image, what);
            self.database
                .batch(|batch| self.take(batch, &key, &Fact::Gone, 0))?;
        }
        Ok(())
    }
}

fn made_key(bucket: &str) -> Vec<u8> {
    format!("{bucket}/made").into_bytes()
}
