//! The table of routes: who may ask what, and what the answers are.

use axum::http::StatusCode;
use chassis::http::{Access, Page, Route};

use super::{
    Api, advisories, connections, containers, events, health, images, incidents, nodes,
    replacements,
    reports::{ReportAnswer, ReportQuery},
    responses, running, scans, verdicts, vulnerabilities,
};

const READ: Access = Access::Scope(super::READ);
const RESPOND: Access = Access::Scope("respond");
const OK: StatusCode = StatusCode::OK;
const NOT_FOUND: StatusCode = StatusCode::NOT_FOUND;
const BAD_REQUEST: StatusCode = StatusCode::BAD_REQUEST;

/// All routes, by path.
pub(super) fn table() -> Vec<Route<Api>> {
    let mut table = images();
    table.extend(questions());
    table.extend(nodes());
    table.push(connections());
    table.extend(incidents());
    table.extend(responses());
    table.extend(orders());
    table.push(events());
    table
}

fn images() -> Vec<Route<Api>> {
    vec![
        READ.get(
            "/v1/images",
            "listImages",
            "Images, one row per name",
            images::list,
        )
        .detail(
            "All filters that are given must fit. A page may be short, and even empty, while \
                 `next` is there: a request looks at a bounded number of rows.",
        )
        .query::<images::ListQuery>()
        .answers::<Page<images::Row>>(OK, "a page of the list, in the order of names"),
        // A reference has slashes, so one route takes all that begins like this.
        READ.get(
            "/v1/images/{*image}",
            "getImage",
            "The images that a name leads to",
            images::get,
        )
        .detail("An index is as bad as its worst platform.")
        .path::<String>(
            "image",
            "a reference, as `registry.example/team/app:1.0`, or the digest of an image, \
                 index or config",
        )
        .answers::<images::Details>(OK, "its images, one per platform")
        .refuses(BAD_REQUEST, "that is no reference and no digest")
        .refuses(NOT_FOUND, "no image of that name is known"),
        READ.get_within(
            "/v1/images/{digest}/report",
            "getReport",
            "Everything that is known of an image",
        )
        .path::<model::Digest>("digest", "the digest of an image, index or config")
        .query::<ReportQuery>()
        .answers::<ReportAnswer>(OK, "the report; of an index, each platform's")
        .refuses(
            BAD_REQUEST,
            "that is no digest, or a parameter means nothing",
        )
        .refuses(NOT_FOUND, "no such image is known, or it has no report yet")
        .refuses(
            StatusCode::CONFLICT,
            "the image was scanned again meanwhile: ask again",
        ),
        READ.get_within(
            "/v1/images/{digest}/containers",
            "listImageContainers",
            "Where an image runs, and where it lies on a disk",
        )
        .path::<model::Digest>("digest", "the digest of an image, index or config")
        .query::<chassis::http::PageQuery>()
        .answers::<containers::ImageContainers>(OK, "a page of its containers, and the nodes")
        .refuses(
            BAD_REQUEST,
            "that is no digest, or a parameter means nothing",
        )
        .refuses(NOT_FOUND, "no such image is known"),
    ]
}

