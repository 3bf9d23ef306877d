//! Verdicts as they read now: records say what was judged, and the mark of the image's partition
//! for which advisory data that still holds.

use jiff::Timestamp;
use model::{
    Assessed, Digest, Judged, Partition, RecordKey, Slug, SweptMark, What,
    answer::{self, Answer},
    event::{ADVISORIES, images_bucket},
};

use super::Store;
use crate::error::StoreError;

impl Store {
    /// The verdicts on an image as they read at `now`, one per policy that has a say.
    pub async fn verdicts(
        &self,
        tenant: &Slug,
        image: Digest,
        now: Timestamp,
    ) -> Result<Vec<Answer>, StoreError> {
        let bucket = images_bucket(image.partition());
        let prefix = format!("{tenant}.{}.judged.", image.hex());
        let judged = self.list::<Judged>(&bucket, &prefix).await?;
        if judged.is_empty() {
            return Ok(Vec::new());
        }
        let mark = self.swept_mark(image.partition()).await?;
        let key = RecordKey::new(tenant, image, What::Assessed);
        let assessed = self.record::<Assessed>(&key).await?;
        let assessed = assessed.map_or(0, |stored| stored.revision);
        let judged = judged.into_iter().map(|(_, stored)| stored.body);
        Ok(answer::of_image(judged, assessed, &mark, now))
    }

    /// For which advisory data a partition holds; none where it was not swept yet.
    pub async fn swept_mark(&self, partition: Partition) -> Result<SweptMark, StoreError> {
        let key = format!("swept.{partition}");
        let stored = self.get::<SweptMark>(ADVISORIES, &key).await?;
        Ok(stored.map(|stored| stored.body).unwrap_or_default())
    }
}
