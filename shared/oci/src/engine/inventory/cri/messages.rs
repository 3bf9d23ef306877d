//! As much of the runtime interface's messages as tells of pods, containers and images (`runtime.v1`).

use std::collections::HashMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub(in crate::engine::inventory) name: String,
    #[prost(string, tag = "3")]
    pub(in crate::engine::inventory) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    pub(in crate::engine::inventory) filter: Option<ContainerFilter>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct ContainerFilter {
    #[prost(string, tag = "1")]
    pub(in crate::engine::inventory) id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::engine::inventory) containers: Vec<Listed>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct Listed {
    #[prost(string, tag = "1")]
    pub(in crate::engine::inventory) id: String,
    #[prost(string, tag = "2")]
    pub(in crate::engine::inventory) sandbox: String,
    #[prost(message, optional, tag = "3")]
    pub(in crate::engine::inventory) metadata: Option<Named>,
    #[prost(message, optional, tag = "4")]
    pub(in crate::engine::inventory) image: Option<ImageSpec>,
    #[prost(string, tag = "5")]
    pub(in crate::engine::inventory) image_ref: String,
    #[prost(int32, tag = "6")]
    pub(in crate::engine::inventory) state: i32,
    #[prost(int64, tag = "7")]
    pub(in crate::engine::inventory) created_at_ns: i64,
    #[prost(map = "string, string", tag = "8")]
    pub(in crate::engine::inventory) labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "9")]
    pub(in crate::engine::inventory) annotations: HashMap<String, String>,
    #[prost(string, tag = "10")]
    pub(in crate::engine::inventory) image_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct Named {
    #[prost(string, tag = "1")]
    pub(in crate::engine::inventory) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct ImageSpec {
    /// A name, or what the runtime calls the image.
    #[prost(string, tag = "1")]
    pub(in crate::engine::inventory) image: String,
    /// The name as it was asked for, where the runtime keeps it.
    #[prost(string, tag = "18")]
    pub(in crate::engine::inventory) asked_for: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct StatusRequest {
    #[prost(string, tag = "1")]
    pub(in crate::engine::inventory) id: String,
    #[prost(bool, tag = "2")]
    pub(in crate::engine::inventory) verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(in crate::engine::inventory) status: Option<Status>,
    #[prost(map = "string, string", tag = "2")]
    pub(in crate::engine::inventory) info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct Status {
    #[prost(int64, tag = "5")]
    pub(in crate::engine::inventory) started_at_ns: i64,
    #[prost(message, optional, tag = "8")]
    pub(in crate::engine::inventory) image: Option<ImageSpec>,
}

/// Of a pod's own container only what is meant for people tells more than the list does.
#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct SandboxStatusResponse {
    #[prost(map = "string, string", tag = "2")]
    pub(in crate::engine::inventory) info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct ListSandboxesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::engine::inventory) sandboxes: Vec<Sandbox>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct Sandbox {
    #[prost(string, tag = "1")]
    pub(in crate::engine::inventory) id: String,
    #[prost(message, optional, tag = "2")]
    pub(in crate::engine::inventory) metadata: Option<PodNamed>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct PodNamed {
    #[prost(string, tag = "1")]
    pub(in crate::engine::inventory) name: String,
    #[prost(string, tag = "3")]
    pub(in crate::engine::inventory) namespace: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct ListImagesResponse {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::engine::inventory) images: Vec<Image>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::engine::inventory) struct Image {
    #[prost(string, tag = "1")]
    pub(in crate::engine::inventory) id: String,
    #[prost(string, repeated, tag = "2")]
    pub(in crate::engine::inventory) tags: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(in crate::engine::inventory) digests: Vec<String>,
    #[prost(uint64, tag = "4")]
    pub(in crate::engine::inventory) bytes: u64,
}