/// Nodes and their containers.
fn nodes() -> Vec<Route<Api>> {
    vec![
        READ.get(
            "/v1/nodes",
            "listNodes",
            "Nodes that have reported",
            nodes::list,
        )
        .query::<chassis::http::PageQuery>()
        .answers::<Page<nodes::Row>>(OK, "a page of the list, by name"),
        READ.get(
            "/v1/nodes/{node}",
            "getNode",
            "A node: its host, what its agent sees, the images on its disk",
            nodes::get,
        )
        .path::<model::Slug>("node", "the node's name")
        .answers::<nodes::Details>(OK, "what it reported last")
        .refuses(BAD_REQUEST, "that is no name of a node")
        .refuses(NOT_FOUND, "no node of that name has reported"),
        READ.get(
            "/v1/containers",
            "listContainers",
            "Containers of all nodes",
            containers::list,
        )
        .detail(
            "All filters that are given must fit. A page may be short, and even empty, while \
                 `next` is there: a request looks at a bounded number of rows.",
        )
        .query::<containers::ListQuery>()
        .answers::<Page<containers::Row>>(OK, "a page of the list, by node and id"),
        READ.get(
            "/v1/containers/{id}",
            "getContainer",
            "A container: what it may do, what is wrong with that, its incidents",
            containers::get,
        )
        .path::<String>("id", "the runtime's id, or enough of its beginning")
        .answers::<containers::Details>(OK, "what its node reported last")
        .refuses(NOT_FOUND, "no node has such a container")
        .refuses(StatusCode::CONFLICT, "several begin so"),
        READ.get(
            "/v1/vulnerabilities/{id}/containers",
            "listAffectedContainers",
            "Where a vulnerability runs",
            running::containers,
        )
        .detail(
            "One row per image that runs. An alias finds what its vulnerability finds. A page may \
                 be short, and even empty, while `next` is there.",
        )
        .path::<String>(
            "id",
            "the vulnerability, by any of its names, as `CVE-2021-44228`",
        )
        .query::<chassis::http::PageQuery>()
        .answers::<Page<running::Running>>(OK, "a page of the list, in the order of digests"),
    ]
}

fn connections() -> Route<Api> {
    READ.get(
        "/v1/connections",
        "listConnections",
        "Who talks to whom: containers that run, with their connections and ports",
        connections::list,
    )
    .detail(
        "One row per container that listens, has a published port, or was seen to open a \
             connection; of many connections the last ones. A page may be short, and even empty, \
             while `next` is there.",
    )
    .query::<connections::ListQuery>()
    .answers::<Page<connections::Row>>(OK, "a page of the list, by node and id")
}

fn incidents() -> Vec<Route<Api>> {
    vec![
        READ.get(
            "/v1/incidents",
            "listIncidents",
            "What containers did that they should not",
            incidents::list,
        )
        .query::<incidents::ListQuery>()
        .answers::<Page<model::runtime::Incident>>(OK, "a page of the list, the latest first"),
        READ.get(
            "/v1/incidents/{id}",
            "getIncident",
            "An incident, with what was detected in order",
            incidents::get,
        )
        .path::<String>("id", "the incident")
        .answers::<incidents::Details>(OK, "the incident")
        .refuses(NOT_FOUND, "there is no such incident"),
    ]
}

fn responses() -> Vec<Route<Api>> {
    vec![
        READ.get(
            "/v1/responses",
            "listResponses",
            "What was proposed, decided and done about incidents",
            responses::list,
        )
        .detail("A page may be short, and even empty, while `next` is there.")
        .query::<responses::ListQuery>()
        .answers::<Page<model::runtime::ResponseRecord>>(
            OK,
            "a page of the list, what changed last first",
        ),
        READ.get(
            "/v1/responses/{incident}",
            "getResponse",
            "What was proposed, decided and done about an incident",
            responses::get,
        )
        .path::<String>("incident", "the incident, or the name that an order gave")
        .answers::<model::runtime::ResponseRecord>(OK, "the answer to it")
        .refuses(NOT_FOUND, "nothing was done about it"),
        READ.get(
            "/v1/responses/{incident}/evidence/{digest}",
            "getEvidence",
            "Evidence that an agent collected",
            responses::evidence,
        )
        .path::<String>("incident", "the incident")
        .path::<model::Digest>(
            "digest",
            "the digest of the evidence, as the response names it",
        )
        .answers_with(OK, "application/octet-stream", "its bytes")
        .refuses(BAD_REQUEST, "that is no digest")
        .refuses(
            NOT_FOUND,
            "the incident has no such evidence, or it is not kept any more",
        ),
        READ.get(
            "/v1/replacements",
            "listReplacements",
            "Images with a better successor, and the containers that still run the old one",
            replacements::list,
        )
        .detail(
            "A successor is what the tag leads to now, where that is another image with a better \
             verdict. Nodes that run only the new one are done. Nothing is left out: a page may have \
             fewer rows than `limit`, or none, and yet a `next`, for a page looks at so many \
             containers and no more. What changes between two pages moves no other row.",
        )
        .query::<chassis::http::PageQuery>()
        .answers::<Page<replacements::Replacement>>(OK, "a page of the list, by name and images"),
    ]
}

