//! The news of a record: what one message did to it.

use model::runtime::{ContainerResponded, ResponseRecord};

/// The news of the steps that a message caused, told from what is stored: who tells them again after
/// a crash tells the same.
pub(crate) fn of(record: &ResponseRecord, cause: &str) -> Vec<ContainerResponded> {
    let mut news = Vec::new();
    for response in &record.responses {
        for step in response.steps.iter().filter(|step| step.id == cause) {
            let detail = if step.detail.is_empty() {
                response.reason.clone()
            } else {
                step.detail.clone()
            };
            news.push(ContainerResponded {
                response: response.id.clone(),
                incident: record.incident.clone(),
                node: record.node.clone(),
                container: record.container.clone(),
                container_name: record.container_name.clone(),
                image: record.image,
                action: Some(response.action.kind()),
                mode: response.mode,
                stage: step.stage,
                by: step.by.clone(),
                detail,
                evidence: response.evidence.last().cloned(),
                at: step.at,
            });
        }
    }
    news
}