/// Orders: policy carries them out.
fn orders() -> Vec<Route<Api>> {
    let order = |route: Route<Api>| {
        route
            .detail(
                "Policy carries it out, or writes down what held it: `orders` of the answer to the \
                 incident has it by the id given here. With `force` it overrules the guards.",
            )
            .header::<String>(
                "Idempotency-Key",
                "the same key with the same order orders nothing more",
            )
            .body::<responses::OrderBody>()
            .answers::<responses::OrderTaken>(StatusCode::ACCEPTED, "the order is taken")
            .refuses(BAD_REQUEST, "the order means nothing")
    };
    vec![
        order(RESPOND.post(
            "/v1/incidents/{id}/orders",
            "orderResponse",
            "Approves, denies, orders or takes back what is done about an incident",
            responses::order_incident,
        ))
        .path::<String>("id", "the incident")
        .refuses(NOT_FOUND, "there is no such incident"),
        order(RESPOND.post(
            "/v1/containers/{id}/orders",
            "orderContainerResponse",
            "Does something to a container, or takes it back, without an incident",
            responses::order_container,
        ))
        .path::<String>("id", "the runtime's id, or enough of its beginning")
        .refuses(NOT_FOUND, "no node has such a container")
        .refuses(StatusCode::CONFLICT, "several begin so"),
    ]
}

fn questions() -> Vec<Route<Api>> {
    vec![
        READ.get(
            "/v1/vulnerabilities/{id}/images",
            "listAffectedImages",
            "Images with a vulnerability",
            vulnerabilities::images,
        )
        .detail("An alias finds what its vulnerability finds.")
        .path::<String>(
            "id",
            "the vulnerability, by any of its names, as `CVE-2021-44228`",
        )
        .query::<chassis::http::PageQuery>()
        .answers::<Page<vulnerabilities::Affected>>(
            OK,
            "a page of the list, in the order of digests",
        ),
        READ.get(
            "/v1/verdicts",
            "getVerdict",
            "May this image be used?",
            verdicts::get,
        )
        .query::<verdicts::VerdictQuery>()
        .answers::<verdicts::VerdictAnswer>(OK, "what policy says, as it holds now")
        .refuses(
            NOT_FOUND,
            "no such image is known, or the policy has no say about it",
        ),
        READ.get(
            "/v1/scans/{id}",
            "getScan",
            "What became of a scan request",
            scans::get,
        )
        .detail("An id that nobody asked for is `pending`, like one whose request is on its way.")
        .path::<String>("id", "the id that `POST /v1/scans` gave")
        .query::<scans::ScanQuery>()
        .answers::<scans::ScanStatus>(OK, "how far it got")
        .refuses(NOT_FOUND, "that cannot be the id of a request"),
        READ.get(
            "/v1/advisories",
            "getAdvisories",
            "The advisory data in force",
            advisories::get,
        )
        .answers::<advisories::Advisories>(OK, "their revision and feeds"),
        READ.get(
            "/v1/health",
            "getHealth",
            "How the whole installation does",
            health::get,
        )
        .detail(
            "Queues, streams that are full, dead letters, processes with their notes and \
                 spools, sources, advisories, and how far this view of the records is. `problems` \
                 says in sentences what needs somebody's attention.",
        )
        .never_same()
        .answers::<health::Health>(OK, "the state of this moment"),
    ]
}

fn events() -> Route<Api> {
    READ.get(
        "/v1/events",
        "streamEvents",
        "What happens, as it happens",
        events::get,
    )
    .detail(
        "Server-sent events: `data` is a CloudEvent as JSON, `id` a position in all \
             streams. Whoever comes back with it as `Last-Event-ID` goes on behind it. \
             `gap`, `caught-up` and `end` tell of the stream itself.",
    )
    .never_same()
    .query::<events::EventsQuery>()
    .header::<String>("Last-Event-ID", "the `id` of the last event that was read")
    .answers_with(OK, "text/event-stream", "events, until one side ends it")
    .refuses(BAD_REQUEST, "a parameter means nothing")
    .refuses(
        StatusCode::SERVICE_UNAVAILABLE,
        "there are as many streams as this server gives, or the broker is away",
    )
}
